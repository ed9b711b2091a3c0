"""A skinned mesh with all features of glTF."""

import torch

from vision3d.geometry import quaternion, shapes
from vision3d.scene import Channel, Clip, Mesh, SkinnedMesh


def creature(influences=4, corner_uvs=False):
    """A sphere with five joints, all kinds of animation, and two morph targets."""
    vertices, faces = shapes.icosphere(2)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    uvs = torch.rand(len(faces), 3, 2, generator=generator) if corner_uvs else None
    weights = draw(len(vertices), influences).abs()
    weights = weights / weights.sum(1, keepdim=True)
    indices = torch.stack([torch.randperm(6, generator=generator)[:influences] for _ in range(len(vertices))])
    binds = torch.eye(4).repeat(6, 1, 1)
    binds[:, :3, 3] = draw(6, 3)
    times, later = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64), torch.tensor([0.125, 0.75], dtype=torch.float64)
    channels = (
        Channel("rotation", 1, times, quaternion.normalize(draw(3, 4))),
        Channel("rotation", 2, later, quaternion.normalize(draw(2, 4)), "STEP"),
        Channel(
            "rotation",
            3,
            times,
            torch.stack([0.1 * draw(3, 4), quaternion.normalize(draw(3, 4)), 0.1 * draw(3, 4)], 1),
            "CUBICSPLINE",
        ),
        Channel("translation", 0, times, draw(3, 3)),
        Channel("translation", 4, times, draw(3, 3, 3), "CUBICSPLINE"),
        Channel("scale", 2, later, 1 + 0.2 * draw(2, 3).abs()),
    )
    pulse = Channel("weights", -1, times, torch.rand(3, 2, generator=generator))
    wave = Channel("weights", -1, later, draw(2, 3, 2), "CUBICSPLINE")
    return SkinnedMesh(
        Mesh(vertices, faces, uvs=uvs),
        ("hip", "spine", "neck", "tail", "left", "right"),
        (-1, 0, 1, 0, 1, -1),
        translations=draw(6, 3),
        quats=quaternion.normalize(draw(6, 4)),
        scales=1 + 0.1 * draw(6, 3).abs(),
        inverse_binds=binds,
        indices=indices,
        weights=weights,
        morphs=0.2 * draw(2, len(vertices), 3),
        morph_names=("smile", "frown"),
        clips=(Clip("walk", (*channels, pulse)), Clip("wave", (wave,))),
    )
