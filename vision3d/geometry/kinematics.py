"""Kinematic chains: positions and rotations of joints from their rotations relative to their parents."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.checks import check_trailing


def forward_kinematics(
    rotmats: Float[Tensor, "*batch j 3 3"],
    offsets: Float[Tensor, "*#batch j 3"],
    parents: Sequence[int],
    translations: Float[Tensor, "*#batch 3"] | None = None,
) -> tuple[Float[Tensor, "*batch j 3 3"], Float[Tensor, "*batch j 3"]]:
    """Rotations and positions of all joints in the frame of the root's parent.

    A joint's frame is its parent's, translated by its offset and then rotated: R_j = R_p rotmats_j, x_j = x_p + R_p offsets_j.

    Args:
        rotmats: Rotation of each joint relative to its parent.
        offsets: Position of each joint in its parent's frame [m]; for a root, its position when `translations` is zero.
        parents: Parent of each joint, an earlier joint; -1 for a root.
        translations: Added to the roots [m].

    Returns:
        Rotations and positions [m].

    Raises:
        InputError: A parent does not come before its joint.

    Example:
        >>> quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        >>> bones = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0]])
        >>> forward_kinematics(quarter.expand(3, 3, 3), bones, [-1, 0, 1])[1]
        tensor([[ 0.,  0.,  0.],
                [ 0.,  1.,  0.],
                [-1.,  1.,  0.]])
    """
    check_trailing("rotmats", rotmats, len(parents), 3, 3)
    check_trailing("offsets", offsets, len(parents), 3)
    levels = _levels(parents)
    batch = torch.broadcast_shapes(rotmats.shape[:-3], offsets.shape[:-2])
    rotmats, offsets = rotmats.expand(*batch, *rotmats.shape[-3:]), offsets.expand(*batch, *offsets.shape[-2:])
    if translations is not None:
        is_root = offsets.new_tensor([float(parent < 0) for parent in parents])
        offsets = offsets + is_root[:, None] * translations[..., None, :]
    # One product for all joints of a depth; `place` is the row of a joint in the results so far.
    order = [joint for level in levels for joint in level]
    place = {joint: i for i, joint in enumerate(order)}
    turned, moved = [rotmats[..., levels[0], :, :]], [offsets[..., levels[0], :]]
    for level in levels[1:]:
        above = [place[parents[joint]] for joint in level]
        parent_rotmats, parent_places = torch.cat(turned, -3)[..., above, :, :], torch.cat(moved, -2)[..., above, :]
        turned.append(parent_rotmats @ rotmats[..., level, :, :])
        moved.append(parent_places + (parent_rotmats @ offsets[..., level, :, None]).squeeze(-1))
    back = [place[joint] for joint in range(len(parents))]
    return torch.cat(turned, -3)[..., back, :, :], torch.cat(moved, -2)[..., back, :]


def _levels(parents: Sequence[int]) -> list[list[int]]:
    """Joints by their depth below a root."""
    depths: list[int] = []
    for joint, parent in enumerate(parents):
        if not -1 <= parent < joint:
            raise InputError(f"parents: joint {joint} has parent {parent}; want an earlier joint, or -1 for a root")
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return [[joint for joint, d in enumerate(depths) if d == depth] for depth in range(max(depths, default=0) + 1)]
