"""Structural similarity in plain torch: the reference of the tests and the fallback of the native operation."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Padding = Literal["valid", "same"]


class SsimMaps(NamedTuple):
    """SSIM of every window, and its contrast-structure factor (used by MS-SSIM at all but the coarsest scale)."""

    ssim: Float[Tensor, "b h w c"]
    contrast: Float[Tensor, "b h w c"]


def gaussian_window(window: int, sigma: float) -> Float[Tensor, " window"]:
    """Weights of a Gaussian at `window` (odd) integer offsets around 0, with sum 1, in float64."""
    offsets = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def ssim_maps(
    a: Float[Tensor, "b h w c"],
    b: Float[Tensor, "b h w c"],
    *,
    window: int = 11,
    sigma: float = 1.5,
    padding: Padding = "valid",
    data_range: float = 1.0,
) -> SsimMaps:
    """SSIM of every window (Wang et al. 2004, eq. 13), C1 = (0.01 data_range)^2, C2 = (0.03 data_range)^2."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    weights = gaussian_window(window, sigma).to(a)
    channels = a.shape[-1]
    stacked = torch.cat([x.movedim(-1, 1) for x in (a, b, a * a, b * b, a * b)], 1)
    margin, groups = window // 2 if padding == "same" else 0, 5 * channels
    column, row = (weights.view(shape).expand(groups, *shape[1:]) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))
    means = torch.nn.functional.conv2d(stacked, column, padding=(margin, 0), groups=groups)
    means = torch.nn.functional.conv2d(means, row, padding=(0, margin), groups=groups).movedim(1, -1)
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = means.split(channels, -1)
    contrast = (2 * (mean_ab - mean_a * mean_b) + c2) / ((mean_aa - mean_a**2) + (mean_bb - mean_b**2) + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return SsimMaps(luminance * contrast, contrast)
