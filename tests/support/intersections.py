"""Intersections of a triangle mesh with itself, by brute force: every edge against every face."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry.mesh import unique_edges


def self_intersections(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Int64[Tensor, "n 2"]:
    """Pairs of an edge (of `unique_edges`) and a face that it crosses and has no vertex in common with."""
    vertices, (edges, _) = vertices.double(), unique_edges(faces)
    corners, ends = vertices[faces], vertices[edges]
    low, high = corners.amin(1), corners.amax(1)
    found = []
    for part in torch.arange(len(edges)).split(256):
        start, stop = ends[part, 0], ends[part, 1]
        below, above = torch.minimum(start, stop), torch.maximum(start, stop)
        near = ((below[:, None] <= high) & (above[:, None] >= low)).all(-1)
        near &= ~(edges[part][:, None, :, None] == faces[None, :, None, :]).any(-1).any(-1)
        pairs = near.nonzero()
        found.append(torch.stack([part[pairs[:, 0]], pairs[:, 1]], -1))
    pairs = torch.cat(found)
    (start, stop), (a, b, c) = ends[pairs[:, 0]].unbind(1), corners[pairs[:, 1]].unbind(1)

    def side(p: Tensor, q: Tensor, r: Tensor, s: Tensor) -> Tensor:
        return ((q - p) * torch.linalg.cross(r - p, s - p)).sum(-1)

    through = side(a, b, c, start) * side(a, b, c, stop) < 0
    turns = torch.stack([side(start, stop, a, b), side(start, stop, b, c), side(start, stop, c, a)])
    return pairs[through & ((turns > 0).all(0) | (turns < 0).all(0))]
