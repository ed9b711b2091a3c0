"""The trained finder: whole images to hands, and its file."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from vision3d.core.errors import ShapeError
from vision3d.stages.hand.crop import square_crop, warp
from vision3d.stages.hand.detections import Detections
from vision3d.stages.hand.finder.config import FinderConfig
from vision3d.stages.hand.finder.network import CELL, FinderNet, FinderOutputs
from vision3d.stages.hand.finder.targets import found, separate
from vision3d.stages.hand.network.mobilenet import fold_norms
from vision3d.training.models import ModelFormat, TrainedModel

KIND = "hand_finder"
DEFAULT = "hand_finder"
"""Name of the bundled weights."""
FORMAT = ModelFormat(KIND, FinderConfig, FinderNet)
_SURE = 0.85
_FIRST = 0.8
"""Lowest score in the reduced image over that of the result."""
_AROUND, _MIDDLE = 1.8, 1 / 6
"""Side of a crop around a box over that of the box, and deviation of its hand from the middle in sides of the crop."""


@dataclass(eq=False)
class HandFinder(TrainedModel[FinderNet, FinderConfig]):
    """Finds hands in images of any size; a `Finder`.

    Example:
        finder = load_finder()
        hands = finder.find(read_image_bytes)  # (H, W, 3) uint8
    """

    lowest: float = 0.25
    """Lowest score of a hand."""

    @property
    def knows_sides(self) -> bool:
        """Whether its sides are right for most held-out hands; if not, the network of the crop decides them all."""
        share = self.card.figures.get("side_right")
        return not isinstance(share, float) or share >= _SURE

    @torch.no_grad()
    def find(self, image: UInt8[Tensor, "h w 3"]) -> Detections:
        """The hands of an image, sRGB.

        Each is looked at again in a crop around it, which measures its box more exactly than the reduced image; its score is
        the geometric mean of both.

        Raises:
            ShapeError: The image is not (H, W, 3).
        """
        if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 1:
            raise ShapeError("image", tuple(image.shape), "(H, W, 3)")
        reduced, scale = letterboxed(image, self.config.size)
        device = next(self.network.parameters()).device
        hands = found(self.network(reduced[None].to(device)), _FIRST * self.lowest)[0]
        right = None if hands.right is None else hands.right.cpu()
        first = Detections(
            hands.centers.cpu() / scale, hands.sides.cpu() / scale, hands.angles.cpu(), hands.is_right.cpu(),
            hands.scores.cpu(), right,
        )  # fmt: skip
        return self._seen_again(image, first) if len(first) else first

    def _seen_again(self, image: UInt8[Tensor, "h w 3"], first: Detections) -> Detections:
        """Detections with the boxes, and the geometric mean of the scores, of the likeliest hands in crops around them."""
        outputs, best = self._around(image, first)
        rows, columns = best // outputs.heat.shape[3], best % outputs.heat.shape[3]
        at = torch.arange(len(first), device=best.device)
        cells = torch.stack([columns, rows], 1) + 0.5 + outputs.offset[at, :, rows, columns]
        sides = _AROUND * first.sides
        pixel = sides * CELL / self.config.size
        centers = first.centers + (cells.cpu() * pixel[:, None] - sides[:, None] / 2)
        scores = (first.scores * outputs.heat[at, 0, rows, columns].sigmoid().cpu()).sqrt()
        again = replace(first, centers=centers, sides=outputs.size[at, 0, rows, columns].exp().cpu() * pixel, scores=scores)
        order = scores.argsort(descending=True, stable=True)
        return separate(again[order[scores[order] >= self.lowest]])

    @torch.no_grad()
    def turns(self, image: UInt8[Tensor, "h w 3"], found: Detections) -> Float[Tensor, " n"]:
        """How hands in known boxes are turned: as the likeliest hand in the middle of a crop around each of them.

        Args:
            image: sRGB.
            found: The boxes.

        Raises:
            ShapeError: The image is not (H, W, 3).
        """
        outputs, best = self._around(image, found)
        turn = outputs.turn.flatten(2)[torch.arange(len(found), device=best.device), :, best]
        return torch.atan2(turn[:, 1], turn[:, 0]).cpu()

    def _around(self, image: UInt8[Tensor, "h w 3"], found: Detections) -> tuple[FinderOutputs, Int64[Tensor, " n"]]:
        """The outputs for crops around boxes, and the cell of the likeliest hand near the middle of each."""
        size, Ks = self.config.size, torch.eye(3).expand(len(found), 3, 3)  # not used by pixels of plain squares
        crops = square_crop(found.centers, _AROUND * found.sides, Ks, size)
        device = next(self.network.parameters()).device
        outputs = self.network(warp(image, crops).to(device))
        cells = outputs.heat.shape[2]
        away = (torch.arange(cells, device=device) + 0.5) / cells - 0.5
        near = torch.exp(-(away[:, None] ** 2 + away**2) / (2 * _MIDDLE**2))
        return outputs, (outputs.heat[:, 0].sigmoid() * near).flatten(1).argmax(1)


def letterboxed(image: UInt8[Tensor, "h w 3"], size: int) -> tuple[Float[Tensor, "3 size size"], float]:
    """The image with a longer side of `size` in the upper left of a black square, in [0, 1], and its scale."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = image.permute(2, 0, 1)[None]
    skip = max(1, int(0.25 / scale))  # of each new pixel at least 4x4 old ones count
    pixels = pixels[..., skip // 2 :: skip, skip // 2 :: skip].float() / 255
    small = functional.interpolate(pixels, size=(rows, columns), mode="bilinear", antialias=scale < 1)
    return functional.pad(small[0], (0, size - columns, 0, size - rows)), scale


def save_finder(path: Path | str, model: HandFinder) -> None:
    """Write a finder as .safetensors atomically: numbers as float16."""
    FORMAT.save(path, model)


def load_finder(path: Path | str | None = None, device: torch.device | str = "cpu", *, lowest: float = 0.25) -> HandFinder:
    """Load a finder for inference: its norms are parts of the convolutions.

    Args:
        path: A file, or the name of bundled weights; the bundled finder when None.
        device: Where it shall run.
        lowest: Lowest score of a hand.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, contains something else, or does not match its configuration; differing keys are listed.
    """
    network, config, card = FORMAT.load(DEFAULT if path is None else path)
    fold_norms(network.eval().requires_grad_(False))
    return HandFinder(network.to(device), config, card, lowest)
