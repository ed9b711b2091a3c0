"""A rigged worm and clips of it."""

from dataclasses import replace

import torch
from torch import Tensor

from tests.support.clips import Clip, worm
from vision3d.geometry.quaternion import multiply
from vision3d.geometry.rotation import rotvec_to_quat
from vision3d.scene import SkinnedMesh
from vision3d.scene.clip import Channel, Clip as Keys


def rigged_worm() -> SkinnedMesh:
    """The worm of `clips.worm` with an unused node, a root joint in its middle, and two chains of two joints.

    Parents are scaled and rotated, as in exported files.
    """
    mesh = worm().mesh
    names = ("armature", "root", "left", "left_end", "right", "right_end")
    parents = (-1, 0, 1, 2, 1, 4)
    places = torch.tensor([0.0, 0.0, -0.3, -0.65, 0.3, 0.65])
    quats = torch.zeros(6, 4)
    quats[:, 0] = 1
    quats[0] = rotvec_to_quat(torch.tensor([0.0, 0.0, 0.7]))
    quats[3] = rotvec_to_quat(torch.tensor([0.4, -0.2, 0.1]))
    scales = torch.ones(6, 3)
    scales[0] = 0.01
    # Joints are on the x axis at `places`; translations are in the parents' frames.
    unscaled = torch.tensor([0.0, 0.0, -0.3, -0.35, 0.3, 0.35])
    translations = torch.zeros(6, 3)
    back = rotvec_to_quat(torch.tensor([0.0, 0.0, -0.7]))
    quats[1] = back
    translations[2:, 0] = 100 * unscaled[2:]
    empty = SkinnedMesh(
        mesh, names, parents, translations, quats, scales, torch.eye(4).expand(6, 4, 4),
        torch.zeros(mesh.num_vertices, 1, dtype=torch.int64), torch.ones(mesh.num_vertices, 1),
    )  # fmt: skip
    placed = empty.joint_matrices(None, torch.zeros(1, dtype=torch.float64))[0]
    torch.testing.assert_close(placed[:, 0, 3], places, atol=1e-5, rtol=0)
    joints = torch.tensor([3, 2, 1, 4, 5])
    near = (mesh.vertices[:, :1] - torch.tensor([-0.8, -0.45, 0.0, 0.45, 0.8])).abs()
    weights = (1 - near / 0.4).clamp(min=0) + 1e-9
    weights = weights / weights.sum(1, keepdim=True)
    return replace(
        empty, inverse_binds=torch.linalg.inv(placed.double()).float(), indices=joints.expand(len(weights), 5), weights=weights
    )


def moving_worm(frames: int = 6, cameras: int = 3, size: int = 48, start: float = 0.0) -> tuple[SkinnedMesh, Clip, Tensor]:
    """The rigged worm, a clip in which its ends rotate by up to 0.9 rad and its root moves, and its vertices in all frames.

    Args:
        start: Progress of the motion in the first frame, in [0, 1]; at 0 the worm starts in its rest pose.
    """
    skin, plain = rigged_worm(), worm(frames=frames, cameras=cameras, size=size)
    amounts = torch.linspace(start, 1, frames)[:, None]
    turns = {2: [0.0, 0.3, 0.6], 3: [0.0, 0.2, 0.7], 4: [0.0, 0.5, -0.6], 5: [0.2, 0.0, -0.9]}
    channels = [
        Channel("rotation", joint, plain.times, multiply(skin.quats[joint].expand(frames, 4), rotvec_to_quat(amounts * turn)))
        for joint, turn in ((joint, torch.tensor(turn)) for joint, turn in turns.items())
    ]
    channels.append(Channel("translation", 1, plain.times, amounts * torch.tensor([0.0, 12.0, 8.0])))
    moving = replace(skin, clips=(Keys("wave", tuple(channels)),))
    vertices = moving.posed(moving.clips[0], plain.times)
    return skin, replace(plain, mesh=skin.mesh, vertices=vertices), vertices


def shorten_searches(monkeypatch):
    """Shortens the searches for lost frames to a few steps."""
    from vision3d.stages.animate.dynamic import limb_search, pose_search

    monkeypatch.setattr(pose_search, "_MIN_STEPS", 5)
    for module, name in ((limb_search, "_FINE_STEPS"), (limb_search, "_SAMPLES"), (pose_search, "_EXCHANGED_STEPS")):
        monkeypatch.setattr(module, name, 3)
    monkeypatch.setattr(pose_search, "_SCOUTS", 2)
    monkeypatch.setattr(pose_search, "_SCOUT_ROUNDS", 2)
