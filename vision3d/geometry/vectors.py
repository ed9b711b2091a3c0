"""Vectors of any length, zero included, and functions that are smooth where their formulas divide by zero."""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor


def unit(vectors: Float[Tensor, "*batch d"], fallback: Float[Tensor, "*#batch d"] | None = None) -> Float[Tensor, "*batch d"]:
    """Vectors divided by their length; right for lengths from 1e-37 to 1e37 in float32.

    Args:
        vectors: Any length.
        fallback: What a zero vector becomes, with zero gradient; zero when None.
    """
    scale = vectors.detach().abs().amax(-1, keepdim=True)  # the result does not depend on it: a constant to autograd
    is_zero = scale == 0
    scaled = vectors / torch.where(is_zero, 1, scale)
    safe = torch.where(is_zero, 1, scaled)
    units = safe / torch.linalg.vector_norm(safe, dim=-1, keepdim=True)
    return torch.where(is_zero, torch.zeros_like(units) if fallback is None else fallback, units)


def any_orthogonal(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """A unit vector orthogonal to each, made from the axis that is least aligned with it; without gradient."""
    vectors = vectors.detach()
    axis = torch.nn.functional.one_hot(vectors.abs().argmin(-1), 3).to(vectors.dtype)
    return unit(torch.linalg.cross(vectors, axis), fallback=axis.roll(1, -1))


def orthogonal_part(vectors: Float[Tensor, "*#batch 3"], units: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch 3"]:
    """Unit vectors along the part of `vectors` orthogonal to `units`; `any_orthogonal(units)` where there is none."""
    part = unit(vectors)
    tolerance = 8 * torch.finfo(part.dtype).eps
    part = part - (part * units).sum(-1, keepdim=True) * units
    is_parallel = torch.linalg.vector_norm(part.detach(), dim=-1, keepdim=True) < tolerance
    part = unit(torch.where(is_parallel, any_orthogonal(units.expand_as(part)), part))
    return unit(part - (part * units).sum(-1, keepdim=True) * units)  # twice is enough


def sin_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """sin(x) / x as a smooth function of x^2."""
    return _smooth(squares, lambda x: x.sin() / x, _alternating(1))


def cos_of(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """cos(x) as a smooth function of x^2."""
    return _smooth(squares, torch.cos, _alternating(0))


def one_minus_cos_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(1 - cos x) / x^2 as a smooth function of x^2."""
    return _smooth(squares, lambda x: 2 * ((x / 2).sin() / x).square(), _alternating(2))


def x_minus_sin_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(x - sin x) / x^3 as a smooth function of x^2."""
    return _smooth(squares, lambda x: (x - x.sin()) / x**3, _alternating(3))


def one_minus_half_cot_over(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(1 - (x/2) cot(x/2)) / x^2 as a smooth function of x^2, for |x| < 2 pi; coefficients |B_2k| / (2k)!."""
    return _smooth(squares, lambda x: (1 - 0.5 * x * (x / 2).cos() / (x / 2).sin()) / x.square(), _bernoulli())


def atan_over(y_squares: Float[Tensor, "*batch"], x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """atan2(y, x) / y as a function of y^2 and x, smooth at y = 0 when x > 0; finite where both are zero."""
    is_small = (y_squares < 0.01 * x.square()) & (x > 0)
    safe_x = torch.where(is_small, x, 1)
    ratio = torch.where(is_small, y_squares, 0) / safe_x.square()
    series = _horner(ratio, tuple((-1) ** k / (2 * k + 1) for k in range(9))) / safe_x
    tiny = torch.finfo(x.dtype).tiny
    y = torch.where(is_small | (y_squares < tiny), tiny, y_squares).sqrt()
    return torch.where(is_small, series, torch.atan2(y, torch.where(is_small, 1, x)) / y)


def _smooth(squares: Tensor, closed_form, coefficients: tuple[float, ...]) -> Tensor:
    # Below x^2 = 1 ten terms are exact in float64 and have no cancellation in value or derivative.
    is_small = squares < 1
    series = _horner(torch.where(is_small, squares, 0), coefficients)
    return torch.where(is_small, series, closed_form(torch.where(is_small, 1, squares).sqrt()))


def _horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


@functools.cache
def _alternating(first: int) -> tuple[float, ...]:
    return tuple((-1) ** k / math.factorial(2 * k + first) for k in range(10))


@functools.cache
def _bernoulli() -> tuple[float, ...]:
    # |B_2k| / (2k)! = 2 zeta(2k) / (2 pi)^2k; the odd and even terms of zeta(2) = pi^2 / 6 need their closed form.
    zeta = [math.pi**2 / 6, math.pi**4 / 90] + [sum(n**-p for n in range(1, 1000)) for p in range(6, 24, 2)]
    return tuple(2 * z / (2 * math.pi) ** (2 * k) for k, z in enumerate(zeta, 1))
