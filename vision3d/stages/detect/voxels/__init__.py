"""Sparse voxels: from points to voxels, orders and groups for sequence operators, submanifold convolution, merging, generation.

Coordinates are rows `batch x y z` (int64), unique and sorted; features are rows of the same order. All functions work for any
device; on a CPU the native kernels give the same bits for any number of threads.
"""

from vision3d.stages.detect.voxels.convolution import SubmanifoldConv, submanifold_conv, voxel_neighbors
from vision3d.stages.detect.voxels.generation import dilate, foreground, generate
from vision3d.stages.detect.voxels.groups import Partition, apply_padded, apply_ragged, equal_groups
from vision3d.stages.detect.voxels.merging import Merged, merge
from vision3d.stages.detect.voxels.orders import window_order
from vision3d.stages.detect.voxels.segments import Segments, expand, segment_max, segment_mean, segment_sum
from vision3d.stages.detect.voxels.voxelize import PointVoxels, describe_points, voxelize
from vision3d.stages.detect.voxels.voxels import Voxels

__all__ = [
    "Merged",
    "Partition",
    "PointVoxels",
    "Segments",
    "SubmanifoldConv",
    "Voxels",
    "apply_padded",
    "apply_ragged",
    "describe_points",
    "dilate",
    "equal_groups",
    "expand",
    "foreground",
    "generate",
    "merge",
    "segment_max",
    "segment_mean",
    "segment_sum",
    "submanifold_conv",
    "voxel_neighbors",
    "voxelize",
    "window_order",
]
