"""Intersections of a triangle mesh with itself: edges against faces."""

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
    axis = int((vertices.amax(0) - vertices.amin(0)).argmax())
    for part in ends[:, :, axis].amin(1).argsort().split(64):  # neighbors along the mesh: few faces are near
        below, above = ends[part].amin(1), ends[part].amax(1)
        near = ((high >= below.amin(0)) & (low <= above.amax(0))).all(-1).nonzero()[:, 0]
        touch = ((below[:, None] <= high[near]) & (above[:, None] >= low[near])).all(-1)
        rows, columns = touch.nonzero().T
        pairs = torch.stack([part[rows], near[columns]], -1)
        is_apart = ~(edges[pairs[:, 0]][:, :, None] == faces[pairs[:, 1]][:, None]).flatten(1).any(1)
        found.append(pairs[is_apart])
    pairs = torch.cat(found)
    (start, stop), (a, b, c) = ends[pairs[:, 0]].unbind(1), corners[pairs[:, 1]].unbind(1)

    def side(p: Tensor, q: Tensor, r: Tensor, s: Tensor) -> Tensor:
        return ((q - p) * torch.linalg.cross(r - p, s - p)).sum(-1)

    through = side(a, b, c, start) * side(a, b, c, stop) < 0
    turns = torch.stack([side(start, stop, a, b), side(start, stop, b, c), side(start, stop, c, a)])
    return pairs[through & ((turns > 0).all(0) | (turns < 0).all(0))]
