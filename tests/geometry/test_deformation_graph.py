"""Deformation graphs: weights, seams, parts, and nodes that do not influence vertices across a gap."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry import shapes
from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.geometry.geodesics import edge_distances, farthest_points
from vision3d.geometry.neighbors import knn
from vision3d.geometry.rotation import so3_exp


def horseshoe(around: int = 20, along: int = 120, radius: float = 0.12, gap: float = 0.06) -> tuple[Tensor, Tensor, Tensor]:
    """A bent tube whose straight legs are `gap` apart: vertices, faces, and the side of each leg vertex (-1, 1; 0 in the
    bend and up to 0.3 from it, where the path around is short)."""
    turn, leg = radius + gap / 2, 1.5
    total = 2 * leg + math.pi * turn
    s = torch.linspace(0, total, along, dtype=torch.float64)
    angle = ((s - leg) / turn).clamp(0, math.pi)
    up = torch.where(s < leg, s - leg, torch.where(s > total - leg, total - leg - s, turn * angle.sin()))
    across = -turn * angle.cos()
    # The tube's cross-section is spanned by the normal of the center line and z.
    normal = torch.stack([torch.where((s >= leg) & (s <= total - leg), angle.cos(), torch.where(s < leg, 1.0, -1.0)),
                          torch.where((s >= leg) & (s <= total - leg), -angle.sin(), 0.0)], -1)  # fmt: skip
    phi = torch.arange(around, dtype=torch.float64) * (2 * math.pi / around)
    ring = radius * (phi.cos()[None, :, None] * normal[:, None])
    x, y = across[:, None] + ring[..., 0], up[:, None] + ring[..., 1]
    vertices = torch.stack([x, y, (radius * phi.sin()).expand(along, around)], -1).flatten(0, 1)
    faces = shapes._grid_faces(along, around, wrap_rows=False, wrap_columns=True)
    side = torch.where(s < leg - 0.3, -1, torch.where(s > total - leg + 0.3, 1, 0)).repeat_interleave(around)
    return vertices, faces, side


@settings(max_examples=20, deadline=None)
@given(nodes=st.integers(1, 40), neighbors=st.integers(1, 8))
def test_weights_are_a_partition_that_falls_with_the_distance(nodes, neighbors):
    vertices, faces = shapes.torus(1.0, 0.3, 24, 10, torch.float64)
    graph = DeformationGraph.of(vertices, faces, nodes, neighbors)
    assert len(graph) == nodes and graph.weights.shape == (len(vertices), min(neighbors, nodes))
    assert bool((graph.weights >= 0).all())
    torch.testing.assert_close(graph.weights.sum(1), torch.ones(len(vertices), dtype=torch.float64), atol=1e-12, rtol=0)
    assert bool((graph.weights.diff(dim=1) <= 1e-12).all())  # nearest first
    rows = (graph.nodes[:, None] == vertices).all(-1).nonzero()[:, 1]
    distances = edge_distances(vertices, faces, rows).mT
    own = distances.gather(1, graph.indices)
    assert bool((own.diff(dim=1) >= -1e-12).all())
    torch.testing.assert_close(own, distances.sort(1).values[:, : own.shape[1]])
    if nodes > neighbors:
        reach = distances.sort(1).values[:, neighbors : neighbors + 1]
        want = (1 - own / reach).square()
        is_even = want.sum(1) == 0
        torch.testing.assert_close(graph.weights[~is_even], (want / want.sum(1, keepdim=True))[~is_even])


def test_weights_are_continuous_where_the_nearest_nodes_change():
    """Along a fine strip, no weight of any node jumps, although the four nearest change."""
    vertices, faces = shapes.plane((8.0, 0.05), 800, 1, torch.float64)
    graph = DeformationGraph.of(vertices, faces, 9, 4)
    dense = torch.zeros(len(vertices), 9, dtype=torch.float64).scatter_add(1, graph.indices, graph.weights)
    line = dense[vertices[:, 1] < 0][vertices[vertices[:, 1] < 0][:, 0].argsort()]
    assert float(line.diff(dim=0).abs().max()) < 0.02  # cells of 0.01, reach of some 2
    changes = (graph.indices[:1600:2].sort(1).values.diff(dim=0) != 0).any(1).sum()
    assert int(changes) >= 4


def test_nodes_stay_on_their_leg_of_a_horseshoe():
    """With Euclidean distances, a third of the legs' vertices would follow the other leg; with geodesic ones, none does."""
    vertices, faces, side = horseshoe()
    graph = DeformationGraph.of(vertices, faces, 64, 4)
    node_side = side[knn(vertices, graph.nodes)[1][:, 0]]
    legs = side != 0

    def mixed(indices: Tensor) -> float:
        return float((node_side[indices] == -side[:, None]).any(1)[legs].double().mean())

    assert mixed(graph.indices) == 0
    nodes = vertices[farthest_points(vertices, 64)]
    node_side = side[knn(vertices, nodes)[1][:, 0]]
    assert mixed(knn(nodes, vertices, 4)[1]) > 0.2  # control


