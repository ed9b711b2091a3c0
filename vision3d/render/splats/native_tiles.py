"""Tile lists of projected Gaussians as a `torch.library` op on the compiled kernels."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int32, Int64
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import BackendError, InputError
from vision3d.core.op_checks import check_image_size, check_memory
from vision3d.core.op_records import record_op
from vision3d.render.splats.native_support import image_offsets, plain
from vision3d.render.splats.records import TOO_MANY, Grid, Intersections, Projected, Projected2dgs, TileLists


class _Pairs(NamedTuple):
    means2d: Float[Tensor, "p 2"]
    radii: Int32[Tensor, "p 2"]
    depths: Float[Tensor, " p"]
    conics: Float[Tensor, "p 3"] | None
    opacities: Float[Tensor, " p"]
    image_ids: Int64[Tensor, " p"]
    grid: Grid


_Lists = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.no_grad()
def intersect(
    projected: Projected | Projected2dgs, opacities: Float[Tensor, " p"], image_ids: Int[Tensor, " p"], grid: Grid
) -> Intersections:
    """As `Kernels.intersect`."""
    pairs = (projected.means2d, projected.radii, projected.depths, projected.conics, opacities, image_ids)
    return _intersections(grid, _intersect(*pairs, *grid))


def intersect_by_sorting(
    projected: Projected | Projected2dgs, opacities: Float[Tensor, " p"], image_ids: Int[Tensor, " p"], grid: Grid
) -> Intersections:
    """The same with the steps of a GPU, for contiguous tensors."""
    pairs = (projected.means2d, projected.radii, projected.depths, projected.conics, opacities, image_ids)
    return _intersections(grid, _tiles_by_sorting(_Pairs(*pairs, grid)))


def _intersections(grid: Grid, found: _Lists) -> Intersections:
    tiles_per_gauss, isect_ids, flatten_ids, isect_offsets = found
    return Intersections(tiles_per_gauss, isect_ids, TileLists(*grid[1:], isect_offsets, flatten_ids))


@record_op("intersect_tiles")
def _intersect(a: _Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_image_size(*a.grid)
    means2d, radii, depths, opacities = map(plain, (a.means2d, a.radii, a.depths, a.opacities))
    conics = None if a.conics is None else plain(a.conics)
    image_ids, num_images = a.image_ids, a.grid.num_images
    if image_ids.device.type == "cpu" and num_images != 1 and len(image_ids):
        low, high = map(int, image_ids.aminmax())
        if low < 0 or high >= num_images:
            raise InputError(f"image_ids: got {low} to {high}, want 0 to {num_images - 1}")
    if not native.is_on_cpu(depths) or depths.dtype != torch.float32:
        return _tiles_by_sorting(_Pairs(means2d, radii, depths, conics, opacities, image_ids, a.grid))
    offsets = image_offsets(image_ids, num_images)
    try:
        lists = native.require().Intersections(offsets, means2d, radii, depths, conics, opacities, *a.grid[1:])
    except ValueError as error:  # more than 2^31 of something
        raise BackendError(str(error)) from None
    check_memory(depths, 3 * lists.total, f"{lists.total} tile intersections")
    outputs = _empty_lists(depths, a.grid, lists.total)
    lists.fill(*outputs)
    return outputs


def _tiles_by_sorting(a: _Pairs) -> _Lists:
    """Tile lists with the steps of a GPU: count, sort by depth, fill in that order, sort by tile.

    Inputs are contiguous. The CPU only waits for the total count.
    """
    depths, module, where = a.depths, native.require(), native.where(a.depths)
    gaussians, grid = a[:5], a.grid[1:]
    integers = {"dtype": torch.int32, "device": depths.device}
    counts, ids = (torch.empty(len(depths), **integers) for _ in range(2))
    keys = torch.empty_like(depths, dtype=torch.int32 if depths.dtype == torch.float32 else torch.int64)
    module.count_tiles(*gaussians, *grid, counts, keys, ids, **where)
    _, order = _sort(keys, ids, 8 * keys.element_size())
    ends = counts[order].cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if total > torch.iinfo(torch.int32).max:
        raise BackendError(TOO_MANY.format(total))
    lists = _empty_lists(depths, a.grid, total)
    keys, ids = (torch.empty(total, **integers) for _ in range(2))
    module.fill_tiles(*gaussians, *grid, order, ends, a.image_ids.contiguous(), keys, ids, **where)
    keys, ids = _sort(keys, ids, lists[3].numel().bit_length())
    module.finish_tiles(depths, *grid, keys, ids, lists[1], lists[3], **where)
    return counts, lists[1], ids, lists[3]


def _sort(keys: Tensor, ids: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    module, where = native.require(), native.where(keys)
    outputs = torch.empty_like(keys), torch.empty_like(ids)
    scratch = keys.new_empty(module.sort_scratch(keys, **where), dtype=torch.uint8)
    module.sort_pairs(keys, ids, bits, *outputs, scratch, **where)
    return outputs


def _empty_lists(depths: Tensor, grid: Grid, total: int | torch.SymInt) -> _Lists:
    tiles = (grid.num_images, -(-grid.height // grid.tile_size), -(-grid.width // grid.tile_size))
    per_pair, flatten_ids, offsets = (depths.new_empty(shape, dtype=torch.int32) for shape in ((len(depths),), (total,), tiles))
    return per_pair, depths.new_empty(total, dtype=torch.int64), flatten_ids, offsets


_intersect.register_fake(lambda a: _empty_lists(a.depths, a.grid, torch.library.get_ctx().new_dynamic_size()))
