"""Features of voxels from their points: the dynamic encoder of LION, with two layers and no limit of points per voxel."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vision3d.stages.detect.config import GridConfig
from vision3d.stages.detect.voxels.grid import coords_of, keys_of


@dataclass(frozen=True)
class PointBatch:
    """Points of several samples."""

    points: Float[Tensor, "p 4"]
    """x y z [m], intensity in [0, 1]."""
    sample: Int64[Tensor, " p"]
    """Sample of each point, ascending."""
    num_samples: int

    @classmethod
    def of(cls, clouds: list[Tensor]) -> "PointBatch":
        """Concatenate clouds (n, 4); empty ones are allowed."""
        sizes = torch.tensor([len(cloud) for cloud in clouds])
        return cls(torch.cat(clouds), torch.repeat_interleave(torch.arange(len(clouds)), sizes), len(clouds))

    def to(self, device: torch.device) -> "PointBatch":
        return PointBatch(self.points.to(device), self.sample.to(device), self.num_samples)


@dataclass(frozen=True)
class Cells:
    """The occupied cells of a grid, sorted by sample, x, y, z."""

    coords: Int64[Tensor, "m 4"]
    """Sample, x, y, z."""
    cell_of_point: Int64[Tensor, " p"]
    """Row of `coords` of each kept point."""
    kept: Int64[Tensor, " p"]
    """The points inside the grid."""


def occupied_cells(batch: PointBatch, grid: GridConfig, shape: tuple[int, int, int]) -> Cells:
    """The cells that contain points; points outside the grid are dropped."""
    low = batch.points.new_tensor(grid.low)
    size = batch.points.new_tensor([(b - a) / n for a, b, n in zip(grid.low, grid.high, shape)])
    place = torch.floor((batch.points[:, :3] - low) / size).long()
    limits = torch.tensor(shape, device=place.device)
    kept = ((place >= 0) & (place < limits)).all(1).nonzero()[:, 0]
    keys, inverse = keys_of(torch.cat([batch.sample[kept, None], place[kept]], 1), shape).unique(
        sorted=True, return_inverse=True
    )
    return Cells(coords_of(keys, shape), inverse, kept)


class PointEncoder(nn.Module):
    """Features of cells: two times linear layer, batch norm, ReLU and the maximum over the points of a cell.

    Args:
        channels: Features of a cell.
        grid: The grid.
        shape: Its cells along x, y, z; a pillar has 1 along z.
        intensity: Whether the intensity is used.
    """

    def __init__(self, channels: int, grid: GridConfig, shape: tuple[int, int, int], intensity: bool = True) -> None:
        super().__init__()
        self.grid, self.shape, self.intensity = grid, shape, intensity
        half = max(channels // 2, 1)
        self.first = nn.Sequential(nn.Linear(10, half, bias=False), nn.BatchNorm1d(half, eps=1e-3, momentum=0.01), nn.ReLU())
        self.second = nn.Sequential(
            nn.Linear(2 * half, channels, bias=False), nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01), nn.ReLU()
        )
        self.channels = channels

    def forward(self, batch: PointBatch) -> tuple[Float[Tensor, "m c"], Cells]:
        """Features of the occupied cells, and the cells."""
        cells = occupied_cells(batch, self.grid, self.shape)
        count, at = len(cells.coords), cells.cell_of_point
        points = batch.points[cells.kept]
        if not count:
            return points.new_zeros(0, self.channels), cells
        xyz = points[:, :3]
        number = xyz.new_zeros(count).index_add(0, at, torch.ones_like(xyz[:, 0]))
        mean = xyz.new_zeros(count, 3).index_add(0, at, xyz) / number[:, None]
        size = xyz.new_tensor([(b - a) / n for a, b, n in zip(self.grid.low, self.grid.high, self.shape)])
        center = (cells.coords[:, 1:].to(xyz) + 0.5) * size + xyz.new_tensor(self.grid.low)
        intensity = points[:, 3:4] if self.intensity else torch.zeros_like(points[:, 3:4])
        features = torch.cat([xyz, intensity, xyz - mean[at], xyz - center[at]], 1)
        features = self.first(features)
        features = self.second(torch.cat([features, _maximum(features, at, count)[at]], 1))
        return _maximum(features, at, count), cells


def _maximum(features: Tensor, at: Tensor, count: int) -> Tensor:
    """Maximum over the points of each cell; features are not negative, after ReLU."""
    index = at[:, None].expand_as(features)
    return features.new_zeros(count, features.shape[1]).scatter_reduce(0, index, features, "amax", include_self=True)
