"""Tile lists of projected Gaussians as a `torch.library` op on the compiled kernels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vision3d import native
from vision3d.errors import BackendError, InputError
from vision3d.op_checks import check_image_size, check_memory, checked
from vision3d.render.splats.native_support import image_offsets, plain


def intersect(
    means2d: Float[Tensor, "nnz 2"],
    radii: Int[Tensor, "nnz 2"],
    depths: Float[Tensor, " nnz"],
    conics: Float[Tensor, "nnz 3"] | None,
    opacities: Float[Tensor, " nnz"],
    image_ids: Int[Tensor, " nnz"],
    num_images: int,
    width: int,
    height: int,
    tile_size: int,
) -> tuple[Int[Tensor, " nnz"], Int[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, "i th tw"]]:
    """Tile lists, front to back; pairs are sorted by image."""
    return native.direct(_intersect)(means2d, radii, depths, conics, opacities, image_ids, num_images, width, height, tile_size)


@native.custom_op("intersect_tiles")
@checked("means2d: float p 2, radii: int32 p 2, depths: float p, conics: float? p 3, opacities: float p, image_ids: int64 p")
def _intersect(
    means2d: Tensor,
    radii: Tensor,
    depths: Tensor,
    conics: Tensor | None,
    opacities: Tensor,
    image_ids: Tensor,
    num_images: int,
    width: int,
    height: int,
    tile_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_image_size(num_images, width, height, tile_size)
    means2d, radii, depths, opacities = map(plain, (means2d, radii, depths, opacities))
    conics = None if conics is None else plain(conics)
    grid = (width, height, tile_size)
    if image_ids.device.type == "cpu" and num_images != 1 and len(image_ids):
        low, high = map(int, image_ids.aminmax())
        if low < 0 or high >= num_images:
            raise InputError(f"image_ids: got {low} to {high}, want 0 to {num_images - 1}")
    if depths.device.type != "cpu" or depths.dtype != torch.float32:
        return tiles_by_sorting(means2d, radii, depths, conics, opacities, image_ids, num_images, *grid)
    offsets = image_offsets(image_ids, num_images)
    lists = native.require().Intersections(offsets, means2d, radii, depths, conics, opacities, *grid)
    check_memory(depths, 3 * lists.total, f"{lists.total} tile intersections")
    outputs = _empty_lists(depths, num_images, *grid, lists.total)
    lists.fill(*outputs)
    return outputs


def tiles_by_sorting(
    means2d: Float[Tensor, "nnz 2"],
    radii: Int[Tensor, "nnz 2"],
    depths: Float[Tensor, " nnz"],
    conics: Float[Tensor, "nnz 3"] | None,
    opacities: Float[Tensor, " nnz"],
    image_ids: Int[Tensor, " nnz"],
    num_images: int,
    width: int,
    height: int,
    tile_size: int,
) -> tuple[Int[Tensor, " nnz"], Int[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, "i th tw"]]:
    """Tile lists by the steps of a GPU: count, sort by depth, fill in that order, sort by tile.

    Inputs are contiguous. The total of the counts is the one number that the CPU waits for.
    """
    module, where = native.require(), native.where(depths)
    gaussians, grid = (means2d, radii, depths, conics, opacities), (width, height, tile_size)
    integers = {"dtype": torch.int32, "device": depths.device}
    counts, ids = (torch.empty(len(depths), **integers) for _ in range(2))
    keys = torch.empty_like(depths, dtype=torch.int32 if depths.dtype == torch.float32 else torch.int64)
    module.count_tiles(*gaussians, *grid, counts, keys, ids, **where)
    _, order = _sort(keys, ids, 8 * keys.element_size())
    ends = counts[order].cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if total > torch.iinfo(torch.int32).max:
        raise BackendError(f"{total} tile intersections, want less than 2^31: the Gaussians are too large")
    lists = _empty_lists(depths, num_images, *grid, total)
    keys, ids = (torch.empty(total, **integers) for _ in range(2))
    module.fill_tiles(*gaussians, *grid, order, ends, image_ids.contiguous(), keys, ids, **where)
    keys, ids = _sort(keys, ids, lists[3].numel().bit_length())
    module.finish_tiles(depths, *grid, keys, ids, lists[1], lists[3], **where)
    return counts, lists[1], ids, lists[3]


def _sort(keys: Tensor, ids: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    module, where = native.require(), native.where(keys)
    outputs = torch.empty_like(keys), torch.empty_like(ids)
    scratch = keys.new_empty(module.sort_scratch(keys, **where), dtype=torch.uint8)
    module.sort_pairs(keys, ids, bits, *outputs, scratch, **where)
    return outputs


def _empty_lists(
    depths: Tensor, num_images: int, width: int, height: int, tile_size: int, total: int | torch.SymInt
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grid = (num_images, -(-height // tile_size), -(-width // tile_size))
    per_pair, flatten_ids, offsets = (depths.new_empty(shape, dtype=torch.int32) for shape in ((len(depths),), (total,), grid))
    return per_pair, depths.new_empty(total, dtype=torch.int64), flatten_ids, offsets


def _intersect_fake(means2d, radii, depths, conics, opacities, image_ids, num_images, width, height, tile_size):
    return _empty_lists(depths, num_images, width, height, tile_size, torch.library.get_ctx().new_dynamic_size())


_intersect.register_fake(_intersect_fake)
