"""Depth maps of photos: integers in an image (16-bit PNG or TIFF), or an array (.npy).

Depth is along the camera's z, as in nerfstudio. Integers are millimeters by default (nerfstudio's `depth_unit_scale_factor` of
0.001), floats are meters. Values that are 0, negative or not finite mean that nothing was measured there.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.io.guards import NUMPY_ERRORS, check_pixels
from vision3d.io.images import open_image

MILLIMETER = 1e-3


def read_depth(path: Path | str, unit: float | None = None) -> Float[Tensor, "h w"]:
    """Read a depth map [m]; 0 where nothing was measured.

    Args:
        path: An image of one channel, or a .npy of shape (H, W) or (H, W, 1).
        unit: Meters per unit of the file; None: 0.001 for integers, 1 for floats.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It cannot be read, or is not a map of numbers.
    """
    path = Path(path)
    values = _array(path) if path.suffix.lower() == ".npy" else _image(path)
    if unit is None and values.dtype.itemsize == 1:  # almost always an image to look at
        text = "has 8 bits, want depths of 16 bits; for 8 bits, depth_unit_scale_factor has to be in transforms.json"
        raise FileFormatError(path, text)
    if unit is None:
        unit = 1.0 if values.dtype.kind == "f" else MILLIMETER
    depth = torch.from_numpy(values.astype(np.float32)) * unit
    return torch.where(depth.isfinite() & (depth > 0), depth, 0)


def write_depth(path: Path | str, depth: Float[Tensor, "h w"]) -> None:
    """Write a depth map [m] as .npy of float32, atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, depth.detach().cpu().numpy().astype(np.float32))


def _array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise MissingFileError(path, "a depth map")
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # the size is checked before anything is read
        shape, kind = mapped.shape, mapped.dtype.kind
    except NUMPY_ERRORS as error:
        raise FileFormatError(path, "is not an array of numbers written by numpy.save") from error
    if kind not in "fiu" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 1) or 0 in shape:
        raise FileFormatError(path, f"holds {mapped.dtype} of shape {shape}, want depths of shape (H, W)")
    check_pixels(path, shape[1], shape[0], path.stat().st_size)
    return np.array(mapped).reshape(shape[:2])


def _image(path: Path) -> np.ndarray:
    with open_image(path) as image:
        mode = image.mode
        if mode not in ("L", "I", "F") and not mode.startswith("I;16"):
            raise FileFormatError(path, f"has colors (mode {mode}), want depths: one channel of 16 bits")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return np.array(image)
        except Exception as error:  # PIL's decoders raise arbitrary exceptions on damaged files
            raise FileFormatError(path, f"cannot be decoded ({error})") from error
