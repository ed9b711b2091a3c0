"""Voxels of a batch of sparse grids."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError

MAX_CELLS = 2**40
MAX_BATCH = 2**20
Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Voxels:
    """M occupied voxels of `batch_size` grids of equal size; a grid may be empty."""

    coords: Int64[Tensor, "m 4"]
    """batch x y z, unique and sorted."""
    features: Float[Tensor, "m c"]
    grid: Triple
    """Cells along x, y, z."""
    batch_size: int

    def __post_init__(self) -> None:
        check_grid(self.grid, self.batch_size)
        if self.coords.ndim != 2 or self.coords.shape[1] != 4 or self.coords.dtype != torch.int64:
            got = self.coords.shape if self.coords.dtype == torch.int64 else self.coords.dtype
            raise ShapeError("coords", got, "(M, 4) int64")
        if self.features.ndim != 2 or len(self.features) != len(self.coords):
            raise ShapeError("features", self.features.shape, f"({len(self.coords)}, channels)")

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def counts(self) -> Int64[Tensor, " b"]:
        """Number of voxels of each grid."""
        return torch.bincount(self.coords[:, 0], minlength=self.batch_size)

    def with_features(self, features: Float[Tensor, "m c"]) -> "Voxels":
        """The same voxels with other features."""
        return replace(self, features=features)


def check_grid(grid: Triple, batch_size: int) -> None:
    """Raise InputError unless the keys of all cells fit into 62 bits."""
    if min(grid) < 1 or grid[0] * grid[1] * grid[2] > MAX_CELLS:
        raise InputError(f"grid: got {' x '.join(map(str, grid))} cells, want at least 1 along each axis and at most 2^40")
    if not 0 <= batch_size <= MAX_BATCH:
        raise InputError(f"batch_size: got {batch_size}, want 0 to 2^20")


def keys_of(coords: Int64[Tensor, "m 4"], grid: Triple) -> Int64[Tensor, " m"]:
    """Numbers of the cells in the order batch, x, y, z."""
    batch, x, y, z = coords.unbind(1)
    return ((batch * grid[0] + x) * grid[1] + y) * grid[2] + z


def coords_of(keys: Int64[Tensor, " m"], grid: Triple) -> Int64[Tensor, "m 4"]:
    """The inverse of `keys_of`."""
    rows, z = keys.div(grid[2], rounding_mode="floor"), keys.remainder(grid[2])
    columns, y = rows.div(grid[1], rounding_mode="floor"), rows.remainder(grid[1])
    return torch.stack([columns.div(grid[0], rounding_mode="floor"), columns.remainder(grid[0]), y, z], 1)
