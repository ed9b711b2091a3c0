"""Plain torch version of texture sampling; see `cuda_ext/include/vision3d/texture.h` for the conventions."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def texture(
    texels: Float[Tensor, "s t d"],
    sizes: list[tuple[int, int]],
    uvs: Float[Tensor, "i h w 2"],
    lods: Float[Tensor, "i h w"] | None,
    masks: Bool[Tensor, "i h w"] | None,
    repeat: bool,
) -> Float[Tensor, "i h w d"]:
    """Samples at `uvs` of one texture (s = 1) or one per image, whose levels are stored one after another in `texels`."""
    seen = uvs.isfinite().all(-1) if masks is None else uvs.isfinite().all(-1) & masks
    image, y, x = seen.nonzero(as_tuple=True)
    sets = torch.zeros_like(image) if len(texels) == 1 else image
    points, last = uvs[image, y, x], len(sizes) - 1
    lod = points.new_zeros(len(points)) if lods is None else lods[image, y, x]
    lod = torch.where(lod > 0, lod, torch.zeros_like(lod)).clamp(max=last)
    low = lod.detach().floor().long()
    share = (lod - low)[:, None]
    fine = _bilinear(texels, sizes, sets, points, low, repeat)
    coarse = _bilinear(texels, sizes, sets, points, (low + 1).clamp(max=last), repeat)
    values = texels.new_zeros((*uvs.shape[:3], texels.shape[2]))
    return values.index_put((image, y, x), (1 - share) * fine + share * coarse)


def _bilinear(
    texels: Tensor, sizes: list[tuple[int, int]], sets: Tensor, points: Tensor, levels: Tensor, repeat: bool
) -> Tensor:
    table = torch.tensor(sizes, device=texels.device)
    begins = torch.cat([table.new_zeros(1), table.prod(-1).cumsum(0)])[levels]
    height, width = table[levels].unbind(-1)
    columns, fx = _axis(points[:, 0], width, repeat)
    rows, fy = _axis(points[:, 1], height, repeat)
    at = [[texels[sets, begins + row * width + column] for column in columns] for row in rows]
    upper, lower = (left + fx * (right - left) for left, right in at)
    return upper + fy * (lower - upper)


def _axis(u: Tensor, size: Tensor, repeat: bool) -> tuple[tuple[Tensor, Tensor], Tensor]:
    u = u - u.detach().floor() if repeat else torch.where((u >= 0) & (u <= 1), u, (u > 1).to(u.dtype))
    x = u * size - 0.5
    low = x.detach().floor().long()
    at = (low % size, (low + 1) % size) if repeat else (low.clamp(min=0), torch.minimum(low + 1, size - 1))
    return at, (x - low)[:, None]
