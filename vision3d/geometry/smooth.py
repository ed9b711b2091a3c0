"""Functions of x^2 that are smooth where their formulas divide by zero, with smooth derivatives of any order."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.vectors import length

_TERMS = 10


def sin_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """sin(x) / x as a smooth function of x^2."""
    return _smooth(squares, lambda x: x.sin() / x, _SIN[1])


def cos_of(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """cos(x) as a smooth function of x^2."""
    return _smooth(squares, torch.cos, _SIN[0])


def one_minus_cos_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(1 - cos x) / x^2 as a smooth function of x^2."""
    return _smooth(squares, lambda x: 2 * ((x / 2).sin() / x).square(), _SIN[2])


def x_minus_sin_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(x - sin x) / x^3 as a smooth function of x^2."""
    return _smooth(squares, lambda x: (x - x.sin()) / x**3, _SIN[3])


def cos_remainder_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(cos x - 1 + x^2/2) / x^4 as a smooth function of x^2."""
    return _smooth(squares, lambda x: (0.5 * x.square() - 2 * (x / 2).sin().square()) / x**4, _SIN[4])


def screw_remainder_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(2x - 3 sin x + x cos x) / (2 x^5) as a smooth function of x^2: the last factor in the Jacobian of SE(3)."""
    return _smooth(squares, lambda x: (2 * x - 3 * x.sin() + x * x.cos()) / (2 * x**5), _SCREW)


def one_minus_half_cot_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(1 - (x/2) cot(x/2)) / x^2 as a smooth function of x^2, for |x| < 2 pi; coefficients |B_2k| / (2k)!."""
    return _smooth(squares, lambda x: (1 - 0.5 * x * (x / 2).cos() / (x / 2).sin()) / x.square(), _BERNOULLI)


def sinh_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """sinh(x) / x as a smooth function of x^2 >= 0."""
    return _smooth(squares, lambda x: x.sinh() / x, _SINH[1])


def cosh_of(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """cosh(x) as a smooth function of x^2 >= 0."""
    return _smooth(squares, torch.cosh, _SINH[0])


def atanh_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """atanh(x) / x as a smooth function of 0 <= x^2 < 1."""
    is_small = squares < 0.04
    series = horner(torch.where(is_small, squares, 0), _ATANH)
    root = torch.where(is_small, 0.25, squares).sqrt()
    return torch.where(is_small, series, root.atanh() / root)


def atan_over(y_squares: Float[Tensor, "*batch"], x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """atan2(y, x) / y as a function of y^2 and x, smooth at y = 0 when x > 0; finite where both are zero."""
    is_small = (y_squares < 0.01 * x.square()) & (x > 0)
    safe_x = torch.where(is_small, x, 1)
    ratio = torch.where(is_small, y_squares, 0) / safe_x.square()
    series = horner(ratio, _ATAN) / safe_x
    tiny = torch.finfo(x.dtype).tiny
    y = torch.where(is_small | (y_squares < tiny), tiny, y_squares).sqrt()
    return torch.where(is_small, series, torch.atan2(y, torch.where(is_small, 1, x)) / y)


def atan2(y: Float[Tensor, "*#batch"], x: Float[Tensor, "*#batch"]) -> Float[Tensor, "*#batch"]:
    """torch.atan2 for lengths from 1e-37 to 1e37, with zero gradient if both are zero."""
    y, x = torch.broadcast_tensors(y, x)
    scale = torch.maximum(y.abs(), x.abs()).detach()  # the angle does not depend on it
    is_zero = scale < 4 * torch.finfo(y.dtype).tiny
    scale = torch.where(is_zero, 1, scale)
    return torch.atan2(torch.where(is_zero, 0, y / scale), torch.where(is_zero, 1, x / scale))


def angle_of(sines: Float[Tensor, "*#batch d"], cosines: Float[Tensor, "*#batch e"]) -> Float[Tensor, "*#batch"]:
    """The angle [0 to pi/2] whose sine and cosine are proportional to two lengths: atan2(|sines|, |cosines|)."""
    return atan2(length(sines), length(cosines))


def wrapped(angles: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Angles wrapped to -pi to pi, accurate to the last bits."""
    turns = torch.round(angles / (2 * math.pi)).detach()
    return (angles - turns * 6.28125) - turns * (2 * math.pi - 6.28125)  # the first product is exact


def horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """The polynomial with these coefficients, lowest degree first."""
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _smooth(squares: Tensor, closed_form, coefficients: tuple[float, ...]) -> Tensor:
    # Below x^2 = 1 ten terms are exact in float64 and have no cancellation in value or derivative.
    is_small = squares < 1
    series = horner(torch.where(is_small, squares, 0), coefficients)
    return torch.where(is_small, series, closed_form(torch.where(is_small, 1, squares).sqrt()))


def _bernoulli() -> tuple[float, ...]:
    # |B_2k| / (2k)! = 2 zeta(2k) / (2 pi)^2k; the odd and even terms of zeta(2) = pi^2 / 6 need their closed form.
    zeta = [math.pi**2 / 6, math.pi**4 / 90] + [sum(n**-p for n in range(1, 1000)) for p in range(6, 24, 2)]
    return tuple(2 * z / (2 * math.pi) ** (2 * k) for k, z in enumerate(zeta, 1))


_SIN = [tuple((-1) ** k / math.factorial(2 * k + first) for k in range(_TERMS)) for first in range(5)]
_SINH = [tuple(abs(c) for c in row) for row in _SIN[:2]]
_SCREW = tuple((-1) ** k * (k + 1) / math.factorial(2 * k + 5) for k in range(_TERMS))
_BERNOULLI = _bernoulli()
_ATAN = tuple((-1) ** k / (2 * k + 1) for k in range(_TERMS))
_ATANH = tuple(1 / (2 * k + 1) for k in range(13))
