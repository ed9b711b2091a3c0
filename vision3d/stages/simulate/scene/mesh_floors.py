"""Floors among the faces of a mesh: points that find them, what stands on them, and how far they reach."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.geometry.mesh import boundary_edges, connected_faces, face_areas, face_normals
from vision3d.stages.simulate.scene.filling import Surface
from vision3d.stages.simulate.scene.upright import FACING, Floor

_SAMPLES = 20_000
_LEAST_PART = 0.2  # of the floor's area, from which a connected part is the floor, or fused with it
_OPEN = 0.02  # of a part's edges may have one face where the part counts as closed


def surface_samples(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], seed: int = 0
) -> tuple[Float[Tensor, "n 3"], Int64[Tensor, " n"]]:
    """Points drawn evenly by area, however few or small the faces are, and the face of each."""
    generator = torch.Generator().manual_seed(seed)
    areas = face_areas(vertices.double(), faces).cumsum(0)
    drawn = torch.rand(_SAMPLES, generator=generator, dtype=torch.float64) * areas[-1]
    rows = torch.searchsorted(areas, drawn).clamp(max=len(faces) - 1)
    corners = torch.rand(_SAMPLES, 2, generator=generator, dtype=torch.float64)
    corners = torch.where(corners.sum(1, keepdim=True) > 1, 1 - corners, corners)
    weights = torch.cat([1 - corners.sum(1, keepdim=True), corners], 1)
    points = (weights[:, :, None] * vertices.double()[faces[rows]]).sum(1)
    return points, rows


def stands_on(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], floor: Floor) -> Bool[Tensor, " v"]:
    """Vertices of what stands on the floor: connected parts that are mostly above it, down to their feet.

    Of a part that the floor belongs to only what is above it counts.
    """
    heights = vertices.double() @ floor.normal - floor.height
    is_low = heights < floor.thickness
    areas, (count, part) = face_areas(vertices.double(), faces), connected_faces(faces)

    def of_parts(rows: Tensor) -> Tensor:
        return areas.new_zeros(count).index_add_(0, part[rows], areas[rows])

    total = of_parts(torch.ones_like(part, dtype=torch.bool))
    above = of_parts(heights[faces].mean(1) >= floor.thickness)
    carrying = of_parts((heights[faces].abs() < floor.thickness).all(1))
    is_fused = carrying >= _LEAST_PART * carrying.sum()
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
    """Points of the faces of a floor, about a step apart, as splats without size.

    Args:
        vertices: [m].
        faces: That stand still.
        normal: Of the floor, unit.
        height: Of the floor along it [m].
        thickness: How far from the plane its faces may be [m].
        step: [m].
        space: Lower and upper corner of where the floor matters [m].
    """
    level = face_normals(vertices.double(), faces) @ normal > FACING
    pieces = torch.cat([torch.zeros(0, 3, dtype=torch.float64), *_pieces(vertices.double()[faces[level]], step, space)])
    means = pieces[(pieces @ normal - height).abs() < thickness]
    quats = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(len(means), 4)
    return Surface(means, quats, torch.zeros_like(means), torch.ones(len(means)))


def closed_faces(faces: Int64[Tensor, "f 3"]) -> Int64[Tensor, "g 3"]:
    """Those of connected parts that have an inside: all but a few edges have two faces."""
    count, part = connected_faces(faces)
    edges = torch.bincount(part, minlength=count) * 1.5
    vertex_part = torch.zeros(int(faces.max()) + 1, dtype=torch.int64)
    vertex_part[faces.flatten()] = part.repeat_interleave(3)
    rims = torch.bincount(vertex_part[boundary_edges(faces)[:, 0]], minlength=count)
    return faces[(rims <= _OPEN * edges)[part]]


def _pieces(
    corners: Float[Tensor, "f 3 3"], step: float, space: tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]
) -> Iterator[Float[Tensor, "n 3"]]:
    """Middles of pieces of faces with edges of at most a step, of those that reach into the space."""
    while len(corners):
        near = (corners.amax(1) >= space[0]) & (corners.amin(1) <= space[1])
        corners = corners[near.all(-1)]
        edges = torch.linalg.vector_norm(corners - corners.roll(-1, 1), dim=-1)
        lengths, longest = edges.max(1)
        is_small = lengths <= step
        yield corners[is_small].mean(1)
        # The longest edge of a larger one is halved; it begins at corner 0 when that is the first.
        order = (longest[~is_small, None] + torch.arange(3)) % 3
        a, b, c = corners[~is_small].gather(1, order[..., None].expand(-1, -1, 3)).unbind(1)
        middle = (a + b) / 2
        corners = torch.cat([torch.stack([a, middle, c], 1), torch.stack([middle, b, c], 1)])
