"""Images as TripoSR expects them: the object on gray, with some margin."""

import logging
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.io.images import read_image

logger = logging.getLogger(__name__)

_GRAY = 0.5
_VISIBLE = 0.5 / 255


def object_image(path: Path | str, size: int, fill: float = 0.85) -> Float[Tensor, "s s 3"]:
    """The object of an image on gray, in the middle of a square.

    Args:
        path: An image; with transparency, what is opaque is the object, else all of it.
        size: Side of the result [px].
        fill: Fraction of the side that the longer side of the object takes.

    Raises:
        MissingFileError, FileFormatError: The image cannot be read.
        InputError: It is transparent everywhere.
    """
    image = read_image(path)
    if image.shape[2] == 4 and bool((image[..., 3] < 1).any()):
        seen = image[..., 3] > _VISIBLE
        if not bool(seen.any()):
            raise InputError(f"{path}: is transparent everywhere, want an object")
        rows, columns = (seen.any(axis).nonzero()[:, 0] for axis in (1, 0))
        image = image[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
        side = round(max(image.shape[:2]) / fill)
        image = _GRAY + (image[..., :3] - _GRAY) * image[..., 3:]
    else:
        logger.warning(
            "%s: has no transparency and is used as it is; want a cut-out object, or one on gray that fills %d %% of it",
            path, round(100 * fill),
        )  # fmt: skip
        image, side = image[..., :3], max(image.shape[:2])
    height, width = image.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    square = torch.full((side, side, 3), _GRAY)
    square[top : top + height, left : left + width] = image
    resized = torch.nn.functional.interpolate(square.permute(2, 0, 1)[None], (size, size), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).clamp(0, 1)
