"""Triangle meshes as two tensors: normals, areas, volume, edges, adjacency, welding.

Faces are counter-clockwise seen from outside. Index functions work on the CPU and return on the device of the faces.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.vectors import unit

Vertices = Float[Tensor, "v 3"]
Faces = Int64[Tensor, "f 3"]


def check_mesh(vertices: Tensor, faces: Tensor) -> None:
    """Raise ShapeError or InputError unless these are (V, 3) floats and (F, 3) valid int64 indices."""
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not vertices.is_floating_point():
        raise ShapeError("vertices", f"shape {tuple(vertices.shape)} {vertices.dtype}", "shape (V, 3) of floats")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype != torch.int64:
        raise ShapeError("faces", f"shape {tuple(faces.shape)} {faces.dtype}", "shape (F, 3) torch.int64")
    if faces.numel() and (int(faces.min()) < 0 or int(faces.max()) >= len(vertices)):
        bad = int(((faces < 0) | (faces >= len(vertices))).any(1).nonzero()[0])
        raise InputError(f"faces: face {bad} is {faces[bad].tolist()}, but there are {len(vertices)} vertices")


def face_normals(vertices: Vertices, faces: Faces) -> Float[Tensor, "f 3"]:
    """Unit normals; zero, with zero gradient, for faces of zero area."""
    return unit(_area_vectors(vertices, faces))


def face_areas(vertices: Vertices, faces: Faces) -> Float[Tensor, " f"]:
    """Areas [m^2]; the gradient of a face of zero area is zero."""
    return torch.linalg.vector_norm(_area_vectors(vertices, faces), dim=-1)


def vertex_normals(vertices: Float[Tensor, "*batch v 3"], faces: Faces) -> Float[Tensor, "*batch v 3"]:
    """Area-weighted unit normals of the faces around each vertex; zero for unused vertices."""
    sums = torch.zeros_like(vertices)
    return unit(sums.index_add(-2, faces.flatten(), _area_vectors(vertices, faces).repeat_interleave(3, -2)))


def volume(vertices: Vertices, faces: Faces) -> Float[Tensor, ""]:
    """Enclosed volume [m^3] of a closed mesh, positive when the faces point outwards (divergence theorem)."""
    center = vertices.detach().mean(0)  # any point works; this one keeps rounding errors small
    a, b, c = (vertices[faces[:, i]] - center for i in range(3))
    return (a * torch.linalg.cross(b, c)).sum() / 6


def unique_edges(faces: Faces) -> tuple[Int64[Tensor, "e 2"], Int64[Tensor, "f 3"]]:
    """Edges as sorted pairs of vertices, in ascending order, and for each face the edges that start at corners 0, 1 and 2."""
    pairs = torch.stack([faces, faces.roll(-1, 1)], -1).flatten(0, 1).sort(-1).values
    keys, inverse = torch.unique(_edge_keys(pairs), return_inverse=True)
    edges = torch.empty(len(keys), 2, dtype=faces.dtype, device=faces.device)
    edges[inverse] = pairs
    return edges, inverse.view(-1, 3)


def face_adjacency(faces: Faces) -> tuple[Int64[Tensor, "a 2"], Int64[Tensor, "a 2"]]:
    """Pairs of faces that share an edge, and the vertices of these edges; n - 1 pairs at an edge of n > 2 faces."""
    edges, face_edges = unique_edges(faces)
    order = face_edges.flatten().argsort(stable=True)
    sorted_edges, owners = face_edges.flatten()[order], order // 3
    is_same = sorted_edges[1:] == sorted_edges[:-1]
    return torch.stack([owners[:-1], owners[1:]], -1)[is_same], edges[sorted_edges[1:][is_same]]


def connected_faces(faces: Faces) -> tuple[int, Int64[Tensor, " f"]]:
    """The number of parts connected by edges, and the part of each face."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = face_adjacency(faces)[0].cpu()
    graph = coo_array((np.ones(len(pairs), bool), pairs.T.numpy()), shape=(len(faces),) * 2)
    count, labels = connected_components(graph, directed=False)
    return int(count), torch.from_numpy(labels).to(faces)


def boundary_edges(faces: Faces) -> Int64[Tensor, "b 2"]:
    """The edges of exactly one face, as sorted pairs of vertices."""
    edges, counts = _edge_counts(faces)
    return edges[counts == 1]


def crowded_edges(faces: Faces) -> Int64[Tensor, "c 2"]:
    """The edges of more than two faces, as sorted pairs of vertices."""
    edges, counts = _edge_counts(faces)
    return edges[counts > 2]


