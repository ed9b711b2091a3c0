"""Tile lists and their traversal, shared by 3D and 2D Gaussians, in plain torch.

Tiles with lists of similar length are processed together, a slab of Gaussians at a time, front to back, until all their pixels
are opaque. Each slab is recomputed in the backward pass, so memory grows with the pixels times the number of slabs.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vision3d.core.errors import BackendError
from vision3d.render.splats.records import TOO_MANY, Grid, Intersections, Projected, Projected2dgs, TileLists

TRANSMITTANCE_MIN = 1e-4  # a pixel stops before the Gaussian that would reduce it to this or below
_SLAB = 64  # Gaussians of a list that are blended together
_MAX_ELEMENTS = 1 << 18  # maximum elements of a (tiles, slab, pixels) tensor

State = tuple[Tensor, ...]
Step = Callable[..., State]


@torch.no_grad()
def intersect(
    projected: Projected | Projected2dgs, opacities: Float[Tensor, " p"], image_ids: Int[Tensor, " p"], grid: Grid
) -> Intersections:
    """As `Kernels.intersect`."""
    means2d, radii, depths, conics = projected.means2d, projected.radii, projected.depths, projected.conics
    num_images, width, height, tile_size = grid
    tiles = means2d.new_tensor([-(-width // tile_size), -(-height // tile_size)]).long()
    first = torch.floor((means2d - radii) / tile_size).clamp(min=0).long()
    last = torch.minimum(torch.ceil((means2d + radii) / tile_size).clamp(max=1e9).long(), tiles)
    spans = torch.where((radii > 0).all(-1, keepdim=True), (last - first).clamp(min=0), 0)
    counts = spans.prod(-1)
    if (total := int(counts.sum())) > torch.iinfo(torch.int32).max:
        raise BackendError(TOO_MANY.format(total))
    ids = torch.repeat_interleave(counts)  # Gaussian of each candidate
    within = torch.arange(len(ids), device=ids.device) - (counts.cumsum(0) - counts)[ids]
    tile_x = first[ids, 0] + within % spans[ids, 0]
    tile_y = first[ids, 1] + within // spans[ids, 0]
    if conics is not None:
        low = torch.stack([tile_x, tile_y], -1) * tile_size + 0.5
        size = means2d.new_tensor([width, height])
        high = torch.minimum(low + tile_size - 1, size - 0.5)
        exponent = _smallest_exponent(conics[ids], (low - means2d[ids]).to(means2d.dtype), high - means2d[ids])
        touched = exponent <= torch.log(255 * opacities)[ids]
        ids, tile_x, tile_y = ids[touched], tile_x[touched], tile_y[touched]
    num_tiles = int(tiles.prod())
    keys = (image_ids[ids] * num_tiles + tile_y * tiles[0] + tile_x).long()
    order = torch.argsort(depths[ids], stable=True)
    order = order[torch.argsort(keys[order], stable=True)]
    ids, keys = ids[order], keys[order]
    starts = torch.searchsorted(keys, torch.arange(num_images * num_tiles, device=keys.device))
    bits = depths[ids].float().contiguous().view(torch.int32).long() & 0xFFFFFFFF
    tile_bits = num_tiles.bit_length()
    isect_ids = ((keys // num_tiles) << (32 + tile_bits)) | ((keys % num_tiles) << 32) | bits
    offsets = starts.int().view(num_images, int(tiles[1]), int(tiles[0]))
    lists = TileLists(width, height, tile_size, offsets, ids.int())
    return Intersections(torch.bincount(ids, minlength=len(means2d)).int(), isect_ids, lists)


def _smallest_exponent(conic: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Minimum of 0.5 (a x^2 + c y^2) + b x y over low <= (x, y) <= high: 0 inside, else on one of the four edges."""
    a, b, c = conic.unbind(-1)
    best = torch.where(((low <= 0) & (high >= 0)).all(-1), 0.0, torch.inf).to(conic.dtype)
    for edge in (low, high):
        for axis, own, other in ((0, a, c), (1, c, a)):
            fixed = edge[:, axis]
            free = torch.clamp(-b * fixed / other, low[:, 1 - axis], high[:, 1 - axis])
            best = torch.minimum(best, 0.5 * (own * fixed * fixed + other * free * free) + b * fixed * free)
    return best


