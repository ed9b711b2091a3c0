"""Occupied cells of a grid, and the volumes that points represent."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def cell_volumes(x: Float[Tensor, "n 3"], spacing: float) -> Float[Tensor, " n"]:
    """Volumes [m^3] of points: those of their cells, shared by the points in each (as in PhysGaussian).

    The sum is the volume of the occupied cells, independent of the number of points; a side of length L counts as about L + h.
    """
    which, counts = occupied_cells(x, spacing)
    return spacing**3 / counts[which].to(x)


def occupied_cells(x: Float[Tensor, "n 3"], spacing: float) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " c"]]:
    """The cell of each point, and the number of points in each occupied cell."""
    low = x.amin(0) - spacing / 2  # so that the extreme points are not on a border of cells
    cells = ((x - low) / spacing).floor().long()
    keys = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
    _, which, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    return which, counts
