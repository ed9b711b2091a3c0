"""Figures of the finder on images with a known truth."""

import math

import torch
from torch import Tensor

from vision3d.stages.hand.data.images import ImageSamples
from vision3d.stages.hand.detections import Detections, Square, square_of
from vision3d.stages.hand.finder.network import FinderNet
from vision3d.stages.hand.finder.scenes import SceneBatch
from vision3d.stages.hand.finder.targets import found

LOWEST = 0.3
"""Score of the hands that count."""


@torch.no_grad()
def finder_figures(network: FinderNet, samples: ImageSamples[SceneBatch], batch_size: int = 32) -> dict[str, float]:
    """Share of hands found at IoU 0.5, false hands an image, share of right sides, median error of the rotation [deg].

    Args:
        network: In evaluation mode.
        samples: The images.
        batch_size: Images at a time.
    """
    device = next(network.parameters()).device
    hands, hit, wrong, same, turns = 0, 0, 0, 0, []
    for rows in torch.arange(len(samples)).split(batch_size):
        batch = samples.take(rows)
        images = (batch.images.permute(0, 3, 1, 2).float() / 255).to(device)
        for image, one in enumerate(found(network(images), LOWEST)):
            square = square_of(batch.uvs[image])
            counts, ignored = batch.state[image] == 1, batch.state[image] == 2
            pairs, extra = matched(one, square, counts, ignored)
            hands, hit, wrong = hands + int(counts.sum()), hit + len(pairs), wrong + extra
            for row, hand in pairs:
                same += int(one.is_right[row] == batch.is_right[image, hand])
                off = float(one.angles[row] - square.angles[hand])
                turns.append(abs(math.remainder(off, math.tau)))
    median = math.degrees(float(torch.tensor(turns).median())) if turns else math.nan
    return {
        "found": round(hit / max(1, hands), 4),
        "false_per_image": round(wrong / len(samples), 4),
        "side_right": round(same / max(1, hit), 4),
        "turn_deg": round(median, 2),
    }


def matched(hands: Detections, square: Square, counts: Tensor, ignored: Tensor) -> tuple[list[tuple[int, int]], int]:
    """Pairs (found hand, true hand) at IoU of at least 0.5, by descending score; and the number of false hands.

    Args:
        hands: Found in an image.
        square: True ones.
        counts: Which true ones count.
        ignored: Which may be found or not.
    """
    pairs, taken, wrong = [], set(), 0
    for row in range(len(hands)):
        overlap = _overlaps(hands.centers[row], hands.sides[row], square.centers, square.sides)
        free = [hand for hand in counts.nonzero()[:, 0].tolist() if hand not in taken]
        best = max(free, key=lambda hand: float(overlap[hand]), default=None)
        if best is not None and float(overlap[best]) >= 0.5:
            pairs.append((row, best))
            taken.add(best)
        elif not bool((overlap[ignored] > 0.1).any()):
            wrong += 1
    return pairs, wrong


def _overlaps(center: Tensor, side: Tensor, centers: Tensor, sides: Tensor) -> Tensor:
    """IoU of an axis-aligned square with others."""
    low = torch.maximum(center - side / 2, centers - sides[:, None] / 2)
    high = torch.minimum(center + side / 2, centers + sides[:, None] / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (side**2 + sides**2 - shared)