def test_seams_of_a_texture_do_not_tear():
    vertices, faces = shapes.icosphere(2, dtype=torch.float64)
    vertices = vertices + 0.01 * torch.randn(vertices.shape, dtype=torch.float64)  # makes all distances different
    soup = vertices[faces].flatten(0, 1)  # three vertices per face, as if every edge were a seam
    graph = DeformationGraph.of(soup, torch.arange(len(soup)).view(-1, 3), 20, 4)
    generator = torch.Generator().manual_seed(0)
    quats = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    shifts = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    moved = graph.deform(soup, quats, shifts, method="dqs")
    welded = DeformationGraph.of(vertices, faces, 20, 4)
    assert bool((moved[faces.flatten().argsort()].diff(dim=0)[faces.flatten().sort().values.diff() == 0] == 0).all())
    # The nodes do not depend on the seams either, up to the order of vertices.
    assert {tuple(p) for p in graph.nodes.tolist()} == {tuple(p) for p in welded.nodes.tolist()}


def test_the_same_mesh_has_the_same_graph():
    vertices, faces = shapes.torus(dtype=torch.float32)
    first, second = (DeformationGraph.of(vertices, faces, 30, 4) for _ in range(2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    again = DeformationGraph(**first.state_dict())
    assert torch.equal(again.weights, first.weights) and again.spacing == first.spacing > 0


def test_parts_have_their_own_nodes_and_are_linked():
    vertices, faces = shapes.icosphere(2, dtype=torch.float64)
    both = torch.cat([vertices, 0.5 * vertices + torch.tensor([1.7, 0, 0])])
    with pytest.warns(UserWarning, match="has 2 disconnected parts"):
        graph = DeformationGraph.of(both, torch.cat([faces, faces + len(vertices)]), 12, 4)
    is_second = graph.nodes[:, 0] > 1.1
    assert len(graph) == 12 and int(is_second.sum()) == 2  # it has a fifth of the surface
    own = is_second[graph.indices]
    used = graph.weights > 0
    assert not bool((own & used)[: len(vertices)].any()) and bool(own[len(vertices) :].all())
    crossing = (is_second[graph.edges[:, 0]] != is_second[graph.edges[:, 1]]).sum()
    assert int(crossing) == 1


def test_small_parts_without_nodes_follow_nearby_nodes():
    vertices, faces = shapes.icosphere(2, dtype=torch.float64)
    crumb, crumb_faces = shapes.icosphere(0, 0.01, torch.float64)
    offsets = 1.1 * torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]], dtype=torch.float64)
    points = torch.cat([vertices, *(crumb + offset for offset in offsets)])
    parts = [faces, *(crumb_faces + len(vertices) + i * len(crumb) for i in range(4))]
    with pytest.warns(UserWarning, match="5 disconnected parts; .*; 3 of them have no nodes of their own"):
        graph = DeformationGraph.of(points, torch.cat(parts), 4, 2)
    assert len(graph) == 4
    near = knn(graph.nodes, points)[1][:, 0]
    last = slice(len(points) - len(crumb), None)
    assert torch.equal(graph.indices[last, 0], near[last])
    torch.testing.assert_close(graph.weights.sum(1), torch.ones(len(points), dtype=torch.float64))


def test_one_motion_of_all_nodes_is_rigid():
    vertices, faces = shapes.box((1.0, 2.0, 0.5), 4, torch.float64)
    graph = DeformationGraph.of(vertices, faces, 10, 4)
    vector = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64)
    from vision3d.geometry.quaternion import rotmat_to_quat

    turn, shift = so3_exp(vector), torch.tensor([0.1, 0.2, -3.0], dtype=torch.float64)
    quats = rotmat_to_quat(turn).expand(10, 4)
    shifts = graph.nodes @ turn.mT + shift - graph.nodes
    for method in ("lbs", "dqs", "hybrid"):
        moved = graph.deform(vertices, quats, shifts, blends=torch.full((10,), 0.3, dtype=torch.float64), method=method)
        torch.testing.assert_close(moved, vertices @ turn.mT + shift, atol=1e-12, rtol=0)


def test_at_most_as_many_nodes_as_positions():
    vertices, faces = shapes.box(dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = DeformationGraph.of(vertices, faces, 500, 4)
    assert len(graph) == 8 and torch.equal(graph.nodes.unique(dim=0), vertices.unique(dim=0))
    one = DeformationGraph.of(vertices, faces, 1, 4)
    assert bool((one.weights == 1).all()) and one.edges.shape == (0, 2)


def test_wrong_input():
    with pytest.raises(InputError, match="0 faces"):
        DeformationGraph.of(torch.eye(3), torch.empty(0, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="neighbors 0"):
        DeformationGraph.of(torch.eye(3), torch.tensor([[0, 1, 2]]), 2, 0)
    with pytest.raises(InputError, match="indices"):
        DeformationGraph(torch.zeros(1, 3), torch.tensor([[1]]), torch.ones(1, 1), torch.empty(0, 2, dtype=torch.int64))
