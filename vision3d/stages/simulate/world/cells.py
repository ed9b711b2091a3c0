"""Cells of a grid that have points, and the volumes that these stand for."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def cell_volumes(x: Float[Tensor, "n 3"], spacing: float) -> Float[Tensor, " n"]:
    """Volumes [m^3]: the cells that points are in, shared by the points of each (as in PhysGaussian).

    The sum is the volume of the cells with points, however many points there are; a side of length L counts as about L + h.
    """
    which, counts = occupied_cells(x, spacing)
    return spacing**3 / counts[which].to(x)


def occupied_cells(x: Float[Tensor, "n 3"], spacing: float) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " c"]]:
    """The cell that each point is in, and how many points each of these cells has."""
    low = x.amin(0) - spacing / 2  # no point is on the border of two cells by construction
    cells = ((x - low) / spacing).floor().long()
    keys = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
    _, which, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    return which, counts
