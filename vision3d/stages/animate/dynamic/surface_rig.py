"""Joints for a mesh without any, at the borders of rings of its surface, from its middle to the ends of its limbs."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry.arap import cotangent_weights
from vision3d.geometry.geodesics import edge_graph, shortest_paths
from vision3d.geometry.mesh import face_areas, weld_vertices
from vision3d.geometry.neighbors import knn
from vision3d.geometry.skinning import keep_largest
from vision3d.scene import Mesh, SkinnedMesh

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BANDS = 6  # from the center to the farthest end
_SHARE, _FARTHER = 0.9, 1.45  # the farthest end is clamped to this multiple of the quantile of distances by area
_SAMPLES = 32  # points from which distances are measured
_SMALLEST, _MAX = 0.004, 48  # minimum area fraction of a ring, maximum number of rings
_REACH = 0.1  # squared widths of a band over which weights spread into the next ring
_INFLUENCES = 4  # maximum number of joints per vertex
_NEAREST = 8  # neighbors considered to bridge disconnected parts; doubled until all are connected


def surface_skin(mesh: Mesh) -> SkinnedMesh:
    """The mesh with a joint at each border between rings of its surface.

    The mean distance along the surface to all other points is smallest in the middle and largest at the ends of limbs. Its
    level bands split into rings, whose graph (Reeb 1946; Hilaga et al. 2001) is the skeleton. Weights are heat diffused from
    each ring (Baran and Popovic 2007). Disconnected parts are bridged where they are nearest. Deterministic.

    Args:
        mesh: Rest pose; not all of its faces have zero area.
    """
    places, faces, place = weld_vertices(mesh.vertices.detach().double().cpu(), mesh.faces.cpu())
    graph = _joined(places, edge_graph(places, faces))
    areas = _vertex_areas(places, faces)
    distances = _mean_distances(graph, len(places))
    bands, width = _bands(distances - distances.min(), areas)
    rings, parents = _tree(_rings(graph, bands, areas), graph, int(distances.argmin()))
    pivots = torch.from_numpy(_pivots(places.numpy(), rings, parents, graph))
    heat = _heat(places, faces, rings, areas, _REACH * width**2)
    weights, indices = keep_largest(heat[place.cpu()].float(), _INFLUENCES)
    count, above = len(parents), torch.tensor(parents)
    shifts = pivots - torch.where(above[:, None] < 0, 0.0, pivots[above.clamp(min=0)])
    binds = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    binds[:, :3, 3] = -pivots
    still = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1), torch.ones(count, 3)
    names = tuple(f"ring_{joint}" for joint in range(count))
    skin = SkinnedMesh(mesh.to("cpu"), names, tuple(parents), shifts.float(), *still, binds.float(), indices, weights)
    return skin.to(mesh.device)


def _joined(places: Float[Tensor, "p 3"], graph: "csr_array") -> "csr_array":
    """The graph of the edges plus the shortest bridges between disconnected parts."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    points, nearest = places.numpy(), _NEAREST
    while True:
        count, part = connected_components(graph, directed=False)
        if count == 1:
            return graph
        nearest = min(nearest, len(points) - 1)
        gaps, ends = (found.numpy().ravel() for found in knn(places, k=nearest))
        starts = np.arange(len(points)).repeat(nearest)
        is_apart = part[starts] != part[ends]
        # Parts are the nodes of this graph, so that its spanning tree has the fewest and shortest bridges.
        order = np.argsort(gaps[is_apart], kind="stable")
        starts, ends, gaps = (values[is_apart][order] for values in (starts, ends, np.maximum(gaps, 1e-12)))
        keys = np.minimum(part[starts], part[ends]).astype(np.int64) * count + np.maximum(part[starts], part[ends])
        first = np.unique(keys, return_index=True)[1]
        between = coo_array((gaps[first], (keys[first] // count, keys[first] % count)), shape=(count, count))
        tree = minimum_spanning_tree(between.tocsr()).tocoo()
        chosen = first[np.isin(keys[first], np.minimum(*tree.coords).astype(np.int64) * count + np.maximum(*tree.coords))]
        a, b, length = starts[chosen], ends[chosen], gaps[chosen]
        bridges = coo_array((np.tile(length, 2), (np.r_[a, b], np.r_[b, a])), shape=graph.shape)
        graph, nearest = (graph + bridges).tocsr(), 2 * nearest


def _vertex_areas(places: Float[Tensor, "p 3"], faces: Int64[Tensor, "f 3"]) -> np.ndarray:
    """A third of the areas of the faces around each vertex; above 0."""
    areas = torch.zeros(len(places), dtype=torch.float64)
    areas.index_add_(0, faces.T.reshape(-1), face_areas(places, faces).repeat(3) / 3)
    return areas.clamp(min=1e-9 * float(areas.mean())).numpy()


def _mean_distances(graph: "csr_array", count: int) -> np.ndarray:
    """Mean distance of each vertex to evenly distributed sample vertices."""
    nearest, total, row = np.full(count, np.inf), np.zeros(count), 0
    # The first one is only used to find the farthest one.
    row = int(shortest_paths(graph, torch.tensor([0]))[0].argmax())
    for _ in range(_SAMPLES):
        found = shortest_paths(graph, torch.tensor([row]))[0].numpy()
        nearest, total = np.minimum(nearest, found), total + found
        row = int(nearest.argmax())
    return total / _SAMPLES


def _bands(distances: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, float]:
    """The band of each vertex, and the width of a band, which thin attached objects, such as a pole, do not increase."""
    order = np.argsort(distances, kind="stable")
    shares = np.cumsum(areas[order]) / areas.sum()
    usual = float(distances[order][np.searchsorted(shares, _SHARE)])
    farthest = float(distances.max())
    width = max(min(farthest, _FARTHER * usual) / _BANDS, 1e-300)
    return np.minimum((distances / width).astype(np.int64), max(math.ceil(farthest / width - 1e-6), 1) - 1), width


def _rings(graph: "csr_array", bands: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The ring of each vertex: a connected part of a band. Rings that are too small or too many are merged with a neighbor."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = graph.tocoo().coords
    is_inside = bands[rows] == bands[columns]
    inside = coo_array((np.ones(is_inside.sum()), (rows[is_inside], columns[is_inside])), shape=graph.shape)
    rings = connected_components(inside, directed=False)[1].astype(np.int64)
    while True:
        used, rings = np.unique(rings, return_inverse=True)
        sizes = np.bincount(rings, areas)
        least = int(sizes.argmin())
        if len(used) == 1 or (sizes[least] >= _SMALLEST * sizes.sum() and len(used) <= _MAX):
            return rings
        is_border = (rings[rows] == least) & (rings[columns] != least)
        rings[rings == least] = np.bincount(rings[columns[is_border]]).argmax()


def _tree(rings: np.ndarray, graph: "csr_array", middle: int) -> tuple[np.ndarray, list[int]]:
    """Rings in the order of a spanning tree from the ring with the vertex `middle`, across the longest borders, and parents."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    rows, columns = graph.tocoo().coords
    is_border = rings[rows] != rings[columns]
    count = int(rings.max()) + 1
    ends = (rings[rows[is_border]], rings[columns[is_border]])
    borders = coo_array((np.ones(is_border.sum()), ends), shape=(count, count)).tocsr()
    borders.data = 1 / borders.data
    order, above = breadth_first_order(minimum_spanning_tree(borders), int(rings[middle]), directed=False)
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    return place[rings], [-1 if above[ring] < 0 else int(place[above[ring]]) for ring in order]


def _pivots(points: np.ndarray, rings: np.ndarray, parents: list[int], graph: "csr_array") -> np.ndarray:
    """The center of the border between each ring and its parent; for the root its own center."""
    rows, columns = graph.tocoo().coords
    pivots = np.zeros((len(parents), 3))
    for ring, parent in enumerate(parents):
        is_border = (rings[rows] == ring) & (rings[columns] == parent)
        ends = np.r_[rows[is_border], columns[is_border]] if parent >= 0 else np.flatnonzero(rings == ring)
        pivots[ring] = points[ends].mean(0)
    return pivots


def _heat(
    places: Float[Tensor, "p 3"], faces: Int64[Tensor, "f 3"], rings: np.ndarray, areas: np.ndarray, reach: float
) -> Float[Tensor, "p j"]:
    """The weight of each ring at every vertex: (A + reach L) w = A w_0, with the cotangent Laplacian L and areas A."""
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import splu

    edges, weights = cotangent_weights(places, faces)
    (a, b), weights = edges.T.numpy(), np.maximum(weights.numpy(), 1e-6)
    both = (np.r_[a, b], np.r_[b, a])
    near = coo_array((np.tile(weights, 2), both), shape=(len(places),) * 2).tocsr()
    matrix = diags_array(areas + reach * near.sum(1)) - reach * near
    start = areas[:, None] * np.eye(int(rings.max()) + 1)[rings]
    return torch.from_numpy(splu(matrix.tocsc()).solve(start)).clamp(min=0)
