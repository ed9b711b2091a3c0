"""The rotation or orthogonal matrix nearest to a matrix, in any number of dimensions."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.geometry.reference.rotation import nearest_rotation as _by_svd, nearest_rotation_vjp
from vision3d.geometry.rotation import nearest_rotation
from vision3d.geometry.spectral import Solved, svd
from vision3d.geometry.vectors import axis_vector, nan_for_nan, unit


def special_orthogonal(matrices: Float[Tensor, "*batch n n"], regularization: float = 0.0) -> Float[Tensor, "*batch n n"]:
    """The rotation (det +1) nearest to each matrix in the Frobenius norm, for n >= 2; Levinson et al. 2020.

    Closed form for n = 2, native kernel for n = 3, singular value decomposition beyond. Gradients of any order are finite:
    where the two smallest singular values cancel (a discontinuity of the rotation), the discontinuous part gets zero gradient.

    Args:
        regularization: Backward passes add the gradient of `regularization * |M - R|^2`, summed over the batch, so that the
            output M of a network stays near the rotations. Forward mode ignores it.
    """
    if regularization:
        rotmats = special_orthogonal(matrices)
        return _WithLoss.solve(rotmats, regularization * (matrices - rotmats).square().sum((-2, -1)))
    n = _size(matrices)
    if n == 3:
        return nearest_rotation(matrices)
    if n > 3:
        return _by_svd(matrices)
    first = torch.stack([matrices[..., 0, 0] + matrices[..., 1, 1], matrices[..., 1, 0] - matrices[..., 0, 1]], -1)
    cosine, sine = unit(first, fallback=axis_vector(first, 0, 2)).unbind(-1)
    return torch.stack([cosine, -sine, sine, cosine], -1).unflatten(-1, (2, 2))


def orthogonal(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """The orthogonal matrix (det with the sign of the matrix) nearest to each: U V^T of its singular value decomposition."""
    _size(matrices)
    return _NearestOrthogonal.solve(matrices)


def singular_values(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n"]:
    """Singular values in descending order, the last one negative if the determinant is: M = U diag(s) V^T, U V^T a rotation.

    The distance of M to the nearest rotation is |s - 1|. If the sum of the last two is near 0, the nearest rotation is
    ill-conditioned. Gradients are finite; second derivatives are finite if all values differ.

    Example:
        >>> singular_values(torch.diag(torch.tensor([3.0, 1.0, -2.0])))
        tensor([ 3.,  2., -1.])
    """
    stretch = special_orthogonal(matrices).mT @ matrices
    stretch = torch.where(stretch.isfinite(), (stretch + stretch.mT) / 2, 0)
    values, _ = torch.linalg.eigh(stretch)  # eigvalsh rounds differently when no gradient is required
    return nan_for_nan(values.flip(-1), matrices, 2, 1)


class _WithLoss(Solved):
    """The rotations; the backward pass also sends gradient 1 to `loss`, as if the caller's loss contained it."""

    @staticmethod
    def forward(rotmats: Tensor, loss: Tensor) -> Tensor:
        return rotmats.clone()

    @staticmethod
    def backward(ctx, v: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return v, torch.ones_like(v[..., 0, 0])

    @staticmethod
    def tangent(first: Tensor, result: Tensor, *tangents: Tensor) -> Tensor:
        return tangents[0]


class _NearestOrthogonal(Solved):
    @staticmethod
    def forward(matrices: Tensor) -> Tensor:
        left, right = svd(matrices)
        return left @ right

    @staticmethod
    def backward(ctx, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        matrices, nearest = ctx.saved_tensors
        return nearest_rotation_vjp(matrices, nearest, v)

    @staticmethod
    def tangent(first: Tensor, result: Tensor, *tangents: Tensor) -> Tensor:
        return nearest_rotation_vjp(first, result, tangents[0])


def _size(matrices: Tensor) -> int:
    if matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2] or matrices.shape[-1] < 2:
        raise ShapeError("matrices", matrices.shape, "(..., n, n), n >= 2")
    return matrices.shape[-1]
