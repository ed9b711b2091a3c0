"""Intrinsics of photos: their check, and a guess where they are unknown."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.cameras import intrinsics
from vision3d.stages.hand.config import FIELD_OF_VIEW_DEG


def field_of_view_Ks(width: int, height: int, degrees: float = FIELD_OF_VIEW_DEG) -> Float[Tensor, "3 3"]:
    """Intrinsics of a photo with this angle along its longer side, the principal point in its middle.

    Args:
        width: Of the photo [pixels].
        height: Of the photo [pixels].
        degrees: Field of view, between 0 and 180.

    Raises:
        InputError: The photo is empty or the angle is out of range.
    """
    if min(width, height) < 1:
        raise InputError(f"photo: got {width} x {height} pixels, want at least 1 x 1")
    if not 0 < degrees < 180:
        raise InputError(f"field of view: got {degrees:g} degrees, want between 0 and 180")
    focal = max(width, height) / 2 / math.tan(math.radians(degrees) / 2)
    return intrinsics(focal, focal, width / 2, height / 2)


def check_intrinsics(Ks: Float[Tensor, "*batch 3 3"]) -> None:
    """Raise InputError for intrinsics that are not finite, singular, or without a positive focal length."""
    flat = Ks.detach().reshape(-1, 3, 3)
    last = torch.tensor([0.0, 0.0, 1.0]).to(flat)
    is_right = flat.isfinite().flatten(1).all(1) & (flat[:, 0, 0] > 0) & (flat[:, 1, 1] > 0) & (flat[:, 2] == last).all(1)
    # Relative to the focal lengths: a skew that makes the matrix singular.
    is_right &= torch.linalg.det(flat[:, :2, :2]) > 1e-9 * flat[:, 0, 0] * flat[:, 1, 1]
    if not bool(is_right.all()):
        row = int((~is_right).nonzero()[0])
        text = [[round(value, 6) for value in values] for values in flat[row].tolist()]
        raise InputError(
            f"intrinsics: got {text}, which is singular; want [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0 pixels"
        )
