"""Floors of meshes: sample points for finding them, parts standing on them, and their extent."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.geometry.mesh import boundary_edges, connected_faces, face_areas, face_normals
from vision3d.geometry.surface_points import sample_faces
from vision3d.stages.simulate.scene.filling import Surface
from vision3d.stages.simulate.scene.upright import FACING, Floor

_SAMPLES = 20_000
_MIN_PART = 0.2  # minimum fraction of the floor's area for a part to belong to the floor
_OPEN = 0.02  # maximum fraction of border edges of a closed part


def surface_samples(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], seed: int = 0
) -> tuple[Float[Tensor, "n 3"], Int64[Tensor, " n"]]:
    """Points sampled uniformly by area, for any number and size of faces, and the face of each."""
    rows, weights = sample_faces(vertices, faces, _SAMPLES, torch.Generator().manual_seed(seed))
    points = (weights[:, :, None] * vertices.double()[faces[rows]]).sum(1)
    return points, rows


def stands_on(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], floor: Floor) -> Bool[Tensor, " v"]:
    """Vertices of parts standing on the floor: connected parts that are mostly above it, down to their feet.

    For a part that contains the floor, only what is above it.
    """
    heights = vertices.double() @ floor.normal - floor.height
    is_low = heights < floor.thickness
    areas, (count, part) = face_areas(vertices.double(), faces), connected_faces(faces)

    def of_parts(rows: Tensor) -> Tensor:
        return areas.new_zeros(count).index_add_(0, part[rows], areas[rows])

    total = of_parts(torch.ones_like(part, dtype=torch.bool))
    above = of_parts(heights[faces].mean(1) >= floor.thickness)
    carrying = of_parts((heights[faces].abs() < floor.thickness).all(1))
    is_fused = carrying >= _MIN_PART * carrying.sum()
    rises = ~is_fused & (above > 0.5 * total)
    found = torch.zeros(len(vertices), dtype=torch.bool)
    found[faces[rises[part]].flatten()] = True
    loose = faces[is_fused[part]].flatten()
    found[loose[~is_low[loose]]] = True
    return found


def floor_faces(
    vertices: Float[Tensor, "v 3"],
    faces: Int64[Tensor, "f 3"],
    normal: Float[Tensor, " 3"],
    height: float,
    thickness: float,
    step: float,
    space: tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]],
) -> Surface:
    """Points of the faces of a floor, about a step apart, as splats of zero size.

    Args:
        vertices: [m].
        faces: Static faces.
        normal: Unit normal of the floor.
        height: Height of the floor along it [m].
        thickness: Maximum distance of its faces from the plane [m].
        step: [m].
        space: Lower and upper corner of the relevant space [m].
    """
    level = face_normals(vertices.double(), faces) @ normal > FACING
    pieces = torch.cat([torch.zeros(0, 3, dtype=torch.float64), *_pieces(vertices.double()[faces[level]], step, space)])
    means = pieces[(pieces @ normal - height).abs() < thickness]
    quats = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(len(means), 4)
    return Surface(means, quats, torch.zeros_like(means), torch.ones(len(means)))


def closed_faces(faces: Int64[Tensor, "f 3"]) -> Int64[Tensor, "g 3"]:
    """Faces of connected parts that are closed: all but a few edges have two faces."""
    count, part = connected_faces(faces)
    edges = torch.bincount(part, minlength=count) * 1.5
    vertex_part = torch.zeros(int(faces.max()) + 1, dtype=torch.int64)
    vertex_part[faces.flatten()] = part.repeat_interleave(3)
    rims = torch.bincount(vertex_part[boundary_edges(faces)[:, 0]], minlength=count)
    return faces[(rims <= _OPEN * edges)[part]]


def _pieces(
    corners: Float[Tensor, "f 3 3"], step: float, space: tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]
) -> Iterator[Float[Tensor, "n 3"]]:
    """Centers of pieces of faces with edges of at most a step, for faces that reach into the space."""
    while len(corners):
        near = (corners.amax(1) >= space[0]) & (corners.amin(1) <= space[1])
        corners = corners[near.all(-1)]
        edges = torch.linalg.vector_norm(corners - corners.roll(-1, 1), dim=-1)
        lengths, longest = edges.max(1)
        is_small = lengths <= step
        yield corners[is_small].mean(1)
        # Faces are bisected at their longest edge; corner 0 starts it if it is the first edge.
        order = (longest[~is_small, None] + torch.arange(3)) % 3
        a, b, c = corners[~is_small].gather(1, order[..., None].expand(-1, -1, 3)).unbind(1)
        middle = (a + b) / 2
        corners = torch.cat([torch.stack([a, middle, c], 1), torch.stack([middle, b, c], 1)])
