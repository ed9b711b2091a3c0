"""Front-to-back blending of projected Gaussians, in plain torch (Kerbl et al. 2023, eq. 3)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vision3d.render.reference.tiles import PixelOffset, State, walk, weigh


def blend(
    means2d: Float[Tensor, "nnz 2"],
    conics: Float[Tensor, "nnz 3"],
    colors: Float[Tensor, "nnz d"],
    opacities: Float[Tensor, " nnz"],
    backgrounds: Float[Tensor, "i d"] | None,
    masks: Bool[Tensor, "i th tw"] | None,
    width: int,
    height: int,
    tile_size: int,
    isect_offsets: Int[Tensor, "i th tw"],
    flatten_ids: Int[Tensor, " m"],
    *,
    alpha_max: float,
    absgrad: Float[Tensor, "nnz 2"] | None = None,
    depths: Float[Tensor, " nnz"] | None = None,
    max_depths: Float[Tensor, "i h w"] | None = None,
) -> tuple[Float[Tensor, "i h w d"], Float[Tensor, "i h w"], Int[Tensor, "i h w"]]:
    """Colours, transmittances and the position in `flatten_ids` of the last Gaussian blended, -1 where there is none.

    alpha = min(alpha_max, opacity exp(-q)) counts where q <= ln(255 opacity), that is where it is at least 1/255; no
    gradient passes alpha_max. A pixel stops before the Gaussian that would bring its transmittance to 1e-4.

    Args:
        absgrad: Receives in the backward pass the sum over pixels of |d loss / d mean| for each coordinate.
        depths: By which the lists are sorted; read with `max_depths`.
        max_depths: At a pixel only Gaussians whose depth is below count.
    """
    cuts = cut_exponents(opacities)

    def step(state: State, ids: Tensor, positions: Tensor, listed: Tensor, x: Tensor, y: Tensor, *limit: Tensor) -> State:
        transmittance, color, last, done = state
        dx, dy = pixel_offsets(means2d, ids, x, y, absgrad)
        a, b, c = (entry[ids][..., None] for entry in conics.unbind(-1))
        exponent = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        alpha = before_limit(slab_alpha(exponent, ids, listed, opacities, cuts, alpha_max), depths, ids, *limit)
        weight, _, transmittance, done = weigh(alpha, transmittance, done)
        color = color + weight.mT @ colors[ids]
        last = torch.maximum(last, torch.where(weight > 0, positions[..., None], -1).amax(1).int())
        return transmittance, color, last, done

    def start(count: int, outside: Tensor) -> State:
        pixels = (count, outside.shape[1])
        return (
            means2d.new_ones(pixels),
            means2d.new_zeros((*pixels, colors.shape[1])),
            torch.full(pixels, -1, dtype=torch.int32, device=means2d.device),
            outside,
        )

    transmittance, color, last = walk(step, start, masks, width, height, tile_size, isect_offsets, flatten_ids, max_depths)
    color = color + graph_link(means2d, conics, colors, opacities)
    if backgrounds is not None:
        color = color + transmittance[..., None] * backgrounds[:, None, None]
    return color, transmittance, last


def cut_exponents(opacities: Tensor) -> Tensor:
    """The exponent ln(255 opacity) above which a Gaussian is not seen."""
    return torch.log(255 * opacities.detach())


def pixel_offsets(means2d: Tensor, ids: Tensor, x: Tensor, y: Tensor, absgrad: Tensor | None) -> tuple[Tensor, Tensor]:
    """Centre minus pixel, (tiles, slab, pixels) for x and y."""
    centers = means2d[ids]
    if absgrad is None:
        return centers[:, :, 0, None] - x[:, None], centers[:, :, 1, None] - y[:, None]
    dx = PixelOffset.apply(centers[:, :, 0], x, ids, absgrad[:, 0])
    dy = PixelOffset.apply(centers[:, :, 1], y, ids, absgrad[:, 1])
    return dx, dy


def slab_alpha(exponent: Tensor, ids: Tensor, listed: Tensor, opacities: Tensor, cuts: Tensor, alpha_max: float) -> Tensor:
    """Alpha of a slab, 0 where the list has ended or alpha would be below 1/255."""
    counts = listed[..., None] & (exponent >= 0) & (exponent <= cuts[ids][..., None])
    exponent = torch.where(counts, exponent, 0)
    return torch.where(counts, (opacities[ids][..., None] * torch.exp(-exponent)).clamp(max=alpha_max), 0)


def before_limit(alpha: Tensor, depths: Tensor | None, ids: Tensor, limit: Tensor | None = None) -> Tensor:
    """Alpha of a slab, 0 where the depth is not below the pixel's limit."""
    if limit is None or depths is None:
        return alpha
    return torch.where(depths.detach()[ids][..., None] < limit[:, None], alpha, 0)


def graph_link(*inputs: Tensor) -> Tensor:
    """Zero that depends on the inputs, so that an image without any Gaussian can still be differentiated."""
    return torch.stack([tensor[:0].sum() for tensor in inputs]).sum()
