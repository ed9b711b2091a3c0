"""Meshes for tests of the mesh rasterizer."""

import torch
from torch import Tensor

from vision3d.geometry import shapes
from vision3d.render.meshes import screen_positions


def camera(width: int, height: int, dtype: torch.dtype = torch.float32, distance: float = 3.0) -> tuple[Tensor, Tensor]:
    """One camera on the z axis, looking at the origin: (1, 4, 4) and (1, 3, 3)."""
    viewmat = torch.eye(4, dtype=dtype)
    viewmat[2, 3] = distance
    focal = 1.1 * max(width, height)
    K = torch.tensor([[focal, 0, width / 2 + 0.3], [0, focal, height / 2 - 0.2], [0, 0, 1]], dtype=dtype)
    return viewmat[None], K[None]


def sphere(width: int, height: int, dtype: torch.dtype = torch.float32, subdivisions: int = 2) -> tuple[Tensor, Tensor]:
    """Clip space positions (1, V, 4) and faces of a sphere in that camera."""
    vertices, faces = shapes.icosphere(subdivisions, dtype=dtype)
    return screen_positions(vertices, *camera(width, height, dtype)), faces


def random_triangles(images: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Random triangles, some partly or completely behind the camera, for images of about 40 x 30 pixels."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(images, count * 3, 3, generator=generator, dtype=torch.float64) * 2 + torch.tensor([0.0, 0.0, 3.0])
    K = torch.tensor([[30.0, 0, 20], [0, 30, 15], [0, 0, 1]], dtype=torch.float64).expand(images, 3, 3)
    positions = screen_positions(vertices, torch.eye(4, dtype=torch.float64).expand(images, 4, 4), K)
    return positions.to(dtype), torch.arange(count * 3).view(count, 3)


def grid(columns: int, rows: int, left: float, top: float, right: float, bottom: float, jitter: float = 0.0, seed: int = 0):
    """Flat grid at depth 1 with corners at these pixels, inner vertices moved by up to `jitter` px: positions, faces."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(top, bottom, rows + 1), torch.linspace(left, right, columns + 1), indexing="ij")
    moved = torch.zeros(rows + 1, columns + 1, 2)
    moved[1:-1, 1:-1] = (torch.rand(rows - 1, columns - 1, 2, generator=generator) * 2 - 1) * jitter
    one = torch.ones_like(x)
    positions = torch.stack([x + moved[..., 0], y + moved[..., 1], one, one], -1).view(1, -1, 4)
    corner = (torch.arange(rows)[:, None] * (columns + 1) + torch.arange(columns)).flatten()
    right_of, below = corner + 1, corner + columns + 1
    faces = torch.cat([torch.stack([corner, right_of, below], -1), torch.stack([right_of, below + 1, below], -1)])
    return positions, faces
