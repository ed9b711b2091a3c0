"""Small meshes with joints for tests."""

from dataclasses import replace

import torch

from vision3d.geometry import quaternion, shapes
from vision3d.scene import Channel, Clip, Mesh, SkinnedMesh


def hybrid(frames: int = 3) -> SkinnedMesh:
    """A sphere with a morph target per frame, 10 per second; eta goes from 0 to 1 along x, and down by 0.2 per frame."""
    vertices, faces = shapes.icosphere(1)
    skin = SkinnedMesh.from_frames(Mesh(vertices, faces), vertices + torch.rand(frames, 1, 1), [i / 10 for i in range(frames)])
    etas = (vertices[:, 0] + 1) / 2
    return replace(skin, etas=etas, morph_etas=(-0.2 * torch.arange(frames))[:, None].expand(-1, len(vertices)).contiguous())


def arm(joints: int = 3, *, seed: int = 0) -> SkinnedMesh:
    """A closed tube along y with joints at 0, 1, 2, ... with rotated rest frames, and a clip "wave" of one second."""
    generator = torch.Generator().manual_seed(seed)
    sphere, faces = shapes.icosphere(3)
    vertices = sphere * torch.tensor([0.3, joints / 2, 0.3]) + torch.tensor([0.0, joints / 2, 0.0])
    at = torch.arange(joints, dtype=torch.float32)
    frames = quaternion.normalize(torch.randn(joints, 4, generator=generator))
    rotmats = quaternion.quat_to_rotmat(frames)
    world = torch.eye(4).repeat(joints, 1, 1)
    world[:, :3, :3], world[:, 1, 3] = rotmats, at
    local = [world[0]] + [torch.linalg.inv(world[i - 1]) @ world[i] for i in range(1, joints)]
    shares = torch.softmax(-4 * (vertices[:, 1:2] - 0.5 - at).abs(), -1)
    weights, indices = shares.topk(min(4, joints), -1)
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    channels = []
    for joint in range(1, joints):
        rest = quaternion.rotmat_to_quat(local[joint][:3, :3])
        bent = quaternion.normalize(rest + 0.3 * torch.randn(4, generator=generator))
        channels.append(Channel("rotation", joint, times, torch.stack([rest, bent, rest])))
    return SkinnedMesh(
        Mesh(vertices, faces, vertex_colors=(sphere + 1) / 2),
        tuple(f"joint_{i}" for i in range(joints)),
        tuple(range(-1, joints - 1)),
        translations=torch.stack([matrix[:3, 3] for matrix in local]),
        quats=torch.stack([quaternion.rotmat_to_quat(matrix[:3, :3]) for matrix in local]),
        scales=torch.ones(joints, 3),
        inverse_binds=torch.linalg.inv(world),
        indices=indices,
        weights=weights / weights.sum(1, keepdim=True),
        clips=(Clip("wave", tuple(channels)), Clip("still", (Channel("rotation", 0, times[:1], frames[:1]),))),
    )
