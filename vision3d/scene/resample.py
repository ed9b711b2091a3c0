"""Images resampled to another size or another lens."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError


def resize_area(image: Float[Tensor, "h w c"], width: int, height: int) -> Float[Tensor, "h2 w2 c"]:
    """Resize an image; each pixel is the mean over the area that it covers.

    Args:
        image: Any values.
        width: New width [px].
        height: New height [px].
    """
    if width < 1 or height < 1:
        raise InputError(f"resize_area: got {width}x{height} px, want at least 1x1")
    return _average(_average(image, height).transpose(0, 1), width).transpose(0, 1).contiguous()


def sample(image: Float[Tensor, "h w c"], pixels: Float[Tensor, "h2 w2 2"]) -> Float[Tensor, "h2 w2 c"]:
    """Sample an image at any positions by bicubic interpolation (a = -0.75, sharper than bilinear).

    Positions outside are clamped to the border.

    Args:
        image: In [0, 1].
        pixels: Column and row [px], pixel centers at +0.5.
    """
    size = pixels.new_tensor([image.shape[1], image.shape[0]])
    grid = (2 * pixels / size - 1).to(image)
    values = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False
    )
    return values[0].permute(1, 2, 0).clamp(0, 1).contiguous()  # cubic weights overshoot at edges


def shrink_mask(mask: Bool[Tensor, "h w"], width: int, height: int) -> Bool[Tensor, "h2 w2"]:
    """A mask at another size; a pixel is set only if all pixels that it covers are."""
    return resize_area(mask[..., None].float(), width, height)[..., 0] > 1 - 1e-4


def shrink_depth(depth: Float[Tensor, "h w"], width: int, height: int) -> Float[Tensor, "h2 w2"]:
    """A depth map at another size; a pixel has the depth at its center, as means over edges would be depths of nothing."""
    rows, columns = ((torch.arange(new) + 0.5) * old // new for new, old in zip((height, width), depth.shape))
    return depth[rows.long()[:, None], columns.long()]


def _average(image: Tensor, target: int) -> Tensor:
    """Area means along the first axis, which becomes `target` long."""
    source = image.shape[0]
    if source == target:
        return image
    if source % target == 0:
        return image.unflatten(0, (target, source // target)).mean(1)
    edges = torch.arange(target + 1, dtype=torch.float64) * source / target
    first = edges[:-1].floor().long()
    result = torch.zeros((), device=image.device)
    for tap in range(int((edges[1:].ceil().long() - first).max())):
        row = first + tap
        overlap = (torch.minimum(edges[1:], row + 1.0) - torch.maximum(edges[:-1], row.double())).clamp(min=0)
        weight = (overlap * target / source).to(image)
        result = result + weight[:, None, None] * image[row.clamp(max=source - 1).to(image.device)]
    return result
