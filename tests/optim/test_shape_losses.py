import math

import pytest
import torch

from vision3d.geometry import shapes
from vision3d.optim.shape_losses import ShapeLosses


def ball():
    return shapes.icosphere(1, dtype=torch.float64)


def test_two_faces_at_an_angle():
    """1 - cos of the angle between their normals; a fold by 60 degrees gives 1/2."""
    angle = math.radians(60)
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, -math.cos(angle), -math.sin(angle)]], dtype=torch.float64)
    losses = ShapeLosses(vertices, torch.tensor([[0, 1, 2], [1, 0, 3]]))
    assert float(losses.normals(vertices)) == pytest.approx(0.5)


def test_smoothness_does_not_depend_on_position_rotation_and_size():
    vertices, faces = ball()
    losses = ShapeLosses(vertices, faces)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)
    torch.testing.assert_close(losses.normals(7 * vertices @ turn.T + 2), losses.normals(vertices))


def test_laplacian_of_shifts():
    """Zero for a common translation; for one vertex moved by d, its own d^2 and that of its neighbors' means."""
    vertices, faces = ball()
    losses = ShapeLosses(vertices, faces)
    assert float(losses.laplacian(vertices + 5)) < 1e-24
    moved = vertices.clone()
    moved[0, 0] += 0.3
    neighbors = (faces[(faces == 0).any(1)]).unique()
    neighbors = neighbors[neighbors != 0]
    degrees = [(faces[(faces == int(n)).any(1)].unique() != int(n)).sum() for n in neighbors]
    d = 0.3 / losses.mean_edge
    want = d**2 * (1 + sum(1 / float(degree) ** 2 for degree in degrees)) / len(vertices)
    assert float(losses.laplacian(moved)) == pytest.approx(want)
    large = ShapeLosses(10 * vertices, faces)  # scale-invariant in units of the edges
    assert float(large.laplacian(10 * moved)) == pytest.approx(want)


def test_gradients():
    vertices, faces = ball()
    losses = ShapeLosses(vertices, faces)
    places = (vertices + 0.05 * torch.randn_like(vertices)).requires_grad_()
    assert torch.autograd.gradcheck(losses.normals, places)
    assert torch.autograd.gradcheck(losses.laplacian, places)


def test_single_faces_and_isolated_vertices_have_zero_loss():
    vertices = torch.rand(4, 3)
    losses = ShapeLosses(vertices, torch.tensor([[0, 1, 2]]))
    assert float(losses.normals(vertices)) == 0
    moved = vertices.clone()
    moved[3] += 1  # not part of a face
    assert float(losses.laplacian(moved)) == 0
    none = ShapeLosses(vertices, torch.zeros(0, 3, dtype=torch.int64))
    assert float(none.normals(vertices)) == float(none.laplacian(vertices + torch.rand(4, 3))) == 0
