"""Dual quaternions: rigid motions as eight numbers, (real wxyz, dual wxyz), and their blending; Kavan et al. 2008.

The motion x' = R x + t is the unit dual quaternion r + e d with r the quaternion of R and d = (0, t) r / 2. q and -q are the
same motion.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry import quaternion
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.interpolation import se3_interpolate
from vision3d.geometry.se3 import from_rotation_translation
from vision3d.geometry.vectors import length

Dual = Float[Tensor, "*batch 8"]


def from_quat_translation(
    quats: Float[Tensor, "*#batch 4"], translations: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*#batch 8"]:
    """Unit dual quaternions of a rotation (quaternion of length > 0) followed by a translation."""
    quats = quaternion.normalize(quats)
    dual = quaternion.multiply(_pure(translations), quats) / 2
    return torch.cat([quats.expand_as(dual), dual], -1)


def from_se3(matrices: Float[Tensor, "*batch 4 4"]) -> Dual:
    """Unit dual quaternions of rigid motions, with w >= 0."""
    check_trailing("matrices", matrices, 4, 4)
    return from_quat_translation(quaternion.rotmat_to_quat(matrices[..., :3, :3]), matrices[..., :3, 3])


def to_se3(duals: Dual) -> Float[Tensor, "*batch 4 4"]:
    """Rigid motions of dual quaternions of any length > 0."""
    duals = normalize(duals)
    return from_rotation_translation(quaternion.quat_to_rotmat(duals[..., :4]), translation(duals))


def translation(duals: Dual) -> Float[Tensor, "*batch 3"]:
    """Translations of unit dual quaternions: the vector of 2 d r*."""
    return 2 * quaternion.multiply(duals[..., 4:], quaternion.conjugate(duals[..., :4]))[..., 1:]


def multiply(left: Float[Tensor, "*#batch 8"], right: Float[Tensor, "*#batch 8"]) -> Float[Tensor, "*#batch 8"]:
    """The product; the right motion is applied first. The result is not normalized."""
    check_trailing("left", left, 8)
    check_trailing("right", right, 8)
    real = quaternion.multiply(left[..., :4], right[..., :4])
    dual = quaternion.multiply(left[..., :4], right[..., 4:]) + quaternion.multiply(left[..., 4:], right[..., :4])
    return torch.cat([real, dual], -1)


def quaternion_conjugate(duals: Dual) -> Dual:
    """r* + e d*: the inverse of a unit dual quaternion; it reverses the order of products."""
    check_trailing("duals", duals, 8)
    return torch.cat([quaternion.conjugate(duals[..., :4]), quaternion.conjugate(duals[..., 4:])], -1)


def dual_conjugate(duals: Dual) -> Dual:
    """r - e d: the same rotation, the opposite translation."""
    check_trailing("duals", duals, 8)
    return torch.cat([duals[..., :4], -duals[..., 4:]], -1)


def full_conjugate(duals: Dual) -> Dual:
    """r* - e d*: a point 1 + e x moves as q (1 + e x) full_conjugate(q)."""
    return dual_conjugate(quaternion_conjugate(duals))


def normalize(duals: Dual) -> Dual:
    """Unit dual quaternions: |r| = 1 and r . d = 0, the motion nearest in direction; the identity where r is zero."""
    check_trailing("duals", duals, 8)
    real, dual = duals[..., :4], duals[..., 4:]
    size = length(real)[..., None]
    is_zero = size == 0
    real = quaternion.normalize(real)
    dual = torch.where(is_zero, 0, dual / torch.where(is_zero, 1, size))
    return torch.cat([real, dual - (real * dual).sum(-1, keepdim=True) * real], -1)


def transform_points(duals: Float[Tensor, "*#batch 8"], points: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch 3"]:
    """Apply dual quaternions of any length > 0 to points, one each: R x + t."""
    check_trailing("points", points, 3)
    duals = normalize(duals)
    return quaternion.rotate(duals[..., :4], points) + translation(duals)


def blend(duals: Float[Tensor, "*#batch k 8"], weights: Float[Tensor, "*#batch k"]) -> Float[Tensor, "*#batch 8"]:
    """Dual quaternion linear blending: the normalized weighted sum over k motions; Kavan et al. 2008.

    Of q and -q, the one closer to the motion with the largest weight (the pivot) is used, so the result is independent of
    signs and blends take the shorter path.
    """
    check_trailing("duals", duals, 8)
    weights, real = torch.broadcast_tensors(weights, duals[..., 0])[0], duals[..., :4]
    real = real.expand(*weights.shape, 4)
    pivot = weights.detach().argmax(-1)[..., None, None].expand(*weights.shape[:-1], 1, 4)
    sides = (real * real.gather(-2, pivot)).sum(-1)
    signed = torch.where(sides < 0, -weights, weights)
    return normalize((signed[..., None] * duals).sum(-2))


def sclerp(
    start: Float[Tensor, "*#batch 8"], end: Float[Tensor, "*#batch 8"], fraction: Float[Tensor, "*#batch"] | float
) -> Float[Tensor, "*#batch 8"]:
    """Screw motion of constant speed from `start` (0) to `end` (1) along the shorter path; like `se3_interpolate`."""
    return from_se3(se3_interpolate(to_se3(start), to_se3(end), fraction))


def _pure(vectors: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(vectors[..., :1]), vectors], -1)
