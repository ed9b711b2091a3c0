"""Sets of voxels, and their keys."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Voxels:
    """Occupied voxels of several samples, sorted by sample, x, y, z, each at most once."""

    features: Float[Tensor, "m c"]
    coords: Int64[Tensor, "m 4"]
    """Sample, x, y, z."""
    shape: Shape
    """Cells of the grid along x, y, z."""
    num_samples: int

    def with_features(self, features: Tensor) -> "Voxels":
        """The same voxels with other features."""
        return replace(self, features=features)

    @property
    def samples(self) -> Int64[Tensor, " m"]:
        """The sample of each voxel."""
        return self.coords[:, 0]

    def __len__(self) -> int:
        return len(self.features)


def keys_of(coords: Int64[Tensor, "m 4"], shape: Shape) -> Int64[Tensor, " m"]:
    """Keys whose order is that of sample, x, y, z; int64, so that they cannot overflow for grids below 2^60 cells."""
    sample, x, y, z = coords.unbind(1)
    return ((sample * shape[0] + x) * shape[1] + y) * shape[2] + z


def coords_of(keys: Int64[Tensor, " m"], shape: Shape) -> Int64[Tensor, "m 4"]:
    """The inverse of `keys_of`."""
    z, rest = keys % shape[2], keys // shape[2]
    y, rest = rest % shape[1], rest // shape[1]
    return torch.stack([rest // shape[0], rest % shape[0], y, z], 1)


def starts_of(samples: Int64[Tensor, " m"], num_samples: int) -> Int64[Tensor, " n"]:
    """First voxel of each sample, and the number of voxels; `samples` ascends."""
    return torch.searchsorted(samples.contiguous(), torch.arange(num_samples + 1, device=samples.device))
