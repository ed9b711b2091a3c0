"""What the finder shall predict, its losses, and hands from its predictions."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from vision3d.stages.hand.detections import Detections, square_of
from vision3d.stages.hand.finder.network import CELL, FinderOutputs
from vision3d.training.heat import heat_focal

WEIGHTS = {"heat": 1.0, "offset": 1.0, "size": 1.0, "turn": 0.5, "side": 0.3}
"""Weights of the losses."""
_SPREAD = 0.1  # deviation of the heat around a center, relative to the size of the hand
_OVERLAP = 0.4  # of two hands that are the same one
_NEAREST = 0.3  # distance of centers of the same one, relative to their size


@dataclass(frozen=True)
class FinderTargets:
    """What the network shall predict of a batch."""

    heat: Float[Tensor, "n 1 h w"]
    counted: Float[Tensor, "n h w"]
    """0 in cells where a center may be predicted or not."""
    at: tuple[Tensor, Tensor, Tensor]
    """Image, row and column of each center."""
    offset: Float[Tensor, "m 2"]
    size: Float[Tensor, " m"]
    angles: Float[Tensor, " m"]
    is_right: Bool[Tensor, " m"]

    def to(self, device: torch.device) -> "FinderTargets":
        """The same on a device."""
        values = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return FinderTargets(**values, at=(self.at[0].to(device), self.at[1].to(device), self.at[2].to(device)))


def targets_of(
    uvs: Float[Tensor, "n k 21 2"], is_right: Bool[Tensor, "n k"], state: Float[Tensor, "n k"], size: int
) -> FinderTargets:
    """Targets of images of this side [px]; `state` as of `SceneBatch`."""
    cells = size // CELL
    square = square_of(torch.nan_to_num(uvs))
    centers, sides = square.centers / CELL, (square.sides / CELL).clamp(min=0.2)
    middle = torch.arange(cells) + 0.5
    spread = (_SPREAD * sides).clamp(min=0.5)[..., None, None]
    column = centers.floor().long()
    inside = ((column >= 0) & (column < cells)).all(-1)
    # The cell of the center is exactly 1, whatever the offset in it.
    near = (middle[:, None] - column[..., 1, None, None] - 0.5) ** 2 + (middle - column[..., 0, None, None] - 0.5) ** 2
    blobs = torch.exp(-near / (2 * spread**2))
    is_hand, is_ignored = (state == 1) & inside, (state == 2) | ((state == 1) & ~inside)
    heat = torch.where(is_hand[..., None, None], blobs, 0).amax(1)
    reach = (middle[:, None] - centers[..., 1, None, None]) ** 2 + (middle - centers[..., 0, None, None]) ** 2
    skipped = (reach < (0.5 * sides[..., None, None]) ** 2) & is_ignored[..., None, None]
    image, hand = is_hand.nonzero(as_tuple=True)
    place = column[image, hand]
    return FinderTargets(
        heat[:, None], (~skipped.any(1) | (heat == 1)).float(), (image, place[:, 1], place[:, 0]),
        centers[image, hand] - place - 0.5, sides[image, hand].log(), square.angles[image, hand], is_right[image, hand],
    )  # fmt: skip


def losses(outputs: FinderOutputs, targets: FinderTargets) -> dict[str, Tensor]:
    """Each loss without its weight."""
    image, row, column = targets.at

    def at(values: Tensor) -> Tensor:
        return values[image, :, row, column]

    def mean(values: Tensor) -> Tensor:
        return values.sum() / max(1, len(values))

    turn = torch.stack([targets.angles.cos(), targets.angles.sin()], 1)
    side = functional.binary_cross_entropy_with_logits(at(outputs.side)[:, 0], targets.is_right.float(), reduction="none")
    return {
        "heat": heat_focal(outputs.heat.float(), targets.heat, targets.counted),
        "offset": mean((at(outputs.offset) - targets.offset).abs().sum(1)),
        "size": mean((at(outputs.size)[:, 0] - targets.size).abs()),
        "turn": mean((at(outputs.turn) - turn).abs().sum(1)),
        "side": mean(side),
    }


def found(outputs: FinderOutputs, lowest: float = 0.3, most: int = 16) -> list[Detections]:
    """The hands of each image, in its pixels.

    Args:
        outputs: Of a batch.
        lowest: Lowest score.
        most: Number of hands of an image, at most.
    """
    heat = outputs.heat.sigmoid()
    heat = torch.where(functional.max_pool2d(heat, 3, 1, 1) == heat, heat, 0)
    width, results = heat.shape[3], []
    for image, scores in enumerate(heat.flatten(1)):
        best, order = scores.topk(min(most, len(scores)))
        order = order[best >= lowest]
        row, column = order // width, order % width
        values = {name: getattr(outputs, name)[image, :, row, column] for name in ("offset", "size", "turn", "side")}
        centers = (torch.stack([column, row], 1) + 0.5 + values["offset"].T) * CELL
        sides = values["size"][0].clamp(-3, 6).exp() * CELL
        angles = torch.atan2(values["turn"][1], values["turn"][0])
        side = values["side"][0]
        results.append(separate(Detections(centers, sides, angles, side >= 0, scores[order], side.sigmoid())))
    return results


def separate(hands: Detections) -> Detections:
    """Without those that are the same as one with a higher score: squares that overlap much, or share the middle."""
    kept: list[int] = []
    low, high = hands.centers - hands.sides[:, None] / 2, hands.centers + hands.sides[:, None] / 2
    for hand in range(len(hands)):
        is_same = False
        for other in kept:
            shared = (torch.minimum(high[hand], high[other]) - torch.maximum(low[hand], low[other])).clamp(min=0).prod()
            union = hands.sides[hand] ** 2 + hands.sides[other] ** 2 - shared
            apart = math.dist(hands.centers[hand].tolist(), hands.centers[other].tolist())
            is_same |= bool(shared > _OVERLAP * union) or apart < _NEAREST * float(max(hands.sides[hand], hands.sides[other]))
        if not is_same:
            kept.append(hand)
    return hands[torch.tensor(kept, dtype=torch.long)]