def is_closed(faces: Faces) -> bool:
    """Whether there are faces and each edge has exactly two, in opposite directions.

    Such a mesh has an inside, and its `volume` is meaningful.
    """
    if not len(faces):
        return False
    directed = torch.stack([faces, faces.roll(-1, 1)], -1).flatten(0, 1)
    forward, backward = (_edge_keys(pairs).sort().values for pairs in (directed, directed.flip(-1)))
    return bool((forward.diff() > 0).all()) and torch.equal(forward, backward)


def is_manifold(faces: Faces) -> bool:
    """Whether no edge has more than two faces and the faces around each vertex are connected (one fan)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(crowded_edges(faces)):
        return False
    # Nodes are face corners; two corners at the same vertex are linked when their faces share an edge there.
    (pairs, shared), faces = face_adjacency(faces), faces.cpu()
    pairs, shared = pairs.cpu(), shared.cpu()
    links = []
    for end in range(2):
        corners = (faces[pairs] == shared[:, end, None, None]).int().argmax(-1)
        links.append(3 * pairs + corners)
    rows, columns = torch.cat(links).T.numpy()
    graph = coo_array(([True] * len(rows), (rows, columns)), shape=(faces.numel(),) * 2)
    return connected_components(graph, directed=False)[0] == len(faces.unique())


def vertex_neighbors(faces: Faces, num_vertices: int) -> tuple[Int64[Tensor, " offsets"], Int64[Tensor, " n"]]:
    """Vertices joined to each by an edge, in CSR form: those of i are neighbors[offsets[i]:offsets[i + 1]]."""
    edges, _ = unique_edges(faces)
    both = torch.cat([edges, edges.flip(-1)])
    both = both[both[:, 0] != both[:, 1]]
    both = both[(both[:, 0] * num_vertices + both[:, 1]).argsort()]
    counts = torch.bincount(both[:, 0], minlength=num_vertices)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)), both[:, 1]


def weld_vertices(
    vertices: Vertices, faces: Faces, tolerance: float = 0.0
) -> tuple[Float[Tensor, "w 3"], Int64[Tensor, "g 3"], Int64[Tensor, " v"]]:
    """Merge vertices closer than `tolerance` [m] and remove the faces that collapse.

    Merging is transitive: of a chain of points, each within the tolerance of the next, only the first remains.

    Returns:
        The remaining vertices in their original order, the faces, and the new index of each old vertex.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    check_mesh(vertices, faces)
    points = vertices.detach().cpu().numpy()
    # Exact duplicates first: otherwise many copies give a quadratic number of pairs.
    distinct, group = np.unique(points, axis=0, return_inverse=True)
    group = group.reshape(-1)
    if tolerance > 0 and len(distinct):
        pairs = KDTree(distinct).query_pairs(tolerance, output_type="ndarray")
        graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(distinct),) * 2)
        group = connected_components(graph, directed=False)[1][group]
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    rank = np.empty_like(first)
    order = np.argsort(first)
    rank[order] = np.arange(len(first))
    new_idx = torch.from_numpy(rank[group.reshape(-1)]).to(faces)
    welded = new_idx[faces]
    is_kept = (welded != welded.roll(1, 1)).all(1)
    return vertices[torch.from_numpy(first[order]).to(faces.device)], welded[is_kept], new_idx


def drop_unused_vertices(vertices: Vertices, faces: Faces) -> tuple[Float[Tensor, "w 3"], Faces, Bool[Tensor, " v"]]:
    """The vertices used by faces, the faces with new indices, and a mask of the vertices kept."""
    is_used = torch.zeros(len(vertices), dtype=torch.bool, device=faces.device)
    is_used[faces.flatten()] = True
    return vertices[is_used], (is_used.cumsum(0) - 1)[faces], is_used


def _area_vectors(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = (vertices[..., faces[:, i], :] for i in range(3))
    return torch.linalg.cross(b - a, c - a) / 2


def _edge_keys(pairs: Tensor) -> Tensor:
    # One number for each pair of vertices: sorting numbers is ten times faster than sorting rows.
    return pairs[:, 0] * (pairs.max() + 1 if len(pairs) else 1) + pairs[:, 1]


def _edge_counts(faces: Tensor) -> tuple[Tensor, Tensor]:
    edges, face_edges = unique_edges(faces)
    return edges, torch.bincount(face_edges.flatten(), minlength=len(edges))
