"""GL+(n), matrices with positive determinant, and SL(n), those with determinant 1.

The matrix exponential does not reach all of them: diag(-2, -1/2) has no real logarithm. Here `log` and `from_log` use the
polar chart, g = exp(Y) exp(A) with Y symmetric and A skew, which is one to one between Sym(n) x SO(n) and GL+(n); of SL(n),
Y has trace 0. `exp` is the matrix exponential, for one-parameter subgroups.
"""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ConfigError, ShapeError, nearest_names
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.groups import son, spd
from vision3d.geometry.procrustes import special_orthogonal
from vision3d.geometry.spectral import matrix_exp
from vision3d.geometry.vectors import nan_for_nan

LinearGroup = Literal["gl", "sl"]
Matrices = Float[Tensor, "*batch n n"]


def exp(matrices: Matrices) -> Matrices:
    """Matrix exponentials."""
    return matrix_exp(matrices)


def polar(matrices: Matrices) -> tuple[Matrices, Matrices]:
    """P and R of g = P R: P symmetric positive definite, R a rotation. For determinants > 0."""
    rotmats = special_orthogonal(matrices)
    stretch = matrices @ rotmats.mT
    return (stretch + stretch.mT) / 2, rotmats


def log(matrices: Matrices) -> tuple[Matrices, Matrices]:
    """Y and A of g = exp(Y) exp(A): Y symmetric, A skew with angles up to pi. For determinants > 0; see `son.log` for n > 3.

    Example:
        >>> stretch, turn = log(torch.diag(torch.tensor([-2.0, -0.5])))  # 180 degrees
        >>> stretch[0, 0], turn[1, 0]
        (tensor(0.6931), tensor(3.1416))
    """
    stretch, rotmats = polar(matrices)
    return spd.log(stretch), son.log(rotmats)


def from_log(symmetric: Matrices, skew: Matrices) -> Matrices:
    """exp(Y) exp(A); the inverse of `log`."""
    return spd.exp(symmetric) @ son.exp(skew)


def inverse(matrices: Matrices) -> Matrices:
    """Inverses."""
    return nan_for_nan(torch.linalg.inv(matrices), matrices, 2, 2)


def adjoint(matrices: Matrices) -> Float[Tensor, "*batch n2 n2"]:
    """g X g^-1 as a matrix acting on X flattened by rows: the Kronecker product of g and its inverse transpose."""
    n = matrices.shape[-1]
    product = matrices[..., :, None, :, None] * inverse(matrices).mT[..., None, :, None, :]
    return product.reshape(*matrices.shape[:-2], n * n, n * n)


def dimension(n: int, group: LinearGroup = "gl") -> int:
    """n^2, or n^2 - 1 for `sl`."""
    _check(group)
    return n * n - (group == "sl")


def coordinates(matrices: Matrices, group: LinearGroup = "gl") -> Float[Tensor, "*batch d"]:
    """log P + log R of the polar chart in an orthonormal basis of the Lie algebra.

    Basis of `gl`: the upper triangle row by row (E_ii, and (E_ij + E_ji) / sqrt 2), then (E_ji - E_ij) / sqrt 2, i < j. Of
    `sl`: symmetric pairs, skew pairs, then diagonals of trace 0: (E11 - E22) / sqrt 2 first.
    """
    _check(group)
    symmetric, skew = log(matrices)
    basis = _basis(matrices.shape[-1], group, matrices)
    return ((symmetric + skew)[..., None, :, :] * basis).sum((-2, -1))


def from_coordinates(values: Float[Tensor, "*batch d"], n: int, group: LinearGroup = "gl") -> Matrices:
    """The inverse of `coordinates`.

    Raises:
        ShapeError: Not n^2 numbers (n^2 - 1 for `sl`).
    """
    _check(group)
    check_trailing("values", values, dimension(n, group))
    whole = (values[..., None, None] * _basis(n, group, values)).sum(-3)
    return from_log((whole + whole.mT) / 2, (whole - whole.mT) / 2)


def _basis(n: int, group: str, like: Tensor) -> Tensor:
    if n < 2:
        raise ShapeError("matrices", (n, n), "(..., n, n), n >= 2")
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    half = math.sqrt(0.5)
    symmetric = {(i, j): _matrix(n, {(i, j): half, (j, i): half}) for i, j in pairs}
    skew = [_matrix(n, {(j, i): half, (i, j): -half}) for i, j in pairs]
    if group == "gl":
        upper = [_matrix(n, {(i, i): 1.0}) if i == j else symmetric[i, j] for i in range(n) for j in range(i, n)]
        return like.new_tensor(upper + skew)
    traceless = []
    for k in range(1, n):
        size = math.sqrt(k * (k + 1))
        traceless.append(_matrix(n, {(i, i): 1 / size for i in range(k)} | {(k, k): -k / size}))
    return like.new_tensor(list(symmetric.values()) + skew + traceless)


def _matrix(n: int, entries: dict[tuple[int, int], float]) -> list[list[float]]:
    return [[entries.get((i, j), 0.0) for j in range(n)] for i in range(n)]


def _check(group: str) -> None:
    valid = get_args(LinearGroup)
    if group not in valid:
        raise ConfigError("group", f"{group!r} is not a linear group; {nearest_names(group, valid)}")
