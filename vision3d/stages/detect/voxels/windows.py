"""Orders of voxels by windows, and groups of equal size (Liu et al. 2024, section 3.2)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from vision3d.stages.detect.voxels.grid import Shape, starts_of

Axis = Literal["x", "y"]


@dataclass(frozen=True)
class Sequences:
    """Voxels in the order of a window, cut into groups.

    A window only fixes the order: a group may span windows or end inside one, but never spans samples.
    """

    order: Int64[Tensor, " m"]
    """Rows of the voxels, in sequence."""
    starts: Int64[Tensor, " g"]
    """First place in `order` of each group, and the number of voxels."""


def window_order(coords: Int64[Tensor, "m 4"], shape: Shape, window: Shape, axis: Axis, shifted: bool) -> Int64[Tensor, " m"]:
    """Rows of the voxels sorted by sample, window, and position in the window.

    Args:
        coords: Sample, x, y, z.
        shape: Cells of the grid.
        window: Size of a window [cells].
        axis: Whether x or y is the slowest, for the windows and inside them.
        shifted: Shift the windows by half their size.
    """
    cells = coords[:, 1:] + coords.new_tensor([size // 2 if shifted else 0 for size in window])
    size = coords.new_tensor(window)
    place, inside = cells // size, cells % size
    number = [-(-length // width) + 1 for length, width in zip(shape, window)]
    axes = (0, 1, 2) if axis == "x" else (1, 0, 2)
    key = coords[:, 0]
    for i in axes:
        key = key * number[i] + place[:, i]
    for i in axes:
        key = key * window[i] + inside[:, i]
    return torch.argsort(key)


def equal_groups(samples: Int64[Tensor, " m"], num_samples: int, size: int) -> Int64[Tensor, " g"]:
    """Starts of groups of `size` voxels; the last of each sample is shorter, and samples without voxels have none.

    Args:
        samples: Sample of each voxel, ascending.
        num_samples: Number of samples.
        size: Voxels per group.
    """
    starts = starts_of(samples, num_samples)
    parts = [torch.arange(first, last, size) for first, last in zip(starts.tolist()[:-1], starts.tolist()[1:])]
    return torch.cat([*parts, torch.tensor([len(samples)])]).to(samples.device)


def sequences(
    coords: Int64[Tensor, "m 4"],
    shape: Shape,
    num_samples: int,
    *,
    window: Shape,
    size: int,
    axis: Axis,
    shifted: bool,
) -> Sequences:
    """The sequences of a layer; arguments as for `window_order` and `equal_groups`."""
    order = window_order(coords, shape, window, axis, shifted)
    return Sequences(order, equal_groups(coords[order, 0], num_samples, size))


def padded_rows(starts: Int64[Tensor, " g"], samples: Int64[Tensor, " m"], size: int) -> Int64[Tensor, "groups size"]:
    """Places of the sequence in groups of exactly `size`, as published.

    The end of a sample's last group repeats the voxels at the same places of the group before it, or its own from the start if
    there is none.

    Args:
        starts: Of `equal_groups`.
        samples: Sample of each place of the sequence.
        size: Voxels per group.
    """
    first, last = starts[:-1], starts[1:]
    inside = torch.arange(size, device=starts.device)[None]
    rows = first[:, None] + inside
    length = (last - first)[:, None]
    is_first = torch.ones_like(first, dtype=torch.bool)
    is_first[1:] = samples[first[1:]] != samples[first[1:] - 1]
    repeated = torch.where(is_first[:, None], first[:, None] + inside % length, rows - size)
    return torch.where(inside < length, rows, repeated)
