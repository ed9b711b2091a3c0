"""Deformation graphs: a small number of nodes on a mesh that drive its vertices (Sumner et al. 2007)."""

import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.geodesics import edge_graph, shortest_paths
from vision3d.geometry.mesh import Faces, Vertices, check_mesh, weld_vertices
from vision3d.geometry.neighbors import knn
from vision3d.geometry.skinning import Method, skin

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class DeformationGraph:
    """N nodes on a mesh of V vertices; each vertex follows up to K nodes.

    Nodes are distributed evenly with respect to distances along edges. With d_j the distance from a vertex to its j-th
    nearest node, its weights are (1 - d_j / d_{K+1})^2, normalized: they decrease with distance and reach zero where another
    node takes over.

    Example:
        >>> from vision3d.geometry.shapes import icosphere
        >>> vertices, faces = icosphere(2)
        >>> graph = DeformationGraph.of(vertices, faces, num_nodes=8)
        >>> graph.nodes.shape, graph.weights.shape
        (torch.Size([8, 3]), torch.Size([162, 4]))
    """

    nodes: Float[Tensor, "n 3"]
    """Positions in the rest pose [m]."""
    indices: Int64[Tensor, "v k"]
    """Nodes of each vertex, nearest first; padded with the nearest node at weight zero."""
    weights: Float[Tensor, "v k"]
    """Rows that sum to 1."""
    edges: Int64[Tensor, "e 2"]
    """Pairs of nodes with adjacent regions."""

    @classmethod
    def of(cls, vertices: Vertices, faces: Faces, num_nodes: int = 128, neighbors: int = 4) -> "DeformationGraph":
        """Build the graph of a mesh; deterministic.

        Coincident vertices count as one, so that texture seams do not tear. Disconnected parts share no nodes (with a
        warning); an edge joins the nearest nodes of two parts. If there are more parts than half the number of nodes, the
        smallest parts have no nodes of their own and follow the nearest ones in space.

        Args:
            vertices: Rest pose [m].
            faces: Faces of the mesh.
            num_nodes: At most the number of distinct positions.
            neighbors: K, the maximum number of nodes that a vertex follows.

        Raises:
            ShapeError: A tensor has the wrong shape or dtype.
            InputError: No faces, or `num_nodes` or `neighbors` is below 1.
        """
        check_mesh(vertices, faces)
        if not len(faces) or num_nodes < 1 or neighbors < 1:
            got = f"{len(faces)} faces, num_nodes {num_nodes}, neighbors {neighbors}"
            raise InputError(f"DeformationGraph: got {got}; want at least 1 of each")
        places, triangles, place = weld_vertices(vertices.detach(), faces)
        places, triangles = places.double().cpu(), triangles.cpu()
        graph = edge_graph(places, triangles)
        nodes, near, distances = _spread(places, triangles, graph, min(num_nodes, len(places)), neighbors)
        indices, weights = _weights(places, places[nodes], near, distances, min(neighbors, len(nodes)))
        edges = _touching(indices[:, 0], triangles)
        edges = torch.cat([edges, _links(places[nodes], edges)])
        place = place.cpu()
        tensors = places[nodes].to(vertices), indices[place], weights[place].to(vertices), edges
        return cls(*(tensor.to(vertices.device) for tensor in tensors))

    def __post_init__(self) -> None:
        count, rows = len(self.nodes), len(self.weights)
        if self.nodes.shape != (count, 3) or self.indices.shape != self.weights.shape or self.weights.ndim != 2:
            got = tuple(tuple(getattr(self, f.name).shape) for f in fields(self))
            raise ShapeError("DeformationGraph", got, "(N, 3), (V, K), (V, K), (E, 2)")
        for name in ("indices", "edges"):
            value = getattr(self, name)
            if value.dtype != torch.int64 or (value.numel() and not 0 <= int(value.min()) <= int(value.max()) < count):
                raise InputError(f"DeformationGraph.{name}: want int64 rows of {count} nodes for {rows} vertices")

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def spacing(self) -> float:
        """Mean distance of adjacent nodes [m]."""
        if not len(self.edges):
            return 1.0
        return float(torch.linalg.vector_norm(self.nodes[self.edges[:, 0]] - self.nodes[self.edges[:, 1]], dim=-1).mean())

    def deform(
        self,
        vertices: Vertices,
        quats: Float[Tensor, "*batch n 4"],
        translations: Float[Tensor, "*#batch n 3"],
        stretches: Float[Tensor, "*#batch n 6"] | None = None,
        blends: Float[Tensor, "*#batch n"] | None = None,
        *,
        method: Method = "hybrid",
    ) -> Float[Tensor, "*batch v 3"]:
        """Vertices of the mesh for each pose of the nodes, which rotate about themselves; see `geometry.skinning.skin`."""
        return skin(
            vertices, self.weights, self.indices, quats, translations,
            centers=self.nodes, stretches=stretches, blends=blends, method=method,
        )  # fmt: skip

    def to(self, device: torch.device | str) -> "DeformationGraph":
        """The same graph on another device."""
        return DeformationGraph(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors; `DeformationGraph(**state)` rebuilds it."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _spread(places: Tensor, faces: Tensor, graph: "csr_array", count: int, neighbors: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes by farthest point sampling along edges; for each position the neighbors + 1 nearest nodes and their distances."""
    from scipy.sparse.csgraph import connected_components

    part = torch.from_numpy(connected_components(graph, directed=False)[1]).long()
    sizes = torch.bincount(part)
    is_used = torch.zeros(len(part), dtype=torch.bool)
    is_used[faces.flatten()] = True
    used_parts = torch.zeros(len(sizes), dtype=torch.bool)
    used_parts[part[is_used]] = True
    # Parts with nodes of their own: the largest ones, at most one per two nodes, so that tiny parts do not use up all nodes.
    order = sizes.where(used_parts, 0).argsort(descending=True, stable=True)
    own = order[: min(int(used_parts.sum()), max(1, count // 2))]
    is_own = torch.isin(part, own)
    count = min(count, int(is_own.sum()))
    if (num_parts := int(used_parts.sum())) > 1:
        poor = "" if len(own) == num_parts else f"; {num_parts - len(own)} of them have no nodes of their own"
        warnings.warn(f"the mesh has {num_parts} disconnected parts; each moves independently{poor}", stacklevel=4)
    nodes: list[int] = []
    nearest = torch.full((len(part), neighbors + 1), torch.inf, dtype=torch.float64)
    ids = torch.zeros(len(part), neighbors + 1, dtype=torch.int64)
    # The first node is the position farthest from the mean of the largest part, each next one the farthest from all so far.
    largest = (part == own[0]).nonzero()[:, 0]
    row = int(largest[(places[largest] - places[largest].mean(0)).square().sum(1).argmax()])
    for node in range(count):
        nodes.append(row)
        found = shortest_paths(graph, torch.tensor([row]))[0]
        values = torch.cat([nearest, found[:, None]], 1)
        names = torch.cat([ids, torch.full_like(ids[:, :1], node)], 1)
        nearest, order = values.sort(dim=1, stable=True)
        nearest, ids = nearest[:, :-1], names.gather(1, order)[:, :-1]
        row = int(torch.where(is_own, nearest[:, 0], -1).argmax())
    return torch.tensor(nodes), ids, nearest


def _weights(places: Tensor, nodes: Tensor, near: Tensor, distances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nodes that each position follows, with weights."""
    is_alone = distances[:, 0].isinf()
    if bool(is_alone.any()):
        found, idx = knn(nodes, places[is_alone], min(near.shape[1], len(nodes)))
        near, distances = near.clone(), distances.clone()
        near[is_alone, : idx.shape[1]], distances[is_alone, : idx.shape[1]] = idx, found
    is_there = distances.isfinite()
    # Without a (K+1)-th node all nodes of the part are followed; one radius for all positions keeps the weights continuous.
    farthest = torch.where(is_there, distances, 0).amax()
    reach = torch.where(is_there[:, count:].any(1), distances[:, -1], farthest)
    distances, is_there = distances[:, :count], is_there[:, :count]
    weights = torch.where(is_there, 1 - distances / reach.clamp(min=1e-300)[:, None], 0).clamp(min=0).square()
    is_even = weights.sum(1) <= 0  # all nodes at the same distance
    weights = torch.where(is_even[:, None], is_there.double(), weights)
    indices = torch.where(is_there, near[:, :count], near[:, :1])
    return indices, weights / weights.sum(1, keepdim=True)


def _touching(nearest: Tensor, faces: Tensor) -> Tensor:
    """Pairs of nodes that are nearest to the two ends of an edge."""
    pairs = nearest[torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])].sort(-1).values
    return torch.unique(pairs[pairs[:, 0] != pairs[:, 1]], dim=0)


def _links(nodes: Tensor, edges: Tensor) -> Tensor:
    """Pairs that connect groups of nodes without edges between them: each group's node that is nearest to the largest group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array(([True] * len(edges), tuple(edges.T.numpy())), shape=(len(nodes),) * 2)
    _, group = connected_components(graph, directed=False)
    group, links = torch.from_numpy(group).long(), []
    joined = group == torch.bincount(group).argmax()
    while not bool(joined.all()):
        distances = torch.cdist(nodes[joined], nodes[~joined])
        best = int(distances.argmin())
        a = int(joined.nonzero()[best // distances.shape[1]])
        b = int((~joined).nonzero()[best % distances.shape[1]])
        links.append([a, b])
        joined |= group == group[b]
    return torch.tensor(links, dtype=torch.int64).reshape(-1, 2).sort(-1).values
