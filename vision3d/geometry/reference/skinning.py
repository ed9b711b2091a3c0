"""Plain torch versions of the native skinning operations: the reference of the tests and the fallback without kernels."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry import dual_quaternion
from vision3d.geometry.reference.quaternion import unit_quat_to_rotmat
from vision3d.geometry.vectors import axis_vector, unit

LINEAR, DUAL, STRETCH = 1, 2, 4
"""Bits of a mode; both branches together are blended."""


def symmetric(stretches: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Matrices of xx, yy, zz, xy, xz, yz."""
    return stretches[..., [0, 3, 4, 3, 1, 5, 4, 5, 2]].unflatten(-1, (3, 3))


def skin_joint(joints: Float[Tensor, "*batch 17"]) -> Float[Tensor, "*batch 32"]:
    """The row of a joint (cuda_ext/include/vision3d/skin.h) from quaternion, translation, center, stretch and blend."""
    quats, translations, centers, stretches, blends = joints.split([4, 3, 3, 6, 1], -1)
    quats = unit(quats, fallback=axis_vector(quats, 0, 4))
    rotmats = unit_quat_to_rotmat(quats)
    linear = rotmats @ symmetric(stretches)
    moved = centers + translations
    shifts = moved - (linear @ centers[..., None]).squeeze(-1)
    duals = dual_quaternion.from_quat_translation(quats, moved - (rotmats @ centers[..., None]).squeeze(-1))
    maps = torch.cat([linear, shifts[..., None]], -1).flatten(-2)
    return torch.cat([duals, maps, stretches, centers, blends, torch.zeros_like(joints[..., :2])], -1)


def skin(
    vertices: Float[Tensor, "v 3"],
    weights: Float[Tensor, "v k"],
    indices: Int64[Tensor, "v k"],
    rows: Float[Tensor, "b j 32"],
    mode: int,
) -> Float[Tensor, "b v 3"]:
    """Vertices in each pose: linear, dual quaternion, or hybrid skinning."""
    found = rows[:, indices]
    sums = (weights[..., None] * found).sum(-2)
    linear = dual = None
    if mode & LINEAR:
        maps = sums[..., 8:20].unflatten(-1, (3, 4))
        linear = (maps[..., :3] @ vertices[..., None]).squeeze(-1) + maps[..., 3]
    if mode & DUAL:
        points = vertices.expand(len(rows), -1, -1)
        if mode & STRETCH:
            centers = sums[..., 26:29]
            points = (symmetric(sums[..., 20:26]) @ (points - centers)[..., None]).squeeze(-1) + centers
        dual = dual_quaternion.transform_points(dual_quaternion.blend(found[..., :8], weights), points)
    if linear is None or dual is None:
        found = dual if linear is None else linear
        assert found is not None
        return found
    return dual + sums[..., 29:30] * (linear - dual)
