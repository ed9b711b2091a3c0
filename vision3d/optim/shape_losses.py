"""Losses that preserve the shape of a mesh while its vertices move."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry.mesh import face_adjacency, face_normals, unique_edges, vertex_neighbors


class ShapeLosses:
    """Smoothness of a mesh's normals and of the displacements of its vertices.

    Args:
        vertices: Rest pose [m], one per position.
        faces: Their faces, without degenerate ones.

    Example:
        >>> vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
        >>> losses = ShapeLosses(vertices, torch.tensor([[0, 1, 2], [1, 3, 2]]))
        >>> losses.normals(vertices), losses.laplacian(vertices + 1) < 1e-12
        (tensor(0.), tensor(True))
    """

    def __init__(self, vertices: Float[Tensor, "p 3"], faces: Int64[Tensor, "f 3"]) -> None:
        self.rest, self.faces, self.pairs = vertices.detach(), faces, face_adjacency(faces)[0]
        edges = self.rest[unique_edges(faces)[0]]
        lengths = torch.linalg.vector_norm(edges[:, 0] - edges[:, 1], dim=-1)
        self.mean_edge = float(lengths.mean()) if len(lengths) else 1.0
        offsets, self._neighbors = vertex_neighbors(faces, len(vertices))
        self._counts = offsets.diff()[:, None]
        self._owners = torch.repeat_interleave(torch.arange(len(vertices), device=faces.device), offsets.diff())

    def normals(self, vertices: Float[Tensor, "p 3"]) -> Float[Tensor, ""]:
        """Mean of 1 - cos between the normals of adjacent faces; zero for a plane."""
        if not len(self.pairs):
            return vertices.new_zeros(())
        first, second = face_normals(vertices, self.faces)[self.pairs].unbind(1)
        return (1 - (first * second).sum(-1)).mean()

    def laplacian(self, vertices: Float[Tensor, "p 3"]) -> Float[Tensor, ""]:
        """Mean squared difference between a vertex's displacement and the mean of its neighbors', relative to the mean edge.

        The uniform Laplacian of displacements instead of positions, so the rest shape and its translations have zero loss.
        """
        shifts = (vertices - self.rest) / self.mean_edge
        means = torch.zeros_like(shifts).index_add(0, self._owners, shifts[self._neighbors]) / self._counts.clamp(min=1)
        return torch.where(self._counts > 0, shifts - means, 0).square().sum(-1).mean()
