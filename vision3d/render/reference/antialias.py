"""Plain torch version of the blending at silhouettes; see `cuda_ext/include/vision3d/antialias.h` for the rules."""

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from vision3d.render.reference.fragments import edge_functions

_WALK = 16  # faces followed between two pixel centers
_EDGE_ON = 2.0**-21  # relative to the summed terms: narrower faces are rounding of float32 positions


def antialias(
    positions: Float[Tensor, "i v 4"],
    triangles: Int32[Tensor, "f 3"],
    neighbors: Int32[Tensor, "f 3"],
    face_ids: Int32[Tensor, "i h w"],
    depths: Float[Tensor, "i h w"],
    colors: Float[Tensor, "i h w d"],
) -> Float[Tensor, "i h w d"]:
    """Colors blended where a silhouette edge passes between two pixel centers."""
    out = colors
    for axis in (2, 1):
        out = out + _blend(positions.double(), triangles.long(), neighbors.long(), face_ids, depths, colors, axis)
    return out


def _blend(
    positions: Tensor, triangles: Tensor, neighbors: Tensor, face_ids: Tensor, depths: Tensor, colors: Tensor, axis: int
) -> Tensor:
    """Changes by pairs of neighbors along an axis (2: columns)."""
    size = face_ids.shape[axis] - 1
    ids = [face_ids.narrow(axis, start, size) for start in (0, 1)]
    near = [depths.narrow(axis, start, size) for start in (0, 1)]
    image, y, x = (ids[0] != ids[1]).nonzero(as_tuple=True)
    pair = [value[image, y, x] for value in (*ids, *near)]
    front = ((pair[0] < 0) | ((pair[1] >= 0) & ~(pair[2] <= pair[3]))).long()
    face, other = torch.where(front == 0, pair[0], pair[1]).long(), torch.where(front == 0, pair[1], pair[0]).long()
    step = (int(axis == 2), int(axis == 1))
    at = [(x + step[0] * which, y + step[1] * which) for which in (front, 1 - front)]
    with torch.no_grad():
        face, edge, blends = _silhouettes(positions, triangles, neighbors, image, face, other, at, axis)
    image, face, edge = image[blends], face[blends], edge[blends]
    at = [(px[blends], py[blends]) for px, py in at]
    corners = positions[image[:, None], triangles[face]]
    edges_front, edges_back = (edge_functions(corners, px + 0.5, py + 0.5).gather(1, edge[:, None])[:, 0] for px, py in at)
    first = edges_front / (edges_front - edges_back)
    to_back = first > 0.5
    weight = torch.where(to_back, first - 0.5, 0.5 - first).to(colors.dtype)[:, None]
    spots = [(image, py, px) for px, py in at]
    target = [torch.where(to_back, spots[1][n], spots[0][n]) for n in range(3)]
    source = [torch.where(to_back, spots[0][n], spots[1][n]) for n in range(3)]
    change = weight * (colors[tuple(source)] - colors[tuple(target)])
    return torch.zeros_like(colors).index_put(tuple(target), change, accumulate=True)


def _silhouettes(
    positions: Tensor,
    triangles: Tensor,
    neighbors: Tensor,
    image: Tensor,
    face: Tensor,
    other: Tensor,
    at: list[tuple[Tensor, Tensor]],
    axis: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Follow the surface from the first of two centers: the face and edge where it ends, and which pairs blend there."""
    mesh = positions, triangles, neighbors
    face, edge = face.clone(), torch.zeros_like(face)
    # Faces at an edge that is not a silhouette are one surface, even if it folds between their centers.
    are_one = torch.zeros_like(face, dtype=torch.bool)
    for i in range(3):
        is_behind = (other >= 0) & (neighbors[face, i] == other)
        are_one |= is_behind & ~_ends_at(*mesh, image, face, torch.full_like(face, i))[0]
    rows = (~are_one).nonzero(as_tuple=True)[0]
    blends: list[Tensor] = [rows[:0]]
    for _ in range(_WALK):
        corners = positions[image[rows][:, None], triangles[face[rows]]]
        front, back = (edge_functions(corners, px[rows] + 0.5, py[rows] + 0.5) for px, py in at)
        sign = torch.where((front * corners[..., 3]).sum(-1, keepdim=True) > 0, 1.0, -1.0)
        leaves = sign * (front - back) > 0
        first, out = torch.where(leaves, front / (front - back), 2.0).min(-1)
        edge[rows] = out
        ends, lines = _ends_at(*mesh, image[rows], face[rows], out)
        along_x, along_y = lines[:, 0].abs(), lines[:, 1].abs()
        steep = along_x >= along_y if axis == 2 else along_y > along_x
        crosses = (first >= 0) & (first <= 1)
        blends.append(rows[crosses & ends & steep])
        behind = neighbors[face[rows], out]
        follow = crosses & ~ends & (behind != other[rows])
        face[rows[follow]] = behind[follow]
        rows = rows[follow]
    return face, edge, torch.cat(blends).sort().values


def _ends_at(
    positions: Tensor, triangles: Tensor, neighbors: Tensor, image: Tensor, face: Tensor, edge: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether the surface ends at an edge of each face, and the edge as a line: nothing is behind it, the face behind
    it folds back to the same side, or is seen edge-on and covers nothing."""
    corners = positions[image[:, None], triangles[face]]
    n = torch.arange(len(face), device=face.device)
    own, j, k = (corners[n, (edge + shift) % 3][:, [0, 1, 3]] for shift in range(3))
    j_id, k_id = (triangles[face, (edge + shift) % 3][:, None] for shift in (1, 2))
    behind = neighbors[face, edge]
    others = triangles[behind.clamp(min=0)]
    far = others.gather(1, ((others != j_id) & (others != k_id)).byte().argmax(1, keepdim=True))[:, 0]
    lines = torch.linalg.cross(j, k)
    along = lines * positions[image, far][:, [0, 1, 3]]
    folds = (lines * own).sum(-1) * along.sum(-1) > 0
    edge_on = along.sum(-1).abs() <= _EDGE_ON * along.abs().sum(-1)
    return (behind < 0) | folds | edge_on, lines
