"""Distances along the edges of triangle meshes, and farthest point sampling.

Coincident vertices, as at texture seams, must be merged first: `mesh.weld_vertices`.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.mesh import Faces, Vertices, check_mesh, unique_edges

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def farthest_points(points: Float[Tensor, "n d"], count: int, start: int | None = None) -> Int64[Tensor, " m"]:
    """Indices of evenly distributed points: each is the one farthest from those before it (Gonzalez 1985).

    No two of them are closer than the largest distance of the other points to them. Ties take the first row, so the result is
    deterministic.

    Args:
        points: At least `count`.
        count: Number of points to select, at least 1.
        start: The first row; the one farthest from the mean when None.

    Raises:
        ShapeError: There are fewer than `count` points, or `count` is below 1.
    """
    if not 1 <= count <= len(points):
        raise ShapeError("points", f"{len(points)} points", f"at least count = {count}, count >= 1")
    points = points.detach()
    row = int((points - points.mean(0)).square().sum(-1).argmax()) if start is None else start
    chosen, squares = [row], torch.full_like(points[:, 0], torch.inf)
    for _ in range(count - 1):
        squares = torch.minimum(squares, (points - points[row]).square().sum(-1))
        row = int(squares.argmax())
        chosen.append(row)
    return torch.tensor(chosen, device=points.device)


def edge_distances(vertices: Vertices, faces: Faces, sources: Int64[Tensor, " s"]) -> Float[Tensor, "s v"]:
    """Lengths of the shortest paths along edges from the source vertices to all vertices (Dijkstra 1959) [m]; inf if none.

    They are upper bounds of geodesic distances, about 10 % too long on even meshes. Runs on the CPU.

    Args:
        vertices: [m].
        faces: Of welded vertices.
        sources: Start vertices.

    Raises:
        ShapeError: A tensor has the wrong shape or dtype.
        InputError: A face or a source is not a valid vertex index.

    Example:
        >>> corners = torch.tensor([[0.0, 0, 0], [3, 0, 0], [3, 4, 0], [9, 9, 9]])
        >>> edge_distances(corners, torch.tensor([[0, 1, 2]]), torch.tensor([0]))
        tensor([[0., 3., 5., inf]])
    """
    check_mesh(vertices, faces)
    if len(sources) and not 0 <= int(sources.min()) <= int(sources.max()) < len(vertices):
        raise InputError(f"sources: got {sources.tolist()}, but there are {len(vertices)} vertices")
    return shortest_paths(edge_graph(vertices, faces), sources).to(vertices)


def edge_graph(vertices: Vertices, faces: Faces) -> "csr_array":
    """The edges of a mesh with their lengths as a sparse matrix, for `shortest_paths`."""
    from scipy.sparse import csr_array

    points, pairs = vertices.detach().double().cpu(), unique_edges(faces.cpu())[0]
    lengths = torch.linalg.vector_norm(points[pairs[:, 0]] - points[pairs[:, 1]], dim=-1)
    lengths = lengths.clamp(min=torch.finfo(torch.float32).tiny)  # scipy treats zero as no edge
    rows, columns = torch.cat([pairs, pairs.flip(-1)]).T.numpy()
    return csr_array((lengths.repeat(2).numpy(), (rows, columns)), shape=(len(points),) * 2)


def shortest_paths(graph: "csr_array", sources: Int64[Tensor, " s"]) -> Float[Tensor, "s v"]:
    """Distances from some nodes of an `edge_graph` to all nodes, float64."""
    from scipy.sparse.csgraph import dijkstra

    return torch.from_numpy(dijkstra(graph, directed=True, indices=sources.cpu().numpy()))