def walk(
    step: Step,
    start: Callable[[int, Bool[Tensor, "t p"]], State],
    lists: TileLists,
    masks: Bool[Tensor, "i th tw"] | None,
    limits: Float[Tensor, "i h w"] | None,
) -> list[Tensor]:
    """Fold `step` over every tile's list and return the final states as images.

    Args:
        step: (state, ids (T, L), positions in flatten_ids (T, L), which are in the list (T, L), pixel x and y (T, P))
            -> state. The last entry of the state is a mask of finished pixels (T, P); it is not returned. With `limits`
                their values at the pixels (T, P) are an additional argument.
        start: (number of tiles, pixels outside the image (T, P)) -> first state, each entry (T, P, ...).
    """
    width, height, tile_size, isect_offsets, flatten_ids = lists
    tiles_y, tiles_x = isect_offsets.shape[1:]
    begin = isect_offsets.flatten().long()
    end = torch.cat([begin[1:], begin.new_tensor([len(flatten_ids)])])
    if masks is not None:
        end = torch.where(masks.flatten(), end, begin)
    order = torch.argsort(end - begin, descending=True, stable=True)
    corner = torch.arange(len(begin), device=begin.device)
    corner = torch.stack([corner % tiles_x, corner // tiles_x % tiles_y], -1) * tile_size
    tall, wide = min(tile_size, height), min(tile_size, width)  # of a tile that is larger than the image, only what is inside
    inner = torch.arange(tall * wide, device=begin.device)
    per_group = max(1, _MAX_ELEMENTS // (_SLAB * tall * wide))
    groups = []
    for tiles in order.split(per_group):
        columns = corner[tiles, None, 0] + inner % wide
        rows = corner[tiles, None, 1] + inner // wide
        state = start(len(tiles), (columns >= width) | (rows >= height))
        pixels = (columns.to(state[0].dtype) + 0.5, rows.to(state[0].dtype) + 0.5)
        if limits is not None:
            image = torch.div(tiles, tiles_x * tiles_y, rounding_mode="floor")[:, None]
            pixels = (*pixels, limits[image, rows.clamp(max=height - 1), columns.clamp(max=width - 1)])
        for offset in range(0, int((end - begin)[tiles].max()), _SLAB):
            longest = min(_SLAB, int((end - begin)[tiles].max()) - offset)
            positions = begin[tiles, None] + offset + torch.arange(longest, device=begin.device)
            listed = positions < end[tiles, None]
            ids = flatten_ids[positions.clamp(max=len(flatten_ids) - 1)].long()
            if torch.is_grad_enabled():
                state = checkpoint(step, state, ids, positions, listed, *pixels, use_reentrant=False, preserve_rng_state=False)
            else:
                state = step(state, ids, positions, listed, *pixels)
            if bool(state[-1].all()):
                break
        groups.append(state[:-1])
    inverse = torch.argsort(order)
    images = []
    for parts in zip(*groups):
        tiles = torch.cat(parts)[inverse].unflatten(0, isect_offsets.shape).unflatten(3, (tall, wide))
        images.append(tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width])
    return images


def weigh(
    alpha: Float[Tensor, "t l p"], transmittance: Float[Tensor, "t p"], done: Bool[Tensor, "t p"]
) -> tuple[Float[Tensor, "t l p"], Float[Tensor, "t l p"], Float[Tensor, "t p"], Bool[Tensor, "t p"]]:
    """Blending weights of a slab, transmittance before each Gaussian and after the slab, and mask of finished pixels."""
    with torch.no_grad():
        after = transmittance[:, None] * torch.cumprod(1 - alpha, 1)
        live = (after > TRANSMITTANCE_MIN) & ~done[:, None]
        done = done | ~live[:, -1]
    alpha = torch.where(live, alpha, 0)
    after = transmittance[:, None] * torch.cumprod(1 - alpha, 1)
    before = torch.cat([transmittance[:, None], after[:, :-1]], 1)
    return alpha * before, before, after[:, -1], done


class PixelOffset(torch.autograd.Function):
    """Center minus pixel for every pixel of a tile; the backward also sums the absolute values of the gradient."""

    @staticmethod
    def forward(ctx, center: Tensor, pixel: Tensor, ids: Tensor, sums: Tensor) -> Tensor:
        ctx.ids, ctx.sums = ids, sums
        return center[:, :, None] - pixel[:, None]

    @staticmethod
    def backward(ctx, v_offset: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.sums.index_add_(0, ctx.ids.flatten(), v_offset.abs().sum(-1).flatten())
        return v_offset.sum(-1), None, None, None
