"""Merging of voxels to a coarser grid, the way back, and the generation of voxels around strong ones."""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.stages.detect.voxels.grid import Shape, Voxels, coords_of, keys_of, starts_of

DIAGONALS = ((-1, 1), (1, 1), (-1, -1), (1, -1))
"""Offsets of generated voxels along x and y (Liu et al. 2024, section 3.4)."""


@dataclass(frozen=True)
class Merged:
    """Voxels of a coarser grid."""

    voxels: Voxels
    parents: Int64[Tensor, " m"]
    """The row of `voxels` that each merged voxel went into."""


def coarser(shape: Shape, scale: Shape) -> Shape:
    """Cells of the merged grid; a partial cell at the end counts."""
    return -(-shape[0] // scale[0]), -(-shape[1] // scale[1]), -(-shape[2] // scale[2])


def merge(voxels: Voxels, scale: Shape) -> Merged:
    """Sum the features of the voxels that fall into the same cell of a grid coarser by `scale` along x, y, z."""
    return merge_rows(voxels.features, voxels.coords, coarser(voxels.shape, scale), scale, voxels.num_samples)


def merge_rows(features: Float[Tensor, "m c"], coords: Int64[Tensor, "m 4"], shape: Shape, scale: Shape, count: int) -> Merged:
    """`merge` of voxels that need neither be sorted nor different."""
    cells = torch.cat([coords[:, :1], coords[:, 1:] // coords.new_tensor(scale)], 1)
    # Keys use the size of the coarse grid, rounded up, so that cells of odd grids stay different.
    keys, parents = keys_of(cells, shape).unique(sorted=True, return_inverse=True)
    total = features.new_zeros(len(keys), features.shape[1]).index_add(0, parents, features)
    return Merged(Voxels(total, coords_of(keys, shape), shape, count), parents)


def expand(fine: Voxels, coarse: Float[Tensor, "n c"], parents: Int64[Tensor, " m"]) -> Float[Tensor, "m c"]:
    """Features of fine voxels plus those of the coarse voxels that they were merged into."""
    return fine.features + coarse[parents]


def generated(voxels: Voxels, share: float) -> tuple[Float[Tensor, "n c"], Int64[Tensor, "n 4"]]:
    """The voxels and four new ones, with zero features, diagonally around each of the strongest.

    Strong are, in each sample, the `share` with the highest mean feature. New voxels are clamped to the grid and may lie on
    existing ones: merge the result.
    """
    strength = voxels.features.detach().mean(1)
    starts = starts_of(voxels.samples, voxels.num_samples).tolist()
    strong = [
        first + strength[first:last].topk(int(share * (last - first))).indices for first, last in itertools.pairwise(starts)
    ]
    rows = torch.cat(strong) if strong else voxels.coords.new_zeros(0)
    offsets = voxels.coords.new_tensor([(0, x, y, 0) for x, y in DIAGONALS])
    new = (voxels.coords[rows][None] + offsets[:, None]).flatten(0, 1)
    new[:, 1].clamp_(0, voxels.shape[0] - 1)
    new[:, 2].clamp_(0, voxels.shape[1] - 1)
    features = torch.cat([voxels.features, voxels.features.new_zeros(len(new), voxels.features.shape[1])])
    return features, torch.cat([voxels.coords, new])
