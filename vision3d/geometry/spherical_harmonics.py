"""Real spherical harmonics up to degree 4, in the convention of Gaussian splats: evaluation, rotation, colors.

Functions are ordered l = 0.., m = -l..l and carry the Condon-Shortley sign, so degree 1 is 0.4886 (-y, z, -x)
(Sloan 2013, "Efficient spherical harmonic evaluation"). They are orthonormal on the sphere.
"""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.vectors import axis_vector, unit

MAX_DEGREE = 4
SH0 = 0.5 / math.sqrt(math.pi)
"""Value of the constant function."""


def sh_basis(directions: Float[Tensor, "*batch 3"], degree: int) -> Float[Tensor, "*batch k"]:
    """Values of the (degree + 1)^2 functions in directions of any length > 0 (the north pole for zero).

    Y(l, m) = K(l, m) Q(l, |m|)(z) times Re or Im of (x + i y)^|m|, with Q the Legendre functions without their
    power of sin. No division is needed, so nothing is singular at the poles.

    Example:
        >>> sh_basis(torch.tensor([0.0, 0.0, 2.0]), 1)
        tensor([0.2821, -0.0000, 0.4886, -0.0000])
    """
    check_trailing("directions", directions, 3)
    _check_degree(degree)
    x, y, z = unit(directions, fallback=axis_vector(directions, 2, 3)).unbind(-1)
    values: list[Tensor | None] = [None] * (degree + 1) ** 2
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    sectoral = 1.0
    for m in range(degree + 1):
        below, current = torch.zeros_like(z), torch.full_like(z, sectoral)
        for l in range(m, degree + 1):
            if l > m:
                below, current = current, ((2 * l - 1) * z * current - (l + m - 1) * below) / (l - m)
            scaled = _norm(l, m) * current
            values[l * l + l + m] = scaled * cosine
            if m > 0:
                values[l * l + l - m] = scaled * sine
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
        sectoral *= -(2 * m + 1)
    return torch.stack(values, -1)  # type: ignore[arg-type]


def eval_sh(
    sh: Float[Tensor, "*#batch k c"], directions: Float[Tensor, "*#batch 3"], degree: int | None = None
) -> Float[Tensor, "*#batch c"]:
    """Sums sum_k sh_k Y_k(direction), without the + 0.5 and the clamp that make it a color.

    Args:
        sh: Coefficients; those above `degree` are not used.
        degree: 0 to 4; all coefficients when None.

    Raises:
        ShapeError: There are fewer coefficients than the degree needs, or their count is not a square.
    """
    degree = sh_degree(sh.shape[-2]) if degree is None else degree
    _check_degree(degree)
    count = (degree + 1) ** 2
    if sh.shape[-2] < count:
        raise ShapeError("sh", sh.shape, f"at least {count} coefficients on the next to last axis (degree {degree})")
    return (sh_basis(directions, degree)[..., None] * sh[..., :count, :]).sum(-2)


def sh_degree(num_coefficients: int) -> int:
    """Degree of a set of 1, 4, 9, 16 or 25 coefficients."""
    degree = math.isqrt(max(num_coefficients, 1)) - 1
    if (degree + 1) ** 2 != num_coefficients or degree > MAX_DEGREE:
        raise ShapeError("sh", f"{num_coefficients} coefficients", "1, 4, 9, 16 or 25 (degree 0 to 4)")
    return degree


def sh_rotation(rotmats: Float[Tensor, "*batch 3 3"], degree: int) -> Float[Tensor, "*batch k k"]:
    """Block-diagonal matrices W such that W c are the coefficients of d -> f(R^-1 d) if c are those of f.

    Band l is computed from its values in 2 l + 1 fixed directions: B(D) W = B(R^-1 D), exact up to rounding.
    """
    check_trailing("rotmats", rotmats, 3, 3)
    _check_degree(degree)
    directions, inverses = _probes(degree)
    probes = directions.to(rotmats) @ rotmats
    values = sh_basis(probes, degree)
    count = (degree + 1) ** 2
    matrices = values.new_zeros(*rotmats.shape[:-2], count, count)
    for l, inverse in enumerate(inverses):
        band = slice(l * l, (l + 1) ** 2)
        matrices[..., band, band] = inverse.to(rotmats) @ values[..., band, band]
    return matrices


def rotate_sh(sh: Float[Tensor, "*#batch k c"], rotmats: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*#batch k c"]:
    """Coefficients of the rotated functions, eval_sh(rotate_sh(sh, R), R d) = eval_sh(sh, d), for 1 to 25 of them."""
    degree = sh_degree(sh.shape[-2])
    return sh_rotation(rotmats, degree) @ sh


def rgb_to_sh0(rgb: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Degree-0 coefficients of a view-independent color: (rgb - 0.5) / Y00."""
    return (rgb - 0.5) / SH0


def sh0_to_rgb(sh0: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Colors of degree-0 coefficients: 0.5 + Y00 sh0, not clamped."""
    return sh0 * SH0 + 0.5


def _norm(l: int, m: int) -> float:
    factor = (2 * l + 1) / (4 * math.pi) * math.factorial(l - m) / math.factorial(l + m)
    return math.sqrt(factor * (2 if m else 1))


@functools.cache
def _probes(degree: int) -> tuple[Tensor, list[Tensor]]:
    # Band l uses rows l^2 .. (l + 1)^2: the directions of a Fibonacci lattice that pivoting finds independent.
    index = torch.arange(200, dtype=torch.float64) + 0.5
    z, angle = 1 - index / 100, index * math.pi * (3 - math.sqrt(5))
    radius = (1 - z * z).sqrt()
    lattice = torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)
    values = sh_basis(lattice, degree)
    chosen, inverses = [], []
    for l in range(degree + 1):
        band = values[:, l * l : (l + 1) ** 2]
        left, picks = band.clone(), []
        for _ in range(2 * l + 1):
            picks.append(int(left.square().sum(-1).argmax()))
            axis = left[picks[-1]] / left[picks[-1]].norm()
            left = left - (left @ axis)[:, None] * axis
        chosen.append(lattice[picks])
        inverses.append(torch.linalg.inv(band[picks]))
    return torch.cat(chosen), inverses


def _check_degree(degree: int) -> None:
    if not 0 <= degree <= MAX_DEGREE:
        raise InputError(f"degree: got {degree}, want 0 to {MAX_DEGREE}")
