"""Front-to-back blending of projected Gaussians, in plain torch (Kerbl et al. 2023, eq. 3)."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.render.reference.tiles import PixelOffset, State, walk, weigh
from vision3d.render.splats.records import Blended, Pixels, Projected, TileLists


def blend(
    projected: Projected,
    colors: Float[Tensor, "p d"],
    opacities: Float[Tensor, " p"],
    lists: TileLists,
    pixels: Pixels = Pixels(),  # noqa: B008  a tuple of None
    *,
    alpha_max: float,
    absgrad: Float[Tensor, "p 2"] | None = None,
) -> Blended:
    """As `Kernels.blend`."""
    means2d, depths, conics = projected.means2d, projected.depths, projected.conics
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

    transmittance, color, last = walk(step, start, lists, pixels.masks, pixels.max_depths)
    color = color + graph_link(means2d, conics, colors, opacities)
    if pixels.backgrounds is not None:
        color = color + transmittance[..., None] * pixels.backgrounds[:, None, None]
    return Blended(color, transmittance, last)


def cut_exponents(opacities: Tensor) -> Tensor:
    """The exponent ln(255 opacity) above which a Gaussian is invisible."""
    return torch.log(255 * opacities.detach())


def pixel_offsets(means2d: Tensor, ids: Tensor, x: Tensor, y: Tensor, absgrad: Tensor | None) -> tuple[Tensor, Tensor]:
    """Center minus pixel, (tiles, slab, pixels) for x and y."""
    centers = means2d[ids]
    if absgrad is None:
        return centers[:, :, 0, None] - x[:, None], centers[:, :, 1, None] - y[:, None]
    dx = PixelOffset.apply(centers[:, :, 0], x, ids, absgrad[:, 0])
    dy = PixelOffset.apply(centers[:, :, 1], y, ids, absgrad[:, 1])
    return dx, dy


def slab_alpha(exponent: Tensor, ids: Tensor, listed: Tensor, opacities: Tensor, cuts: Tensor, alpha_max: float) -> Tensor:
    """Alpha of a slab, 0 after the end of the list or if alpha would be below 1/255."""
    counts = listed[..., None] & (exponent >= 0) & (exponent <= cuts[ids][..., None])
    exponent = torch.where(counts, exponent, 0)
    return torch.where(counts, (opacities[ids][..., None] * torch.exp(-exponent)).clamp(max=alpha_max), 0)


def before_limit(alpha: Tensor, depths: Tensor, ids: Tensor, limit: Tensor | None = None) -> Tensor:
    """Alpha of a slab, 0 if the depth is not below the pixel's limit."""
    if limit is None:
        return alpha
    return torch.where(depths.detach()[ids][..., None] < limit[:, None], alpha, 0)


def graph_link(*inputs: Tensor) -> Tensor:
    """A zero that depends on the inputs, so that an image without Gaussians can still be differentiated."""
    return torch.stack([tensor[:0].sum() for tensor in inputs]).sum()
