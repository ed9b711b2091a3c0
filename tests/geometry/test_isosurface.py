import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import mesh
from vision3d.geometry.isosurface import surface_nets


def grid(*sizes, half=1.5):
    axes = [torch.linspace(-half, half, size, dtype=torch.float64) for size in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def test_a_sphere_is_closed_and_has_its_volume():
    places = grid(40, 40, 40)
    vertices, faces = surface_nets(1 - places.square().sum(-1))
    world = vertices * (3 / 39) - 1.5
    assert mesh.is_closed(faces) and mesh.is_manifold(faces)
    assert float(mesh.volume(world, faces)) == pytest.approx(4 / 3 * math.pi, rel=0.01)
    radii = torch.linalg.vector_norm(world, dim=-1)
    assert radii.min() > 0.97 and radii.max() < 1.01


def test_a_plane_is_exact():
    """Linear values have exact zero crossings; for each axis, with outward faces."""
    for axis in range(3):
        places = grid(6, 7, 8)
        vertices, faces = surface_nets(0.3 - places[..., axis])
        want = (0.3 + 1.5) / 3 * (places.shape[axis] - 1)
        torch.testing.assert_close(vertices[:, axis], torch.full((len(vertices),), want, dtype=torch.float64))
        normal = torch.eye(3, dtype=torch.float64)[axis]
        torch.testing.assert_close(mesh.face_normals(vertices, faces), normal.expand(len(faces), 3))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.integers(4, 8)] * 3))
def test_random_solids_are_closed_and_lie_between_their_points(seed, sizes):
    """For any solid, each edge has as many faces in one direction as in the other, and the volume is positive."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.full(sizes, -1.0, dtype=torch.float64)
    inner = tuple(slice(1, size - 1) for size in sizes)
    values[inner] = torch.rand([size - 2 for size in sizes], generator=generator, dtype=torch.float64) - 0.4
    values[sizes[0] // 2, sizes[1] // 2, sizes[2] // 2] = 0.5
    vertices, faces = surface_nets(values)
    directed = torch.stack([faces, faces.roll(-1, 1)], -1).flatten(0, 1)
    keys = directed @ torch.tensor([len(vertices), 1])
    turned = directed.flip(1) @ torch.tensor([len(vertices), 1])
    assert torch.equal(keys.sort().values, turned.sort().values)
    assert float(mesh.volume(vertices, faces)) > 0
    assert (vertices >= 0).all() and (vertices <= torch.tensor(sizes) - 1).all()


@pytest.mark.parametrize("values", [torch.ones(3, 3, 3), -torch.ones(3, 3, 3), torch.full((3, 3, 3), math.nan)])
def test_no_surface(values):
    with pytest.raises(InputError, match="there is no surface otherwise"):
        surface_nets(values)


def test_a_grid_of_one_layer():
    with pytest.raises(ShapeError, match=r"values: got shape \(1, 3, 3\), want \(X, Y, Z\) floats with at least 2 points"):
        surface_nets(torch.ones(1, 3, 3))
