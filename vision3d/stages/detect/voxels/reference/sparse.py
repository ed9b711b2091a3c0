"""Plain torch versions of the operations on sparse grids: the reference of the tests and the fallback without kernels."""

import torch
from torch import Tensor

from vision3d.stages.detect.voxels.voxels import Triple, keys_of


def voxel_neighbors(coords: Tensor, grid: Triple, size: Triple) -> Tensor:
    """Index of the voxel at each offset of a kernel (K, M), -1 where there is none; int32."""
    ranges = [torch.arange(-(n // 2), n // 2 + 1, device=coords.device) for n in size]
    offsets = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64, device=coords.device), *ranges)
    at = coords[None] + offsets[:, None]
    if len(coords) == 0:
        return coords.new_empty(at.shape[:2], dtype=torch.int32)
    is_inside = ((at[..., 1:] >= 0) & (at[..., 1:] < at.new_tensor(grid))).all(-1)
    keys, wanted = keys_of(coords, grid), keys_of(at.flatten(0, 1), grid).view(at.shape[:2])
    found = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.where(is_inside & (keys[found] == wanted), found, -1).to(torch.int32)


def submanifold_conv(features: Tensor, neighbors: Tensor, weights: Tensor) -> Tensor:
    """Sum over the offsets of the neighbor's features times the offset's weights."""
    out = features.new_zeros(len(features), weights.shape[2])
    for column, own in zip(neighbors, weights):
        rows = (column >= 0).nonzero()[:, 0]
        out = out.index_add(0, rows, features[column[rows].long()] @ own)
    return out


def segment_sum(values: Tensor, inverse: Tensor, count: int) -> Tensor:
    """Sums of the rows with the same index."""
    return values.new_zeros(count, values.shape[1]).index_add(0, inverse, values)


def segment_max(values: Tensor, inverse: Tensor, count: int) -> Tensor:
    """Maxima of the rows with the same index; a gradient is shared by equal rows."""
    index = inverse[:, None].expand_as(values)
    return values.new_zeros(count, values.shape[1]).scatter_reduce(0, index, values, "amax", include_self=False)
