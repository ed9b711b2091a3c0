"""Rotations and parameters that expose problems of representations."""

import math

import torch
from torch import Tensor

from vision3d.geometry.rotation import so3_exp

ANGLES = [
    0.0, *(10.0**k for k in range(-12, 0)), 1.0, 2.0, *(math.pi - 10.0**k for k in range(-1, -13, -1)), math.pi
]  # fmt: skip


def unit_axes(count: int) -> Tensor:
    """Directions (float64), the six along the axes first."""
    axes = torch.nn.functional.normalize(torch.randn(count, 3, dtype=torch.float64), dim=-1)
    axes[:3], axes[3:6] = torch.eye(3), -torch.eye(3)
    return axes


def rotmats_at_all_angles(count: int = 100) -> Tensor:
    """Rotations about `count` axes by each of ANGLES, float64."""
    return so3_exp((torch.tensor(ANGLES, dtype=torch.float64)[:, None, None] * unit_axes(count)).view(-1, 3))


def hostile(count: int, width: int, dtype: torch.dtype) -> Tensor:
    """Rows of parameters: normal, zero, of sizes 1e-30 to 1e30 (per row or per entry), parallel triples, and -1, 0, 1."""
    normal = torch.randn(count, width, dtype=dtype)
    scale = 10.0 ** torch.randint(-30, 31, (count, 1)).to(dtype)
    scales = 10.0 ** torch.randint(-30, 31, (count, width)).to(dtype)
    triple = torch.randn(count, 3, dtype=dtype).repeat(1, 4)[:, :width]
    factors = torch.tensor([1.0, 1, 1, -2, -2, -2, 0.5, 0.5, 0.5, 3], dtype=dtype)[:width]
    signs = torch.randint(-1, 2, (count, width)).to(dtype)
    kinds = [normal, 0 * normal, normal * scale, normal * scales, triple * scale, triple * factors, signs, signs * scales]
    rows = torch.stack(kinds)
    return rows[torch.randint(0, len(kinds), (count,)), torch.arange(count)]
