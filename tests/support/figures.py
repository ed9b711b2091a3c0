"""A walking figure with two arms and two legs, with its joints."""

from dataclasses import replace

import torch
from torch import Tensor

from tests.support.clips import Clip, worm
from vision3d.geometry import shapes
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.rotation import so3_exp, so3_log
from vision3d.scene import Cameras, Mesh, SkinnedMesh
from vision3d.stages.animate.dynamic.joints import JointField, JointTree

PARTS = (  # size, position of the top, divisions: body, legs, arms
    ((0.5, 0.9, 0.3), (0.0, 0.9, 0.0), 4),
    ((0.16, 0.8, 0.16), (0.16, 0.0, 0.0), 4),
    ((0.16, 0.8, 0.16), (-0.16, 0.0, 0.0), 4),
    ((0.12, 0.65, 0.12), (0.33, 0.85, 0.0), 3),
    ((0.12, 0.65, 0.12), (-0.33, 0.85, 0.0), 3),
)


def figure() -> SkinnedMesh:
    """Boxes with one joint each: a body, then two legs and two arms attached to it. Left and right look alike."""
    vertices, faces, colors, owners, count = [], [], [], [], 0
    for joint, (size, top, divisions) in enumerate(PARTS):
        points, corners = shapes.box(size, divisions=divisions)
        moved = points + torch.tensor(top) - torch.tensor([0.0, size[1] / 2, 0.0])
        waves = 0.5 + 0.4 * torch.sin(torch.stack([9 * moved[:, 1], 6 * moved[:, 1] + joint // 2, 5 * moved[:, 2]], -1))
        vertices.append(moved)
        faces.append(corners + count)
        colors.append(waves)
        owners.append(torch.full((len(points), 1), joint))
        count += len(points)
    mesh = Mesh(torch.cat(vertices), torch.cat(faces), vertex_colors=torch.cat(colors))
    pivots = torch.tensor([[0.0, 0.45, 0.0], *(top for _, top, _ in PARTS[1:])])
    shifts = pivots.clone()
    shifts[1:] -= pivots[0]
    binds = torch.eye(4).repeat(5, 1, 1)
    binds[:, :3, 3] = -pivots
    still = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(5, 1), torch.ones(5, 3)
    return SkinnedMesh(
        mesh, ("body", "leg_l", "leg_r", "arm_l", "arm_r"), (-1, 0, 0, 0, 0), shifts, *still, binds, torch.cat(owners),
        torch.ones(count, 1),
    )  # fmt: skip


def walking_figure(frames: int = 7, size: int = 32, most: float = 0.8) -> tuple[JointField, Clip]:
    """Half a stride in which the legs pass each other twice, the arms swing in opposition and the body twists with the arms.

    Returns:
        Joints with their true values, and the clip, from four cameras.
    """
    tree, times = JointTree.of(figure()), torch.arange(frames, dtype=torch.float64) / 24
    joints = JointField(tree, times, -1.0, 1.0)
    joints.values.requires_grad_(False)
    phases = most * torch.sin(torch.pi * torch.linspace(0.1, 0.9, frames))
    for row, swing in enumerate(phases.tolist(), 1):
        body = so3_exp(torch.tensor([0.0, -0.3 * swing, 0.0]))
        joints.values[row, 0] = so3_log(body)
        for joint, sign in ((1, 1.0), (2, -1.0), (3, -1.0), (4, 1.0)):
            joints.values[row, joint] = so3_log(body.mT @ so3_exp(torch.tensor([sign * swing, 0.0, 0.0])))
    eyes = [(0.9, 0.6, 3.4), (3.4, 0.6, -0.9), (-0.9, 0.6, -3.4), (-3.4, 0.6, 0.9)]
    center = torch.tensor([0.0, 0.1, 0.0])
    poses = torch.stack([look_at(center + torch.tensor(eye), center, torch.tensor([0.0, 1.0, 0.0])) for eye in eyes])
    K = intrinsics(1.5 * size, 1.5 * size, size / 2, size / 2)
    cameras = Cameras.from_camtoworlds(poses, K, size, size, names=[f"cam{i}" for i in range(4)])
    vertices = posed(joints, joints.values[1:])
    return joints, replace(worm(), mesh=tree.skin.mesh, vertices=vertices, times=times, cameras=cameras)


def posed(joints: JointField, values: Tensor) -> Tensor:
    """Vertices in these poses."""
    return joints.tree.pose(joints.tree.skin.mesh.vertices, *joints.split(values))
