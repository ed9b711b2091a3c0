"""Orders of voxels for sequence operators: window by window, along x or along y (LION, Liu et al. 2024)."""

from typing import Literal

from jaxtyping import Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.stages.detect.voxels.segments import sort_keys
from vision3d.stages.detect.voxels.voxels import Triple

Axis = Literal["x", "y"]


def window_order(
    coords: Int64[Tensor, "m 4"], grid: Triple, window: Triple, *, axis: Axis, shifted: bool = False
) -> Int64[Tensor, " m"]:
    """Indices of the voxels sorted by sample, by window, and within a window.

    Both windows and voxels are sorted by x, y, z for the axis "x" and by y, x, z for "y". A shift moves the windows by half
    their size.

    Args:
        coords: batch x y z, unique.
        grid: Cells along x, y, z.
        window: Cells of a window along x, y, z.

    Raises:
        InputError: The axis or the window is invalid.
    """
    if axis not in ("x", "y"):
        raise InputError(f"axis: got {axis!r}, want x or y")
    if min(window) < 1:
        raise InputError(f"window: got {tuple(window)}, want at least one cell along each axis")
    cells = coords[:, 1:]
    if shifted:
        cells = cells + cells.new_tensor([size // 2 for size in window])
    size = cells.new_tensor(window)
    windows = cells.div(size, rounding_mode="floor")
    inner = cells - windows * size
    counts = [-(-cells // width) + 1 for cells, width in zip(grid, window)]
    first, second = (0, 1) if axis == "x" else (1, 0)
    key = coords[:, 0]
    for at, sizes in ((windows, counts), (inner, window)):
        for k in (first, second, 2):
            key = key * sizes[k] + at[:, k]
    return sort_keys(key)[1]
