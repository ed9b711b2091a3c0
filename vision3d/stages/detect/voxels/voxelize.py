"""Points to voxels without limits on points per voxel or voxels (dynamic voxelization, Zhou et al. 2020)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.stages.detect.voxels.segments import Segments, expand, segment_mean
from vision3d.stages.detect.voxels.voxels import Triple, check_grid, coords_of, keys_of


class PointVoxels(NamedTuple):
    """The voxels that contain points, and the points of each."""

    coords: Int64[Tensor, "m 4"]
    """batch x y z, unique and sorted."""
    kept: Int64[Tensor, " k"]
    """Indices of the points inside of the grid."""
    segments: Segments
    """Voxel of each kept point."""
    low: tuple[float, float, float]
    voxel_size: tuple[float, float, float]
    grid: Triple

    @property
    def centers(self) -> Float[Tensor, "m 3"]:
        """Centers of the voxels [m], float64."""
        size, low = (torch.tensor(v, dtype=torch.float64, device=self.coords.device) for v in (self.voxel_size, self.low))
        return low + (self.coords[:, 1:] + 0.5) * size


def voxelize(
    points: Float[Tensor, "n c"],
    batch: Int64[Tensor, " n"],
    *,
    low: tuple[float, float, float],
    voxel_size: tuple[float, float, float],
    grid: Triple,
    batch_size: int,
) -> PointVoxels:
    """Assign points to voxels; those outside of the grid are dropped.

    Args:
        points: x y z [m], then any values.
        batch: Sample of each point.
        low: Lower corner of the grid [m].
        voxel_size: [m].
        grid: Cells along x, y, z.
        batch_size: Number of samples; some may have no points.

    Raises:
        InputError: A coordinate is not finite, a voxel size is not positive, or a sample is not in the batch.
        ShapeError: A shape or dtype is wrong.
    """
    check_grid(grid, batch_size)
    if points.ndim != 2 or points.shape[1] < 3 or not points.is_floating_point():
        raise ShapeError("points", points.shape if points.is_floating_point() else points.dtype, "(N, 3 or more) floats")
    if batch.shape != points.shape[:1] or batch.dtype != torch.int64:
        raise ShapeError("batch", batch.shape if batch.dtype == torch.int64 else batch.dtype, f"({len(points)},) int64")
    if min(voxel_size) <= 0:
        raise InputError(f"voxel_size: got {tuple(voxel_size)}, want positive sizes")
    xyz = points[:, :3].detach().double()
    if not bool(torch.isfinite(xyz).all() & (batch >= 0).all() & (batch < batch_size).all()):
        bad = int((~torch.isfinite(xyz).all(1) | (batch < 0) | (batch >= batch_size)).nonzero()[0])
        raise InputError(
            f"points: point {bad} is {xyz[bad].tolist()} in sample {int(batch[bad])}, want finite coordinates and samples 0 to "
            f"{batch_size - 1}"
        )
    # In float64: a float32 quotient moves points at the border of a cell to the next one.
    columns = ((xyz - xyz.new_tensor(low)) / xyz.new_tensor(voxel_size)).floor().T.contiguous()
    x, y, z = ((column >= 0) & (column < cells) for column, cells in zip(columns, grid))
    kept = (x & y & z).nonzero()[:, 0]
    coords = torch.stack([batch[kept], *(column[kept].long() for column in columns)], 1)
    keys, segments = Segments.of_keys(keys_of(coords, grid))
    return PointVoxels(coords_of(keys, grid), kept, segments, low, voxel_size, grid)


def describe_points(points: Float[Tensor, "n c"], found: PointVoxels) -> Float[Tensor, "k c+6"]:
    """The kept points with their offsets from the mean of their voxel's points and from its center [m]."""
    values = points[found.kept]
    xyz = values[:, :3]
    means = expand(segment_mean(xyz, found.segments), found.segments)
    centers = expand(found.centers.to(xyz.dtype), found.segments)
    return torch.cat([values, xyz - means, xyz - centers], 1)
