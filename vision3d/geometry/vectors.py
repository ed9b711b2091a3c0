"""Vectors of any length including zero: directions, lengths, orthogonal parts."""

import torch
from jaxtyping import Float
from torch import Tensor


def unit(vectors: Float[Tensor, "*batch d"], fallback: Float[Tensor, "*#batch d"] | None = None) -> Float[Tensor, "*batch d"]:
    """Normalized vectors; accurate for lengths from 1e-37 to 1e37 in float32.

    Args:
        vectors: Any length.
        fallback: Result for a zero vector, with zero gradient; zero when None.
    """
    scale = vectors.detach().abs().amax(-1, keepdim=True)  # the result is independent of it, so it is a constant for autograd
    is_zero = scale < _least(scale)
    scaled = vectors / torch.where(is_zero, 1, scale)
    safe = torch.where(is_zero, 1, scaled)
    units = safe / torch.linalg.vector_norm(safe, dim=-1, keepdim=True)
    return torch.where(is_zero, torch.zeros_like(units) if fallback is None else fallback, units)


def axis_vector(like: Float[Tensor, "*_"], axis: int, size: int) -> Float[Tensor, " size"]:
    """The unit vector along a coordinate axis, made on the device of `like` without a copy from the CPU."""
    return torch.nn.functional.pad(like.new_ones(1), (axis, size - 1 - axis))


def length(vectors: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """Lengths from 1e-37 to 1e37 in float32, with zero gradient (of every order) where the vector is zero."""
    scale = vectors.detach().abs().amax(-1, keepdim=True)
    is_zero = scale < _least(scale)
    safe = torch.where(is_zero, 1, vectors / torch.where(is_zero, 1, scale))
    return torch.where(is_zero, 0, torch.linalg.vector_norm(safe, dim=-1, keepdim=True) * scale).squeeze(-1)


def nan_for_nan(
    result: Float[Tensor, "*batch_and_out"], source: Float[Tensor, "*batch_and_in"], axes_in: int, axes_out: int
) -> Float[Tensor, "*batch_and_out"]:
    """A copy of `result` that is NaN, with NaN gradient, in each row whose `source` contains a non-finite number.

    Args:
        result: Computed from the rows of `source`, with `axes_out` axes after the batch axes.
        source: With `axes_in` axes after the batch axes.
    """
    rows = source.flatten(-axes_in) if axes_in > 1 else source
    is_finite = rows.isfinite().all(-1, keepdim=True)
    # The product propagates NaN to the gradient, which `where` alone would leave zero.
    bad = (rows * torch.where(is_finite, 0, torch.nan)).sum(-1, keepdim=True)
    shape = (..., *[None] * (axes_out - 1)) if axes_out else (..., 0)
    return torch.where(is_finite[shape], result, bad[shape])


def any_orthogonal(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """A unit vector orthogonal to each vector, from the coordinate axis least aligned with it; without gradient."""
    vectors = vectors.detach()
    x, y, z = vectors.abs().unbind(-1)
    is_first = (x <= y) & (x <= z)
    is_second = ~is_first & (y <= z)
    axis = torch.stack([is_first, is_second, ~(is_first | is_second)], -1).to(vectors.dtype)
    return unit(torch.linalg.cross(vectors, axis), fallback=axis.roll(1, -1))


def orthogonal_part(vectors: Float[Tensor, "*#batch 3"], units: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch 3"]:
    """Unit vectors along the part of `vectors` orthogonal to `units`; `any_orthogonal(units)` if it is zero."""
    part = unit(vectors)
    tolerance = 8 * torch.finfo(part.dtype).eps
    part = part - (part * units).sum(-1, keepdim=True) * units
    is_parallel = torch.linalg.vector_norm(part.detach(), dim=-1, keepdim=True) < tolerance
    part = unit(torch.where(is_parallel, any_orthogonal(units.expand_as(part)), part))
    return unit(part - (part * units).sum(-1, keepdim=True) * units)  # twice is enough


def _least(numbers: Tensor) -> float:
    return 4 * torch.finfo(numbers.dtype).tiny  # the inverse of what is smaller may be infinite
