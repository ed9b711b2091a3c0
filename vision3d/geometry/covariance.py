"""Covariances of Gaussians: conversion from and to rotation and scale, and to six numbers."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.native import refuse_tangents
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat

_UPPER = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))


def quat_scale_to_covar(quats: Float[Tensor, "*batch 4"], scales: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Covariances R diag(s)^2 R^T of Gaussians with axes R (wxyz, length > 0) and standard deviations s."""
    check_trailing("quats", quats, 4)
    check_trailing("scales", scales, 3)
    factors = quat_to_rotmat(quats) * scales[..., None, :]
    return factors @ factors.mT


def quat_scale_to_precision(quats: Float[Tensor, "*batch 4"], scales: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Inverse covariances R diag(1/s)^2 R^T."""
    return quat_scale_to_covar(quats, 1 / scales)


def covar_to_quat_scale(
    covars: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 3"]]:
    """Quaternions and scales, ascending, of covariances; negative eigenvalues (rounding) are clamped to zero.

    Only the symmetric part is used. For equal eigenvalues the axes are arbitrary and get no gradient from each other; the
    scales keep their gradients.
    """
    check_trailing("covars", covars, 3, 3)
    refuse_tangents("covar_to_quat_scale", covars)
    values, axes = _SafeEigh.apply((covars + covars.mT) / 2)
    mirror = torch.linalg.det(axes.detach()).sign()[..., None, None]
    axes = torch.cat([axes[..., :1] * mirror, axes[..., 1:]], -1)
    is_zero = values <= torch.finfo(values.dtype).tiny
    return rotmat_to_quat(axes), torch.where(is_zero, 0, torch.where(is_zero, 1, values).sqrt())


def symmetric_to_vec6(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """The upper triangle xx, xy, xz, yy, yz, zz."""
    check_trailing("matrices", matrices, 3, 3)
    return matrices[..., _UPPER[0], _UPPER[1]]


def vec6_to_symmetric(values: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Symmetric matrices of their upper triangles xx, xy, xz, yy, yz, zz."""
    check_trailing("values", values, 6)
    return values[..., (0, 1, 2, 1, 3, 4, 2, 4, 5)].unflatten(-1, (3, 3))


class _SafeEigh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, matrices: Tensor) -> tuple[Tensor, Tensor]:
        is_finite = matrices.isfinite().flatten(-2).all(-1)[..., None]  # eigh fails for the whole batch if one is not
        values, axes = torch.linalg.eigh(torch.where(is_finite[..., None], matrices, 0))
        values, axes = torch.where(is_finite, values, torch.nan), torch.where(is_finite[..., None], axes, torch.nan)
        ctx.save_for_backward(values, axes)
        return values, axes

    @staticmethod
    def backward(ctx, v_values: Tensor, v_axes: Tensor) -> Tensor:
        values, axes = ctx.saved_tensors
        gaps = values[..., None, :] - values[..., :, None]
        is_equal = gaps.abs() <= 8 * torch.finfo(gaps.dtype).eps * values.abs().amax(-1)[..., None, None]
        turn = torch.where(is_equal, 0, axes.mT @ v_axes / torch.where(is_equal, 1, gaps))
        inner = turn + torch.diag_embed(v_values)
        return axes @ ((inner + inner.mT) / 2) @ axes.mT
