import math
from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import mesh, shapes
from vision3d.geometry.rotation import so3_exp

CLOSED = {
    "icosphere": lambda: shapes.icosphere(2),
    "torus": lambda: shapes.torus(1.0, 0.3, 20, 12),
    "box": lambda: shapes.box((1.0, 2.0, 3.0), 3),
    "cylinder": lambda: shapes.cylinder(0.5, 2.0, 16),
}
OPEN = {"plane": lambda: shapes.plane((2.0, 3.0), 4, 5), "tube": lambda: shapes.cylinder(0.5, 2.0, 16, caps=False)}


@pytest.mark.parametrize("name", [*CLOSED, *OPEN])
def test_shapes_are_manifold(name):
    vertices, faces = {**CLOSED, **OPEN}[name]()
    mesh.check_mesh(vertices, faces)
    assert mesh.is_manifold(faces)
    assert mesh.is_closed(faces) == (name in CLOSED)
    assert len(faces.unique()) == len(vertices)
    edges, _ = mesh.unique_edges(faces)
    euler = len(vertices) - len(edges) + len(faces)
    assert euler == {"torus": 0, "plane": 1, "tube": 0}.get(name, 2)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_shapes_point_outwards(name):
    vertices, faces = CLOSED[name]()
    assert mesh.volume(vertices, faces) > 0
    assert mesh.volume(vertices, faces.flip(1)) < 0
    # The area vectors of a closed surface sum to zero.
    total = (mesh.face_areas(vertices, faces)[:, None] * mesh.face_normals(vertices, faces)).sum(0)
    torch.testing.assert_close(total, torch.zeros(3), atol=1e-5, rtol=0)


def test_box_and_plane_are_exact():
    vertices, faces = shapes.box((1.0, 2.0, 3.0), 2, torch.float64)
    assert mesh.volume(vertices, faces).item() == pytest.approx(6)
    assert mesh.face_areas(vertices, faces).sum().item() == pytest.approx(22)
    assert len(faces) == 6 * 2 * 4
    vertices, faces = shapes.plane((2.0, 3.0), 4, 5)
    assert mesh.face_areas(vertices, faces).sum().item() == pytest.approx(6)
    torch.testing.assert_close(mesh.face_normals(vertices, faces), torch.tensor([0.0, 0, 1]).expand(40, 3))


def test_cylinder_is_a_prism():
    n, radius, height = 24, 0.5, 2.0
    vertices, faces = shapes.cylinder(radius, height, n, dtype=torch.float64)
    base = n / 2 * math.sin(2 * math.pi / n) * radius**2
    assert mesh.volume(vertices, faces).item() == pytest.approx(base * height)
    side = 2 * n * radius * math.sin(math.pi / n) * height
    assert mesh.face_areas(vertices, faces).sum().item() == pytest.approx(side + 2 * base)
    open_area = mesh.face_areas(*shapes.cylinder(radius, height, n, caps=False, dtype=torch.float64)).sum()
    assert open_area.item() == pytest.approx(side)


def test_sphere_and_torus_converge_with_second_order():
    def errors(make, volume, area):
        found = [make(step) for step in range(2)]
        return [(1 - mesh.volume(*m).item() / volume, 1 - mesh.face_areas(*m).sum().item() / area) for m in found]

    sphere = errors(lambda step: shapes.icosphere(3 + step, 2.0, torch.float64), 32 / 3 * math.pi, 16 * math.pi)
    ring = errors(
        lambda step: shapes.torus(1.0, 0.3, 60 * 2**step, 30 * 2**step, torch.float64),
        2 * math.pi**2 * 0.09, 4 * math.pi**2 * 0.3,
    )  # fmt: skip
    for coarse, fine in (sphere, ring):
        for before, after in zip(coarse, fine, strict=True):
            assert 0 < before < 0.02
            assert before / after == pytest.approx(4, rel=0.02)


