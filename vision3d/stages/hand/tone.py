"""Colors of skin from the two pigments that decide them."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene.colors import linear_to_srgb

_BASE = (0.80, 0.68, 0.58)
"""Linear reflectance of skin without pigments: red, green, blue."""
_MELANIN = (1.70, 2.40, 4.20)
"""Absorbance at melanin 1: a power law of the wavelength with exponent -3.3 at 610, 550 and 465 nm."""
_HEMOGLOBIN = (0.03, 0.55, 0.36)
"""Absorbance at hemoglobin 1."""


def skin_color(
    melanin: Float[Tensor, "*batch"] | float = 0.12, hemoglobin: Float[Tensor, "*batch"] | float = 0.4
) -> Float[Tensor, "*batch 3"]:
    """Colors of skin, sRGB: base exp(-melanin m - hemoglobin h), the law of Beer and Lambert for each channel.

    Args:
        melanin: From 0.05 (very light) to 1 (very dark).
        hemoglobin: From 0 (pale) to 1 (flushed).

    Example:
        >>> [round(value, 2) for value in skin_color(0.12, 0.4).tolist()]
        [0.82, 0.67, 0.59]
    """
    amounts = torch.broadcast_tensors(torch.as_tensor(melanin), torch.as_tensor(hemoglobin))
    dark, red = (amount[..., None] for amount in amounts)
    base, m, h = (dark.new_tensor(values) for values in (_BASE, _MELANIN, _HEMOGLOBIN))
    return linear_to_srgb(base * torch.exp(-dark * m - red * h))
