"""Conversion between sRGB values and linear light (IEC 61966-2-1)."""

import torch
from jaxtyping import Float
from torch import Tensor


def srgb_to_linear(srgb: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Linear light of sRGB values >= 0; values above 1 are extrapolated along the curve."""
    curve = ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(srgb <= 0.04045, srgb / 12.92, curve)


def linear_to_srgb(linear: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """sRGB values of linear light >= 0; not clamped above 1."""
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curve)
