"""Linear maps of the plane in closed form: symmetric and positive definite 2x2 matrices, the polar chart of GL+(2) and SL(2).

A map g with det g > 0 is exp(Y) R in exactly one way, Y symmetric and R a rotation: the chart (Y, angle). Unlike exp of a
general matrix it reaches every g, diag(-2, -1/2) and -1 included. Eigenvectors are never formed, so gradients are finite at
equal eigenvalues, where g is a scaled rotation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.checks import check_trailing

_SQRT2 = math.sqrt(2)


def rotation2(angles: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2 2"]:
    """Rotations that turn x towards y by an angle [rad]."""
    c, s = angles.cos(), angles.sin()
    return torch.stack([c, -s, s, c], -1).unflatten(-1, (2, 2))


def wrap_angle(angles: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Angles brought into [-pi, pi); 0 stays far from the jump."""
    return torch.remainder(angles + math.pi, 2 * math.pi) - math.pi


def sym2_exp(sym: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch 2 2"]:
    """exp of symmetric matrices: e^m (cosh d + (sinh d / d) D), with m the half trace, D = Y - m and d^2 = D^2."""
    check_trailing("sym", sym, 2, 2)
    mean, a, b = _split(sym)
    squares = a.square() + b.square()
    scale = mean.exp()
    return _join(scale * _cosh_of(squares), scale * sinh_over(squares), a, b)


def spd2_log(spd: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch 2 2"]:
    """Logarithm of symmetric positive definite matrices."""
    check_trailing("spd", spd, 2, 2)
    mean, a, b = _split(spd)
    return _log_of(mean, a, b)


def spd2_power(spd: Float[Tensor, "*batch 2 2"], exponent: float) -> Float[Tensor, "*batch 2 2"]:
    """A real power of symmetric positive definite matrices: 0.5 the root, -0.5 the whitening."""
    return sym2_exp(exponent * spd2_log(spd))


def polar2(maps: Float[Tensor, "*batch 2 2"]) -> tuple[Float[Tensor, "*batch 2 2"], Float[Tensor, "*batch"]]:
    """The polar chart (Y, angle) of maps with positive determinant: g = exp(Y) R(angle), angle in (-pi, pi].

    Of other maps the result is not finite.

    Example:
        >>> log_p, angle = polar2(torch.tensor([[0.0, -2.0], [2.0, 0.0]]))  # twice as large and a quarter turn
        >>> log_p[0, 0].exp(), angle
        (tensor(2.), tensor(1.5708))
    """
    check_trailing("maps", maps, 2, 2)
    g00, g01, g10, g11 = maps.flatten(-2).unbind(-1)
    angle = torch.atan2(g10 - g01, g00 + g11)
    c, s = angle.cos(), angle.sin()
    # P = g R^T: half sum and half difference of its entries come from the two parts of g that commute and anticommute with R.
    mean = torch.hypot(g00 + g11, g10 - g01) / 2
    a, b = (g00 - g11) / 2, (g01 + g10) / 2
    a, b = c * a - s * b, s * a + c * b
    return _log_of(mean, a, b), angle


def from_polar2(log_p: Float[Tensor, "*#batch 2 2"], angles: Float[Tensor, "*#batch"]) -> Float[Tensor, "*#batch 2 2"]:
    """The map exp(Y) R(angle)."""
    return sym2_exp(log_p) @ rotation2(angles)


def inverse_from_polar2(log_p: Float[Tensor, "*#batch 2 2"], angles: Float[Tensor, "*#batch"]) -> Float[Tensor, "*#batch 2 2"]:
    """The inverse of exp(Y) R(angle), from the negated coordinates."""
    return rotation2(-angles) @ sym2_exp(-log_p)


def sym2_to_coordinates(sym: Float[Tensor, "*batch 2 2"], *, traceless: bool = False) -> Float[Tensor, "*batch k"]:
    """Coordinates in an orthonormal basis under tr(X^T Y): (Y11, sqrt2 Y12, Y22), or ((Y11 - Y22) / sqrt2, sqrt2 Y12)."""
    check_trailing("sym", sym, 2, 2)
    y11, y12, y22 = sym[..., 0, 0], sym[..., 0, 1], sym[..., 1, 1]
    parts = [(y11 - y22) / _SQRT2, _SQRT2 * y12] if traceless else [y11, _SQRT2 * y12, y22]
    return torch.stack(parts, -1)


def coordinates_to_sym2(coordinates: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch 2 2"]:
    """The symmetric matrix of 3 coordinates, the traceless one of 2."""
    if coordinates.shape[-1] == 2:
        a, b = (coordinates / _SQRT2).unbind(-1)
        entries = [a, b, b, -a]
    else:
        check_trailing("coordinates", coordinates, 3)
        y11, y12, y22 = coordinates.unbind(-1)
        entries = [y11, y12 / _SQRT2, y12 / _SQRT2, y22]
    return torch.stack(entries, -1).unflatten(-1, (2, 2))


def _split(sym: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y11, y12, y22 = sym[..., 0, 0], (sym[..., 0, 1] + sym[..., 1, 0]) / 2, sym[..., 1, 1]
    return (y11 + y22) / 2, (y11 - y22) / 2, y12


def _join(mean: Tensor, factor: Tensor, a: Tensor, b: Tensor) -> Tensor:
    a, b = factor * a, factor * b
    return torch.stack([mean + a, b, b, mean - a], -1).unflatten(-1, (2, 2))


def _log_of(mean: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """log of [[mean + a, b], [b, mean - a]]: log sqrt(det) + (atanh(t) / t) D / mean with t = d / mean."""
    squares = a.square() + b.square()
    ratio = squares / mean.square()
    half_log_det = mean.log() + torch.log1p(-ratio) / 2
    return _join(half_log_det, _atanh_over(ratio) / mean, a, b)


def _cosh_of(squares: Tensor) -> Tensor:
    return _smooth(squares, torch.cosh, [1 / math.factorial(2 * k) for k in range(10)])


def sinh_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """sinh(x) / x as a smooth function of x^2."""
    return _smooth(squares, lambda x: x.sinh() / x, [1 / math.factorial(2 * k + 1) for k in range(10)])


def _atanh_over(squares: Tensor) -> Tensor:
    return _smooth(squares, lambda x: x.atanh() / x, [1 / (2 * k + 1) for k in range(16)], 0.1)


def _smooth(squares: Tensor, closed_form, coefficients: list[float], limit: float = 1.0) -> Tensor:
    """A function of x as a smooth function of x^2: its series below `limit`."""
    is_small = squares < limit
    x = torch.where(is_small, squares, 0)
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return torch.where(is_small, total, closed_form(torch.where(is_small, limit, squares).sqrt()))
