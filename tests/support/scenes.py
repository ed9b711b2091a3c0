"""A small recognizable scene: a striped ring over a checkered floor, z up."""

import math

import torch

from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.scene import Cameras, GaussianScene


def ring_scene(count: int = 1500, sh_degree: int = 1) -> GaussianScene:
    """`count` Gaussians on a ring of radius 1 at height 0.6, and half as many on the floor z = 0."""
    generator = torch.Generator().manual_seed(0)
    u, v = (2 * math.pi * torch.rand(2, count, generator=generator)).unbind()
    ring = torch.stack([(1 + 0.3 * v.cos()) * u.cos(), (1 + 0.3 * v.cos()) * u.sin(), 0.6 + 0.3 * v.sin()], -1)
    stripes = (torch.sin(8 * u + v) > 0)[:, None]
    ring_colors = torch.where(stripes, torch.tensor([0.9, 0.3, 0.1]), torch.tensor([0.95, 0.85, 0.6]))
    floor = torch.nn.functional.pad(4 * torch.rand(count // 2, 2, generator=generator) - 2, (0, 1))
    is_dark = ((floor[:, 0].floor() + floor[:, 1].floor()) % 2 == 0)[:, None]
    floor_colors = torch.where(is_dark, torch.tensor([0.15, 0.25, 0.35]), torch.tensor([0.7, 0.75, 0.8]))
    return GaussianScene.from_points(
        torch.cat([ring, floor]), torch.cat([ring_colors, floor_colors]), sh_degree=sh_degree, opacity=0.8
    )


def ring_cameras(count: int = 6, width: int = 48, height: int = 36) -> Cameras:
    """Cameras around the ring, named like photos of a data set."""
    angle = torch.arange(count) * (2 * math.pi / count)
    eyes = torch.stack([4 * angle.cos(), 4 * angle.sin(), torch.full((count,), 2.0)], -1)
    poses = look_at(eyes, torch.tensor([0.0, 0.0, 0.4]), torch.tensor([0.0, 0.0, 1.0]))
    K = intrinsics(1.1 * height, 1.1 * height, width / 2, height / 2)
    names = [f"images/{i:03d}.png" for i in range(count)]
    return Cameras.from_camtoworlds(poses, K, width, height, names=names)
