"""Rotations in n dimensions from n^2 - n or n^2 - 2n + 2 unconstrained numbers; Zhou et al. 2019, section 4.2.

Both maps are continuous, and so are their inverses. For n = 3 they are the 6D and the 5D representation.
"""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.vectors import length, nan_for_nan, unit

# A projected unit vector has entries up to sqrt 2 + 1; the last entry of the first one is at most sqrt 2, because columns
# are orthogonal. Divided by that, all numbers of a rotation lie in [-1, 1]; the constants are those of Zhou et al.'s code.
_BOUND, _FIRST_LAST = math.sqrt(2) + 1, math.sqrt(2)


def gram_schmidt(vectors: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch n n"]:
    """Rotation matrices whose first n - 1 columns are the orthonormalized columns of `vectors`.

    If a column is zero or linearly dependent on those before it, the coordinate axis farthest from them replaces it, with zero
    gradient: the result is always a rotation.

    Raises:
        ShapeError: Not n - 1 columns.
    """
    n, m = vectors.shape[-2:]
    if m != n - 1 or n < 2:
        raise ShapeError("vectors", vectors.shape, "(..., n, n - 1)")
    basis: list[Tensor] = []
    for vector in vectors.unbind(-1):
        basis.append(_orthogonal_direction(vector, basis))
    return torch.stack([*basis, generalized_cross(torch.stack(basis, -1))], -1)


def generalized_cross(vectors: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch n"]:
    """The vector of cofactors: orthogonal to n - 1 columns, det [columns, it] = its squared length. For n = 3, a x b.

    Minors are expanded column by column (2^n products), so that the map is a polynomial without divisions.
    """
    n, m = vectors.shape[-2:]
    if m != n - 1 or n < 2:
        raise ShapeError("vectors", vectors.shape, "(..., n, n - 1)")
    minors, earlier = vectors[..., 0], list(itertools.combinations(range(n), 1))
    for size in range(2, n):
        vector, subsets = vectors[..., size - 1], list(itertools.combinations(range(n), size))
        place: dict[tuple[int, ...], int] = {rows: k for k, rows in enumerate(earlier)}
        total = torch.zeros_like(vector[..., :1])
        for k in range(size):
            rows = [subset[k] for subset in subsets]
            rest = [place[subset[:k] + subset[k + 1 :]] for subset in subsets]
            total = total + (-1) ** (k + size - 1) * vector[..., rows] * minors[..., rest]
        minors, earlier = total, subsets
    signs = minors.new_tensor([(-1.0) ** (k + 1 + n) for k in range(n)])
    return signs * minors.flip(-1)


def from_columns(values: Float[Tensor, "*batch d"], n: int) -> Float[Tensor, "*batch n n"]:
    """Rotations from n^2 - n numbers, n - 1 columns one after another: (cos, sin) for n = 2, the 6D layout for n = 3."""
    check_trailing("values", values, n * n - n)
    return gram_schmidt(values.unflatten(-1, (n - 1, n)).mT)


def to_columns(rotmats: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch d"]:
    """The first n - 1 columns; `from_columns` maps them back to the matrices."""
    return nan_for_nan(rotmats.mT[..., :-1, :].flatten(-2), rotmats, 2, 1)


def from_stereographic(values: Float[Tensor, "*batch d"], n: int) -> Float[Tensor, "*batch n n"]:
    """Rotations from n^2 - 2n + 2 numbers: 2 for n = 2, 5 for n = 3, 10 for n = 4.

    Each of the columns 2 to n - 1 and the number before it form a point on a sphere, projected to a plane
    (Zhou et al. 2019, section 4.2, case 4).
    """
    check_trailing("values", values, n * n - 2 * n + 2)
    blocks = values.split([n - 1] * (n - 1) + [1], -1)
    # The number before a column is a fraction `up / down` where `down` may be zero; without a division all values are finite.
    up, down = blocks[-1], torch.ones_like(blocks[-1])
    columns: list[Tensor] = []
    for k in range(n - 2, 0, -1):
        last = _FIRST_LAST if k == 1 else _BOUND
        point = torch.cat([down * blocks[k] * _BOUND, up * last], -1)
        columns.append(unit(point, fallback=_axis(point, n - 1)))
        radius, down = length(point)[..., None], down.abs()
        scale = torch.maximum(radius, down).detach()
        scale = torch.where(scale == 0, 1, scale)
        up, down = (radius / scale).square() - (down / scale).square(), 2 * (radius / scale) * (down / scale)
    columns.append(torch.cat([down * blocks[0], up], -1))
    return gram_schmidt(torch.stack(columns[::-1], -1))


def to_stereographic(rotmats: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch d"]:
    """n^2 - 2n + 2 numbers in [-1, 1]; `from_stereographic` maps them back to the matrices."""
    n = rotmats.shape[-1]
    first = rotmats[..., 0]
    kept, carry = [first[..., :-1]], first[..., -1:]
    for k in range(1, n - 1):
        point = rotmats[..., k] / ((1 + carry.square()).sqrt() - carry) / _BOUND
        carry = point[..., -1:] * (_BOUND / _FIRST_LAST if k == 1 else 1)
        kept.append(point[..., :-1])
    return nan_for_nan(torch.cat([*kept, carry], -1), rotmats, 2, 1)


def orthogonal_from_columns(
    values: Float[Tensor, "*batch d"], sides: Float[Tensor, "*batch"], n: int
) -> Float[Tensor, "*batch n n"]:
    """Orthogonal matrices with reflections: rotations of n^2 - n numbers; the last column has the sign of `sides` (+ at 0).

    O(n) has two disconnected components, so no continuous map reaches both: `sides` gets no gradient.
    """
    rotmats = from_columns(values, n)
    signs = torch.where(sides < 0, -1, torch.where(sides.isnan(), sides, 1))[..., None, None]
    return torch.cat([rotmats[..., :-1], signs * rotmats[..., -1:]], -1)


def similarity_from_columns(
    values: Float[Tensor, "*batch d"], translations: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch n1 n1"]:
    """Matrices [a R, t; 0 1] of x' = a R x + t: R by Gram-Schmidt, a the length of the first column."""
    n = translations.shape[-1]
    if values.shape[-1] != n * n - n:
        raise ShapeError("values", values.shape, f"(..., {n * n - n}) for translations of {n} numbers")
    linear = length(values[..., :n])[..., None, None] * from_columns(values, n)
    top = torch.cat([linear, translations[..., None]], -1)
    bottom = torch.cat([torch.zeros_like(translations), torch.ones_like(translations[..., :1])], -1)
    return torch.cat([top, bottom[..., None, :]], -2)


def similarity_to_columns(
    matrices: Float[Tensor, "*batch n1 n1"],
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch n"]]:
    """Columns (all of length a) and translations; `similarity_from_columns` maps them back to the matrices."""
    if matrices.shape[-1] != matrices.shape[-2] or matrices.shape[-1] < 3:
        raise ShapeError("matrices", matrices.shape, "(..., n + 1, n + 1), n >= 2")
    return to_columns(matrices[..., :-1, :-1]), matrices[..., :-1, -1].clone()


def haar_rotmats(
    n: int,
    *shape: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "*shape n n"]:
    """Rotations in n dimensions uniform over SO(n) (Haar measure): Gram-Schmidt of normally distributed numbers.

    Raises:
        InputError: n < 2.
    """
    if n < 2:
        raise InputError(f"n: got {n}, want at least 2 dimensions")
    return gram_schmidt(torch.randn(*shape, n, n - 1, generator=generator, dtype=dtype, device=device))


def _orthogonal_direction(vector: Tensor, basis: list[Tensor]) -> Tensor:
    if not basis:
        return unit(vector, fallback=_axis(vector, 0))
    part = unit(vector)
    for axis in basis:
        part = part - (part * axis).sum(-1, keepdim=True) * axis
    is_dependent = length(part.detach())[..., None] < 8 * torch.finfo(part.dtype).eps
    part = unit(torch.where(is_dependent, _farthest_axis(basis), part))
    for axis in basis:  # twice is enough
        part = part - (part * axis).sum(-1, keepdim=True) * axis
    return unit(part)


def _farthest_axis(basis: list[Tensor]) -> Tensor:
    frame = torch.stack(basis, -1).detach()
    least = frame.square().sum(-1).argmin(-1, keepdim=True)
    axis = (torch.arange(frame.shape[-2], device=frame.device) == least).to(frame.dtype)
    return axis - (frame @ (frame.mT @ axis[..., None])).squeeze(-1)


def _axis(vectors: Tensor, k: int) -> Tensor:
    return vectors.new_tensor([float(i == k) for i in range(vectors.shape[-1])])
