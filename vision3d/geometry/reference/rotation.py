"""Plain torch versions of the native rotation operations."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.reference.quaternion import rotmat_to_quat, unit_quat_to_rotmat
from vision3d.geometry.smooth import atan_over, cos_of, sin_over
from vision3d.geometry.spectral import Solved, largest_entry, lyapunov, svd
from vision3d.geometry.vectors import axis_vector, length, orthogonal_part, unit


def gram_schmidt(values: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    first, second = values[..., :3], values[..., 3:]
    x_axis = unit(first, fallback=axis_vector(first, 0, 3))
    y_axis = orthogonal_part(second, x_axis)
    return torch.stack([x_axis, y_axis, torch.linalg.cross(x_axis, y_axis)], -1)


def rotvec_to_quat(rotvecs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    # Multiples of 4 pi are subtracted from long vectors, so that no square overflows.
    is_long = rotvecs.detach().abs().amax(-1, keepdim=True) > 1e3
    long = torch.where(is_long, rotvecs, 1)
    rotvecs = torch.where(is_long, unit(long) * torch.remainder(length(long), 4 * math.pi)[..., None], rotvecs)
    quarters = (rotvecs / 2).square().sum(-1, keepdim=True)
    return torch.cat([cos_of(quarters), sin_over(quarters) * rotvecs / 2], -1)


def quat_to_rotvec(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Of unit quaternions with w >= 0."""
    axis = quats[..., 1:]
    return 2 * atan_over(axis.square().sum(-1, keepdim=True), quats[..., :1]) * axis


def so3_exp(rotvecs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    return unit_quat_to_rotmat(rotvec_to_quat(rotvecs))


def so3_log(rotmats: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    return quat_to_rotvec(rotmat_to_quat(rotmats))


def nearest_rotation(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """U diag(1, .., 1, det U V^T) V^T of the singular value decomposition, for any n."""
    return _NearestRotation.solve(matrices)


def nearest_rotation_vjp(
    matrices: Float[Tensor, "*batch n n"], rotmats: Float[Tensor, "*batch n n"], v_rotmats: Float[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch n n"]:
    # R^T dM - dM^T R = S W + W S with S = R^T M and dR = R W; the map is self-adjoint, so this is also the tangent.
    scale = largest_entry(matrices)
    inner = rotmats.mT @ v_rotmats
    return rotmats @ lyapunov(rotmats.mT @ (matrices / scale), inner - inner.mT) / scale


class _NearestRotation(Solved):
    @staticmethod
    def forward(matrices: Tensor) -> Tensor:
        left, right = svd(matrices)
        sign = torch.linalg.det(left @ right).sign()[..., None, None]
        return left @ torch.cat([right[..., :-1, :], sign * right[..., -1:, :]], -2)

    @staticmethod
    def backward(ctx, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        matrices, rotmats = ctx.saved_tensors
        return nearest_rotation_vjp(matrices, rotmats, v)

    @staticmethod
    def tangent(first: Tensor, result: Tensor, *tangents: Tensor) -> Tensor:
        return nearest_rotation_vjp(first, result, tangents[0])
