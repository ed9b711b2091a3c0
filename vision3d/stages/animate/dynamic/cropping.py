"""Crops images to the object, so that `--resolution` is spent on it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene import Cameras

_MARGIN = 0.1  # on each side, relative to the longer side of the object
_WORTH = 0.9  # crops larger than this fraction of the images are not used


@dataclass(frozen=True)
class Crop:
    """A window of the same size in the images of every camera."""

    corners: tuple[tuple[int, int], ...]
    """Left and upper edge in each image [px]."""
    width: int
    height: int

    @classmethod
    def around(cls, alphas: Iterable[Float[Tensor, "h w"]], names: Sequence[str]) -> "Crop | None":
        """The window around all masks of each camera; None if it is nearly as large as the images, or a mask is empty.

        Args:
            alphas: Alpha of images of the same size.
            names: Camera of each image.
        """
        boxes: dict[str, list[int]] = {}
        size = (0, 0)
        for alpha, name in zip(alphas, names):
            rows, columns = (alpha > 0).any(1).nonzero()[:, 0], (alpha > 0).any(0).nonzero()[:, 0]
            if not len(rows) or (size != (0, 0) and size != tuple(alpha.shape)):
                return None
            size = (alpha.shape[0], alpha.shape[1])
            box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
            old = boxes.setdefault(name, box)
            boxes[name] = [*map(min, old[:2], box[:2]), *map(max, old[2:], box[2:])]
        spans = [max(box[i + 2] - box[i] for box in boxes.values()) for i in range(2)]
        margin = 2 * round(_MARGIN * max(spans))
        height, width = size
        wide, high = min(spans[0] + margin, width), min(spans[1] + margin, height)
        if max(wide, high) > _WORTH * max(width, height):
            return None
        corners = {
            name: (
                min(max((box[0] + box[2] - wide) // 2, 0), width - wide),
                min(max((box[1] + box[3] - high) // 2, 0), height - high),
            )
            for name, box in boxes.items()
        }
        return cls(tuple(corners[name] for name in names), wide, high)

    def image(self, index: int, image: Float[Tensor, "h w c"]) -> Float[Tensor, "h2 w2 c"]:
        """The window of an image."""
        left, top = self.corners[index]
        return image[top : top + self.height, left : left + self.width]

    def cameras(self, cameras: Cameras) -> Cameras:
        """Cameras of the windows: the same rays, with shifted principal points."""
        Ks = cameras.Ks.clone()
        Ks[:, :2, 2] -= torch.tensor(self.corners).to(Ks)
        sizes = [torch.full_like(cameras.width, side) for side in (self.width, self.height)]
        return replace(cameras, Ks=Ks, width=sizes[0], height=sizes[1])
