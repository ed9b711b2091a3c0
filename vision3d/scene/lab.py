"""CIE L*a*b* of sRGB values (D65), and the CIEDE2000 color difference."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene.colors import linear_to_srgb, srgb_to_linear

_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
"""Linear sRGB to XYZ (IEC 61966-2-1)."""
_EDGE = 6 / 29  # the cube root ends here and a line begins
_SMALL = 1e-12  # keeps the gradients of roots and angles finite at grays


def srgb_to_lab(srgb: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """L* in [0, 100], a* and b* of sRGB values in [0, 1]; the white point is sRGB white."""
    matrix = _matrix(srgb)
    ratios = srgb_to_linear(srgb) @ matrix.T / matrix.sum(1)
    curve = torch.where(ratios > _EDGE**3, ratios.clamp(min=_EDGE**3) ** (1 / 3), ratios / (3 * _EDGE**2) + 4 / 29)
    x, y, z = curve.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def lab_to_srgb(lab: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """sRGB values of L*a*b*; outside [0, 1] where the color is not in the sRGB gamut."""
    matrix = _matrix(lab)
    y = (lab[..., 0] + 16) / 116
    curve = torch.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    ratios = torch.where(curve > _EDGE, curve**3, 3 * _EDGE**2 * (curve - 4 / 29))
    return linear_to_srgb((ratios * matrix.sum(1)) @ torch.linalg.inv(matrix).T)


def delta_e(first: Float[Tensor, "... 3"], second: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """CIEDE2000 difference of L*a*b* colors, with k_L = k_C = k_H = 1 (ISO/CIE 11664-6).

    Differentiable, except between hues that are exactly opposite; the gradient is finite where both colors are equal.
    """
    lightness_1, lightness_2 = first[..., 0], second[..., 0]
    factor = 1 - _high_chroma((_length(first[..., 1], first[..., 2]) + _length(second[..., 1], second[..., 2])) / 2)
    a_1, a_2 = (color[..., 1] * (1 + factor / 2) for color in (first, second))
    chroma_1, chroma_2 = _length(a_1, first[..., 2]), _length(a_2, second[..., 2])
    hue_1, hue_2 = _hue(a_1, first[..., 2]), _hue(a_2, second[..., 2])
    is_gray = (chroma_1 * chroma_2) < 1e-9
    turn = hue_2 - hue_1
    turn = turn - 2 * math.pi * (turn > math.pi) + 2 * math.pi * (turn < -math.pi)
    total = hue_1 + hue_2
    is_apart = (hue_1 - hue_2).abs() > math.pi
    hue = torch.where(is_apart, total / 2 + torch.where(total < 2 * math.pi, math.pi, -math.pi), total / 2)
    turn, hue = torch.where(is_gray, 0, turn), torch.where(is_gray, total, hue)
    lightness, chroma = (lightness_1 + lightness_2) / 2, (chroma_1 + chroma_2) / 2
    weight = 1 - 0.17 * (hue - math.radians(30)).cos() + 0.24 * (2 * hue).cos()
    weight = weight + 0.32 * (3 * hue + math.radians(6)).cos() - 0.20 * (4 * hue - math.radians(63)).cos()
    centered = (lightness - 50).square()
    light = (lightness_2 - lightness_1) / (1 + 0.015 * centered / (20 + centered).sqrt())
    vivid = (chroma_2 - chroma_1) / (1 + 0.045 * chroma)
    tint = 2 * (chroma_1 * chroma_2 + _SMALL).sqrt() * (turn / 2).sin() / (1 + 0.015 * chroma * weight)
    rotation = 60 * torch.exp(-((torch.rad2deg(hue) - 275) / 25).square())
    twist = -2 * _high_chroma(chroma) * torch.deg2rad(rotation).sin()
    return (light.square() + vivid.square() + tint.square() + twist * vivid * tint).clamp(min=_SMALL**2).sqrt()


def _matrix(like: Tensor) -> Tensor:
    return torch.tensor(_TO_XYZ, dtype=like.dtype, device=like.device)


def _length(a: Tensor, b: Tensor) -> Tensor:
    return (a.square() + b.square() + _SMALL**2).sqrt()


def _high_chroma(chroma: Tensor) -> Tensor:
    """sqrt(C^7 / (C^7 + 25^7)), from about 0 for grays to 1."""
    ratio = (chroma / 25).clamp(max=1e4)  # its 7th power is finite in float32
    return 1 / (1 + (ratio + 1e-5) ** -7).sqrt()


def _hue(a: Tensor, b: Tensor) -> Tensor:
    """Angle in [0, 2 pi); 0 for grays."""
    is_gray = (a.abs() + b.abs()) < 1e-9
    angle = torch.atan2(b, torch.where(is_gray, 1, a))
    return angle + 2 * math.pi * (angle < 0)
