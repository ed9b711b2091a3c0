"""How much of the fine detail of a texture an edit keeps."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.scene.lab import srgb_to_lab

_BORDER = 0.5 / 255
"""Distance from 0 and 1 below which a value counts as clipped."""


@dataclass(frozen=True)
class Detail:
    """Detail after an edit, compared with that before."""

    energy: float
    """Gradient energy of L* relative to its mean, over that before; NaN where there was no detail."""
    clipped: float
    """Share of the texels that the edit clipped."""


def detail_kept(
    before: Float[Tensor, "h w 3"], after: Float[Tensor, "h w 3"], used: Bool[Tensor, "h w"] | None = None
) -> Detail:
    """Compare two textures of one layout.

    The energy is the mean of the squared differences of L* between neighboring texels, divided by the squared mean of L*. It is
    taken over pairs of texels that are used and were not clipped by the edit.

    Args:
        before: sRGB in [0, 1].
        after: The same after the edit.
        used: Texels that faces cover; all when None.

    Raises:
        ShapeError: The shapes differ.
    """
    if before.shape != after.shape or before.ndim != 3:
        raise ShapeError("before, after", (tuple(before.shape), tuple(after.shape)), "(H, W, 3), (H, W, 3)")
    used = torch.ones_like(before[..., 0], dtype=torch.bool) if used is None else used
    clipped = _at_border(after) & ~_at_border(before)
    counts = used & ~clipped
    first, last = (_energy(image, counts) for image in (before, after))
    return Detail(last / first if first > 0 else float("nan"), float(clipped[used].float().mean()) if bool(used.any()) else 0.0)


def _at_border(image: Tensor) -> Bool[Tensor, "h w"]:
    return ((image < _BORDER) | (image > 1 - _BORDER)).any(-1)


def _energy(image: Tensor, counts: Tensor) -> float:
    light, total, number = srgb_to_lab(image)[..., 0].double(), 0.0, 0
    for dim in (0, 1):
        last = counts.shape[dim] - 1
        both = counts.narrow(dim, 0, last) & counts.narrow(dim, 1, last)
        total += float(light.diff(dim=dim).square()[both].sum())
        number += int(both.sum())
    return total / number / float(light[counts].mean()) ** 2 if number else 0.0
