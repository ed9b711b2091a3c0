"""Geodesic distances along edges and farthest point sampling, against closed forms and brute force."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import shapes
from vision3d.geometry.geodesics import edge_distances, farthest_points


def test_distances_on_a_strip_are_the_sums_of_its_edges():
    vertices, faces = shapes.plane((7.0, 1.0), 7, 1, torch.float64)
    found = edge_distances(vertices, faces, torch.tensor([0, 2]))
    # Along the side of the strip, from its corner: cells of 1 m.
    along = vertices[:, 1] == vertices[0, 1]
    torch.testing.assert_close(found[0, along], (vertices[along, 0] - vertices[0, 0]).abs())
    assert found.shape == (2, len(vertices)) and found.dtype == torch.float64


def test_distances_obey_the_triangle_rule_and_are_not_below_the_straight_line():
    vertices, faces = shapes.torus(1.0, 0.3, 20, 10, torch.float64)
    every = torch.arange(len(vertices))
    found = edge_distances(vertices, faces, every)
    torch.testing.assert_close(found, found.mT)
    assert bool((found >= (vertices[:, None] - vertices).norm(dim=-1) - 1e-9).all())
    through = (found[:, :, None] + found[None]).amin(1)
    assert bool((found <= through + 1e-9).all())


def test_a_half_circle_on_a_ring_has_its_length():
    vertices, faces = shapes.torus(1.0, 0.2, 64, 8, torch.float64)
    inner = vertices[:, :2].norm(dim=-1).argmin()
    opposite = (vertices - vertices[inner] * torch.tensor([-1.0, -1, 1])).norm(dim=-1).argmin()
    found = float(edge_distances(vertices, faces, inner[None])[0, opposite])
    assert found == pytest.approx(torch.pi * 0.8, rel=1e-3)


def test_disconnected_vertices_are_infinitely_far():
    vertices, faces = shapes.icosphere(1)
    both = torch.cat([faces, faces + len(vertices)])
    found = edge_distances(torch.cat([vertices, vertices + 5]), both, torch.tensor([0]))[0]
    assert bool(found[: len(vertices)].isfinite().all()) and bool(found[len(vertices) :].isinf().all())


def test_missing_sources_are_rejected():
    with pytest.raises(InputError, match=r"sources: got \[3\], but there are 3 vertices"):
        edge_distances(torch.eye(3), torch.tensor([[0, 1, 2]]), torch.tensor([3]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 60))
def test_farthest_points_are_spread(seed, count):
    """Gonzalez: no two points are closer than the farthest other point is from them."""
    points = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = farthest_points(points, count)
    assert len(rows.unique()) == count
    chosen = points[rows]
    gaps = torch.cdist(chosen, chosen).fill_diagonal_(torch.inf)
    assert float(gaps.min()) >= float(torch.cdist(points, chosen).amin(1).max()) - 1e-9
    assert torch.equal(rows, farthest_points(points, count))
    turned = points @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0] * 3 + 1
    assert torch.equal(rows, farthest_points(turned, count))


def test_farthest_points_start_at_the_given_point():
    points = torch.arange(5.0)[:, None]
    assert farthest_points(points, 3, start=0).tolist() == [0, 4, 2]
    with pytest.raises(ShapeError, match="5 points"):
        farthest_points(points, 6)
