"""Triangle meshes of the zero level set of values on a grid."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError

_CORNERS = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
_CELL_EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if int((_CORNERS[a] - _CORNERS[b]).abs().sum()) == 1]


def surface_nets(values: Float[Tensor, "x y z"]) -> tuple[Float[Tensor, "v 3"], Int64[Tensor, "f 3"]]:
    """The surface between positive values (inside) and others, one vertex per cell, two faces per crossed grid edge.

    Naive surface nets (Gibson 1998): the vertex of a cell is the mean of the zero crossings of its edges. The surface is
    closed unless there are positive values on the border of the grid.

    Args:
        values: At grid points (i, j, k).

    Returns:
        Vertices in grid units, and faces counter-clockwise seen from outside.

    Raises:
        ShapeError: The grid has fewer than 2 points along an axis.
        InputError: No value is positive, all are, or one is not finite.

    Example:
        >>> axis = torch.linspace(-1.5, 1.5, 24)
        >>> x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
        >>> vertices, faces = surface_nets(1 - x**2 - y**2 - z**2)
    """
    if values.ndim != 3 or min(values.shape) < 2 or not values.is_floating_point():
        raise ShapeError("values", tuple(values.shape), "(X, Y, Z) floats with at least 2 points along each axis")
    is_inside = values > 0
    if not bool(torch.isfinite(values).all()) or not bool(is_inside.any()) or bool(is_inside.all()):
        raise InputError("values: want finite numbers, some > 0 and some not: there is no surface otherwise")
    counts = _cell_corners(is_inside.to(values.dtype)).sum(-1)
    cells = ((counts > 0) & (counts < 8)).nonzero()
    index = torch.full(counts.shape, -1, dtype=torch.int64, device=values.device)
    index[tuple(cells.T)] = torch.arange(len(cells), device=values.device)
    vertices = cells + _crossings(_cell_corners(values)[tuple(cells.T)])
    faces = [_quads(is_inside, index, axis) for axis in range(3)]
    return vertices, torch.cat(faces)


def _cell_corners(values: Tensor) -> Tensor:
    """The values at the eight corners of each cell, last."""
    x, y, z = (size - 1 for size in values.shape)
    return torch.stack([values[i : i + x, j : j + y, k : k + z] for i, j, k in _CORNERS.tolist()], -1)


def _crossings(corners: Tensor) -> Tensor:
    """For each cell, the mean of the zero crossings of its edges, in [0, 1]^3."""
    places = _CORNERS.to(corners)
    total, count = corners.new_zeros(len(corners), 3), corners.new_zeros(len(corners), 1)
    for a, b in _CELL_EDGES:
        va, vb = corners[:, a], corners[:, b]
        crosses = ((va > 0) != (vb > 0))[:, None]
        share = torch.where(crosses[:, 0], va / torch.where(crosses[:, 0], va - vb, 1), 0)[:, None]
        total += torch.where(crosses, torch.lerp(places[a], places[b], share), 0)
        count += crosses
    return total / count


def _quads(is_inside: Tensor, index: Tensor, axis: int) -> Tensor:
    """Two faces for each zero crossing of grid edges along an axis, between the four cells around it."""
    turned = is_inside.movedim(axis, 0)  # the other axes keep their order: (y, z), (x, z), (x, y)
    cells = index.movedim(axis, 0)
    before, after = turned[:-1, 1:-1, 1:-1], turned[1:, 1:-1, 1:-1]
    edges = (before != after).nonzero()
    i, j, k = edges.T
    ring = torch.stack([cells[i, j, k], cells[i, j + 1, k], cells[i, j + 1, k + 1], cells[i, j, k + 1]], -1)
    # Seen along the axis the ring is counter-clockwise for x and z; (x, z) is left-handed about y.
    points_along = before[i, j, k] if axis != 1 else ~before[i, j, k]
    ring = torch.where(points_along[:, None], ring, ring.flip(1))
    return torch.cat([ring[:, [0, 1, 2]], ring[:, [0, 2, 3]]])