def test_sphere_normals_are_radial():
    errors = []
    for subdivisions in (3, 4):
        vertices, faces = shapes.icosphere(subdivisions, 2.0, torch.float64)
        torch.testing.assert_close(vertices.norm(dim=-1), torch.full((len(vertices),), 2.0, dtype=torch.float64))
        errors.append((mesh.vertex_normals(vertices, faces) - vertices / 2).norm(dim=-1).max())
    assert errors[0] < 0.02
    assert errors[1] < 0.55 * errors[0]


def test_vertex_normals_of_a_batch_are_those_of_each():
    vertices, faces = torch.randn(3, 20, 3), torch.randint(0, 20, (30, 3))
    batch = mesh.vertex_normals(vertices, faces)
    assert all(torch.equal(batch[i], mesh.vertex_normals(vertices[i], faces)) for i in range(3))


def test_vertex_normals_are_weighted_by_area():
    # One corner of a box: a large face in z and a small one in x.
    vertices = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 2, 0], [0, 0, -1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    want = torch.tensor([-1.0, 0, 3]) / 10**0.5
    torch.testing.assert_close(mesh.vertex_normals(vertices, faces)[0], want)
    torch.testing.assert_close(mesh.vertex_normals(vertices, faces)[1], torch.tensor([0.0, 0, 1]))


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_measures_follow_rigid_motions(rotvec):
    vertices, faces = shapes.torus(1.0, 0.3, 8, 5, torch.float64)
    rotmat = so3_exp(torch.tensor(rotvec, dtype=torch.float64))
    moved = vertices @ rotmat.T + torch.tensor([10.0, -20.0, 5.0])
    torch.testing.assert_close(mesh.volume(moved, faces), mesh.volume(vertices, faces))
    torch.testing.assert_close(mesh.face_areas(moved, faces), mesh.face_areas(vertices, faces))
    torch.testing.assert_close(mesh.vertex_normals(moved, faces), mesh.vertex_normals(vertices, faces) @ rotmat.T)


def test_gradients():
    vertices, faces = shapes.icosphere(0, dtype=torch.float64)
    vertices.requires_grad_()
    for function in (mesh.face_normals, mesh.face_areas, mesh.vertex_normals, mesh.volume):
        assert torch.autograd.gradcheck(lambda v, f=function: f(v, faces), vertices)
    flat = torch.zeros(3, 3, requires_grad=True)
    for function in (mesh.face_normals, mesh.face_areas, mesh.vertex_normals):
        value = function(flat, torch.tensor([[0, 1, 2]]))
        assert torch.autograd.grad(value.sum(), flat)[0].isfinite().all()


def test_adjacency_of_two_triangles():
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    edges, face_edges = mesh.unique_edges(faces)
    assert edges.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    assert face_edges.tolist() == [[0, 2, 1], [2, 3, 4]]
    pairs, shared = mesh.face_adjacency(faces)
    assert pairs.tolist() == [[0, 1]]
    assert shared.tolist() == [[1, 2]]
    assert mesh.boundary_edges(faces).tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    offsets, neighbors = mesh.vertex_neighbors(faces, 5)
    assert offsets.tolist() == [0, 2, 5, 8, 10, 10]
    assert neighbors.tolist() == [1, 2, 0, 2, 3, 0, 1, 3, 1, 2]


def test_each_edge_of_a_closed_mesh_joins_two_faces():
    _, faces = shapes.icosphere(1)
    pairs, shared = mesh.face_adjacency(faces)
    assert len(pairs) == 3 * len(faces) // 2
    assert len(mesh.boundary_edges(faces)) == 0
    for (a, b), edge in zip(pairs.tolist(), shared.tolist(), strict=True):
        assert a != b
        assert set(edge) == set(faces[a].tolist()) & set(faces[b].tolist())


def test_nonmanifold_and_open_meshes():
    fin = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])  # three faces on one edge
    assert not mesh.is_manifold(fin)
    bow_tie = torch.tensor([[0, 1, 2], [0, 3, 4]])  # two fans at one vertex
    assert not mesh.is_manifold(bow_tie)
    _, faces = shapes.icosphere(1)
    assert not mesh.is_closed(faces[1:])
    flipped = faces.clone()
    flipped[0] = flipped[0].flip(0)
    assert not mesh.is_closed(flipped)
    assert mesh.is_manifold(flipped)
    empty = torch.zeros(0, 3, dtype=torch.int64)
    assert not mesh.is_closed(empty)
    assert mesh.is_manifold(empty)


