"""Features of voxels from their points: the dynamic encoder of LION, with two layers and no limit of points per voxel."""

import torch
from torch import nn

from vision3d.stages.detect.config import GridConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.network.norms import RowNorm
from vision3d.stages.detect.voxels import Voxels, describe_points, expand, segment_max, voxelize
from vision3d.stages.detect.voxels.voxels import Triple


class PointEncoder(nn.Module):
    """Features of voxels: two times linear layer, batch norm, ReLU and the maximum over the points of a voxel.

    Args:
        channels: Features of a voxel.
        grid: The region.
        cells: Its cells along x, y, z; a pillar has 1 along z.
        intensity: Whether the intensity is used.
    """

    def __init__(self, channels: int, grid: GridConfig, cells: Triple, intensity: bool = True) -> None:
        super().__init__()
        self.grid, self.cells, self.intensity = grid, cells, intensity
        half = max(channels // 2, 1)
        self.first = nn.Sequential(nn.Linear(10, half, bias=False), RowNorm(half, eps=1e-3, momentum=0.01), nn.ReLU())
        self.second = nn.Sequential(
            nn.Linear(2 * half, channels, bias=False), RowNorm(channels, eps=1e-3, momentum=0.01), nn.ReLU()
        )
        self.channels = channels

    def forward(self, batch: PointBatch) -> Voxels:
        """The occupied voxels; points outside the grid are dropped."""
        size = [(high - low) / count for low, high, count in zip(self.grid.low, self.grid.high, self.cells)]
        found = voxelize(
            batch.points, batch.sample, low=self.grid.low, voxel_size=(size[0], size[1], size[2]), grid=self.cells,
            batch_size=batch.num_samples,
        )  # fmt: skip
        if not len(found.coords):
            return Voxels(found.coords, batch.points.new_zeros(0, self.channels), self.cells, batch.num_samples)
        features = describe_points(batch.points, found)
        if not self.intensity:
            features[:, 3] = 0
        features = self.first(features)
        around = expand(segment_max(features, found.segments), found.segments)
        features = self.second(torch.cat([features, around], 1))
        return Voxels(found.coords, segment_max(features, found.segments), self.cells, batch.num_samples)
