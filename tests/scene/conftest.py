import math

import pytest
import torch

from vision3d.scene import Cameras, GaussianScene, Mesh, PointCloud


@pytest.fixture
def cameras():
    """Three different cameras around the origin."""
    angles = torch.tensor([0.1, 1.3, 2.9])
    camtoworlds = torch.eye(4).repeat(3, 1, 1)
    camtoworlds[:, 0, 0] = camtoworlds[:, 2, 2] = angles.cos()
    camtoworlds[:, 0, 2], camtoworlds[:, 2, 0] = angles.sin(), -angles.sin()
    camtoworlds[:, :3, 3] = torch.tensor([[0.0, 1, 2], [3, 4, 5], [6, 7, 8]])
    Ks = torch.tensor([[50.0, 0, 31], [0, 55, 25], [0, 0, 1]])
    return Cameras.from_camtoworlds(camtoworlds, Ks, 64, 48, names=["a.png", "b.png", "c.png"], times=angles)


@pytest.fixture
def gaussians():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    return GaussianScene(draw(40, 3), draw(40, 4), draw(40, 3) - 2, draw(40), draw(40, 16, 3))


@pytest.fixture
def similarity():
    """Scales by 2, rotates by 90 degrees about z, and translates."""
    matrix = torch.eye(4)
    matrix[:3, :3] = 2 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    matrix[:3, 3] = torch.tensor([1.0, -2, math.pi])
    return matrix


@pytest.fixture
def mesh():
    """An open strip of two squares with all attributes of a mesh; colors and texture are representable as bytes."""
    generator = torch.Generator().manual_seed(1)
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0.1], [2, 0, 0], [0, 1, 0], [1, 1, 0.3], [2, 1, 1 / 3]])
    faces = torch.tensor([[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4]])
    normals = torch.nn.functional.normalize(torch.randn(6, 3, generator=generator), dim=-1)
    uvs = torch.rand(6, 2, generator=generator)
    texture = torch.randint(0, 256, (5, 7, 3), generator=generator) / 255
    colors = torch.randint(0, 256, (6, 4), generator=generator) / 255
    return Mesh(vertices, faces, uvs, normals, texture, colors)


@pytest.fixture
def cloud():
    """Points with all attributes; colors are representable as bytes."""
    generator = torch.Generator().manual_seed(2)
    colors = torch.randint(0, 256, (30, 3), generator=generator) / 255
    attributes = {"ring": torch.arange(30) - 4, "time": torch.rand(30, generator=generator)}
    points, normals = torch.randn(2, 30, 3, generator=generator)
    return PointCloud(points, colors, normals, torch.rand(30, generator=generator), attributes)
