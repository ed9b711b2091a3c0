"""New voxels around those with the largest responses (LION, Liu et al. 2024): the sequence operators of the next block fill
them."""

import torch
from jaxtyping import Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.stages.detect.voxels.merging import Merged, merge
from vision3d.stages.detect.voxels.segments import sort_keys
from vision3d.stages.detect.voxels.voxels import Triple, Voxels

OFFSETS = ((0, -1, 1, 0), (0, 1, 1, 0), (0, -1, -1, 0), (0, 1, -1, 0))
"""batch x y z: the diagonal neighbors at the same height."""


def foreground(voxels: Voxels, fraction: float) -> Int64[Tensor, " k"]:
    """The voxels of each sample with the largest mean feature: `floor(fraction * count)` of them, largest first; ties in
    order."""
    if not 0 <= fraction <= 1:
        raise InputError(f"fraction: got {fraction}, want 0 to 1")
    batch, response = voxels.coords[:, 0], voxels.features.detach().mean(1)
    order = torch.argsort(response, descending=True, stable=True)
    order = order[sort_keys(batch[order])[1]]
    counts = voxels.counts
    batch = batch[order]
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[batch]
    # The factor keeps 0.1 * 30 from being 2.9999...
    return order[rank < (counts.double() * fraction * (1 + 1e-12)).floor().long()[batch]]


def generate(voxels: Voxels, scale: Triple = (1, 1, 2), *, fraction: float = 0.2) -> Merged:
    """Add the four diagonal neighbors of the foreground, clamped to the grid, with zero features, and merge.

    A neighbor in an occupied cell adds nothing to it.

    Args:
        scale: As in `merge`.
        fraction: Of the voxels of each sample that are foreground.

    Returns:
        Coarse voxels; the segments are those of the given voxels followed by the new ones.

    Raises:
        InputError: The fraction or the scale is invalid.
    """
    new = candidates(voxels, fraction)
    features = torch.cat([voxels.features, voxels.features.new_zeros(len(new), voxels.features.shape[1])])
    return merge(Voxels(torch.cat([voxels.coords, new]), features, voxels.grid, voxels.batch_size), scale)


def dilate(voxels: Voxels, size: Triple = (3, 3, 1)) -> Voxels:
    """Add the empty cells around each voxel, with zero features, so that a submanifold convolution can reach them.

    Args:
        size: Of the neighborhood along x, y, z, odd.

    Raises:
        InputError: A size is not odd and positive.
    """
    if any(n % 2 == 0 or n < 1 for n in size):
        raise InputError(f"size: got {tuple(size)}, want odd and positive numbers")
    steps = [torch.arange(-(n // 2), n // 2 + 1, device=voxels.coords.device) for n in size]
    offsets = torch.cartesian_prod(voxels.coords.new_zeros(1), *steps)
    moved = (voxels.coords[None] + offsets[:, None]).flatten(0, 1)
    cells = moved[:, 1:]
    new = moved[((cells >= 0) & (cells < cells.new_tensor(voxels.grid))).all(1)]
    features = torch.cat([voxels.features, voxels.features.new_zeros(len(new), voxels.features.shape[1])])
    return merge(Voxels(torch.cat([voxels.coords, new]), features, voxels.grid, voxels.batch_size), (1, 1, 1)).voxels


def candidates(voxels: Voxels, fraction: float = 0.2) -> Int64[Tensor, "n 4"]:
    """The four diagonal neighbors of each foreground voxel, clamped to the grid; some are occupied or repeated."""
    coords = voxels.coords[foreground(voxels, fraction)]
    moved = (coords[None] + coords.new_tensor(OFFSETS)[:, None]).flatten(0, 1)
    limits = coords.new_tensor([voxels.batch_size, *voxels.grid]) - 1
    return torch.minimum(moved.clamp(min=0), limits)
