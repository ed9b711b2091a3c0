"""Merging of voxels to a coarser grid; `segments.expand` copies the coarse features back."""

from typing import NamedTuple

import torch

from vision3d.core.errors import InputError
from vision3d.stages.detect.voxels.segments import Segments, segment_sum
from vision3d.stages.detect.voxels.voxels import Triple, Voxels, coords_of, keys_of


class Merged(NamedTuple):
    """Coarse voxels, and the fine ones of each."""

    voxels: Voxels
    segments: Segments


def merge(voxels: Voxels, scale: Triple) -> Merged:
    """Voxels of `scale` times the size, with the sums of the features.

    Args:
        voxels: Repeated ones are merged, too, in any order.
        scale: Cells that become one along x, y, z; at a border they can be fewer.

    Raises:
        InputError: A scale is not positive.
    """
    if min(scale) < 1:
        raise InputError(f"scale: got {tuple(scale)}, want at least 1 along each axis")
    # Cells of an odd grid: ceil, so that different cells never get the same key.
    x, y, z = (-(-cells // step) for cells, step in zip(voxels.grid, scale))
    batch, cells = voxels.coords[:, :1], voxels.coords[:, 1:]
    coarse = torch.cat([batch, cells.div(cells.new_tensor(scale), rounding_mode="floor")], 1)
    keys, segments = Segments.of_keys(keys_of(coarse, (x, y, z)))
    features = segment_sum(voxels.features, segments)
    return Merged(Voxels(coords_of(keys, (x, y, z)), features, (x, y, z), voxels.batch_size), segments)
