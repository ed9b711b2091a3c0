import math

import pytest
import torch

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import shapes
from vision3d.geometry.solids import signed_distances, surface_distances, triangle_distances, winding_numbers
from vision3d.geometry.voxels import connected_parts


def test_winding_numbers_of_closed_meshes_are_integers():
    points = torch.randn(3000, 3)
    for mesh, distance in (
        (shapes.icosphere(4), points.norm(dim=-1) - 1),
        (shapes.torus(1.0, 0.3, 96, 48), ((points[:, :2].norm(dim=-1) - 1).square() + points[:, 2].square()).sqrt() - 0.3),
    ):
        away = distance.abs() > 0.05
        numbers = winding_numbers(*mesh, points)
        assert (numbers - (distance < 0).float())[away].abs().max() < 0.05


def test_winding_numbers_add_up():
    """Two nested shells: 2 within both; with inverted faces: -1."""
    outer, faces = shapes.icosphere(2)
    points = torch.tensor([[0.0, 0, 0], [0.75, 0, 0], [1.5, 0, 0]])
    both = torch.cat([outer, 0.5 * outer]), torch.cat([faces, faces + len(outer)])
    torch.testing.assert_close(winding_numbers(*both, points), torch.tensor([2.0, 1.0, 0.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(winding_numbers(outer, faces.flip(1), points[:1]), torch.tensor([-1.0]), atol=0.02, rtol=0)


def test_a_hole_leaves_the_inside_inside():
    """Without a cap of half angle 30 degrees, the winding number at the center is 1 - (1 - cos 30)/2."""
    vertices, faces = shapes.icosphere(4)
    kept = vertices[faces].mean(1)[:, 2] < math.cos(math.radians(30))
    number = float(winding_numbers(vertices, faces[kept], torch.zeros(1, 3)))
    assert number == pytest.approx(1 - (1 - math.cos(math.radians(30))) / 2, abs=0.01)


def test_signed_distances_of_a_box_in_closed_form():
    points = 2 * torch.randn(4000, 3)
    half = torch.tensor([0.5, 1.0, 1.5])
    beyond = points.abs() - half
    want = beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)
    torch.testing.assert_close(signed_distances(*shapes.box((1.0, 2.0, 3.0)), points), want, atol=1e-5, rtol=1e-5)


def test_distances_from_one_triangle():
    """Against the nearest of many points on it; above, next to edges and corners, and for a degenerate triangle."""
    corners = torch.randn(200, 3, 3).double()
    corners[-1, 2] = corners[-1, 1]
    points = 2 * torch.randn(200, 3).double()
    u, v = torch.meshgrid(*[torch.linspace(0, 1, 201).double()] * 2, indexing="ij")
    inside = u + v <= 1
    u, v = u[inside][:, None, None], v[inside][:, None, None]
    a, b, c = corners.unbind(1)
    dense = (a + u * (b - a) + v * (c - a) - points).norm(dim=-1).amin(0)
    found = triangle_distances(corners, points)
    assert (found <= dense + 1e-12).all() and (dense - found).max() < 0.01
    assert torch.equal(surface_distances(corners[0], torch.tensor([[0, 1, 2]]), points[:1]), found[:1])


def test_far_points_get_the_distance_of_a_sample():
    mesh, points = shapes.icosphere(3), torch.tensor([[0.0, 0, 1.1], [0.0, 0, 5.0]])
    exact = surface_distances(*mesh, points)
    near = surface_distances(*mesh, points, exact_within=0.5)
    assert near[0] == exact[0] and 0 <= near[1] - exact[1] < 0.01


@pytest.mark.wrong_types
def test_invalid_meshes_are_rejected():
    with pytest.raises(ShapeError, match="faces"):
        winding_numbers(torch.zeros(3, 3), torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(InputError, match="but there are 3 vertices"):
        winding_numbers(torch.zeros(3, 3), torch.tensor([[0, 1, 9]]), torch.zeros(1, 3))


def test_connected_parts():
    """Two clouds and a point; the larger is 0. The result does not depend on the order of points."""
    line = torch.arange(40)[:, None] * torch.tensor([[0.9, 0.3, -0.2]])
    points = torch.cat([line[:15] + 100, line, torch.tensor([[0.0, 50, 0]])])
    part = connected_parts(points, 1.0)
    assert part.tolist() == [1] * 15 + [0] * 40 + [2]
    order = torch.randperm(len(points))
    assert torch.equal(connected_parts(points[order], 1.0), part[order])
    assert connected_parts(points[:0], 1.0).shape == (0,)
    with pytest.raises(InputError, match=r"spacing: got 0\.0, want a length > 0"):
        connected_parts(points, 0.0)


def test_connected_parts_against_all_pairs():
    points = 6 * torch.rand(300, 3)
    cells = ((points - points.amin(0)) / 0.7).floor()
    touch = ((cells[:, None] - cells[None]).abs() <= 1).all(-1)
    reach = touch
    for _ in range(9):
        reach = (reach.float() @ reach.float()) > 0
    part = connected_parts(points, 0.7)
    assert torch.equal(part[:, None] == part[None], reach)
    sizes = torch.bincount(part)
    assert (sizes.diff() <= 0).all()