@pytest.mark.parametrize("tolerance", [0.0, 1e-4])
def test_welding_joins_a_soup(tolerance):
    vertices, faces = shapes.torus(1.0, 0.3, 16, 8)
    soup = vertices[faces].flatten(0, 1)
    if tolerance:
        soup = soup + tolerance / 10 * torch.rand_like(soup)
    soup_faces = torch.arange(len(soup)).view(-1, 3)
    assert not mesh.is_closed(soup_faces)
    welded, welded_faces, new_idx = mesh.weld_vertices(soup, soup_faces, tolerance)
    assert len(welded) == len(vertices)
    assert mesh.is_closed(welded_faces)
    torch.testing.assert_close(welded[new_idx], soup, atol=tolerance, rtol=0)
    torch.testing.assert_close(mesh.volume(welded, welded_faces), mesh.volume(vertices, faces), atol=1e-3, rtol=0)


def test_welding_keeps_order_and_drops_collapsed_faces():
    vertices = torch.tensor([[5.0, 0, 0], [0, 0, 0], [0.01, 0, 0], [0, 1, 0], [0.015, 0, 0]])
    faces = torch.tensor([[1, 2, 3], [0, 4, 3]])
    welded, welded_faces, new_idx = mesh.weld_vertices(vertices, faces, 0.011)  # 1, 2 and 4 form a chain
    assert welded.tolist() == [[5, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert new_idx.tolist() == [0, 1, 1, 2, 1]
    assert welded_faces.tolist() == [[0, 1, 2]]
    empty = mesh.weld_vertices(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), 0.1)
    assert [len(part) for part in empty] == [0, 0, 0]


def test_many_copies_of_a_vertex_are_welded_cheaply():
    vertices = torch.zeros(20000, 3)  # there are 2e8 pairs
    welded, _, _ = mesh.weld_vertices(vertices, torch.zeros(0, 3, dtype=torch.int64), 0.1)
    assert len(welded) == 1


def test_unused_vertices_are_dropped():
    vertices, faces, is_used = mesh.drop_unused_vertices(torch.arange(15.0).view(5, 3), torch.tensor([[4, 0, 2]]))
    assert vertices[:, 0].tolist() == [0, 6, 12]
    assert faces.tolist() == [[2, 0, 1]]
    assert is_used.tolist() == [True, False, True, False, True]


def test_bad_input_is_named():
    faces = torch.tensor([[0, 1, 2], [0, 1, 7]])
    with pytest.raises(InputError, match=r"faces: face 1 is \[0, 1, 7\], but there are 3 vertices"):
        mesh.check_mesh(torch.zeros(3, 3), faces)
    with pytest.raises(ShapeError, match=r"faces: got shape \(2, 3\) torch.int32, want shape \(F, 3\) torch.int64"):
        mesh.check_mesh(torch.zeros(3, 3), faces.int())
    with pytest.raises(ShapeError, match=r"vertices: got shape \(3, 2\)"):
        unwrap(mesh.weld_vertices)(torch.zeros(3, 2), faces)
    with pytest.raises(InputError, match="segments: got 2, want 3 or more"):
        shapes.cylinder(segments=2)
    with pytest.raises(InputError, match="subdivisions: got -1"):
        shapes.icosphere(-1)
