"""Image quality metrics against a photo. Both images are clamped to [0, 1] first.

PSNR, SSIM and MS-SSIM have no requirements; LPIPS needs weights supplied by the user and is not computed without them.
"""

import functools
import math
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.optim import losses
from vision3d.optim.lpips import LpipsNetwork, find_weights
from vision3d.optim.reference.ssim import Padding, ssim_maps

Image = Float[Tensor, "*batch h w c"]
Mask = Bool[Tensor, "*batch h w"]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik 2003
MS_SSIM_MIN_SIZE = 176  # an 11-pixel window must fit after four halvings


def psnr(a: Image, b: Image, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio -10 log10 MSE [dB] of images in [0, 1]; infinite for equal images.

    Args:
        a: First image.
        b: Second image.
        mask: Valid pixels.

    Raises:
        ShapeError: Shapes or dtypes differ.

    Example:
        >>> round(psnr(torch.zeros(4, 4, 3), torch.full((4, 4, 3), 0.1)), 3)
        20.0
    """
    losses.check_pair(a, b, mask)
    squared = (a.detach().double().clamp(0, 1) - b.detach().double().clamp(0, 1)).square()
    mse = (squared if mask is None else squared[mask]).mean().item()
    return -10 * math.log10(mse) if mse > 0 else math.inf


@torch.no_grad()
def ssim(a: Image, b: Image, mask: Mask | None = None, padding: Padding = "valid") -> float:
    """Mean structural similarity, 11x11 Gaussian window of sigma 1.5, by default only windows inside the image.

    The value of torchmetrics differs in the fourth digit, since it also averages windows that cross the border of a
    mirrored image.

    Raises:
        ShapeError: Shapes or dtypes differ, or an image is smaller than the window.
    """
    return losses.ssim(a.clamp(0, 1), b.clamp(0, 1), mask=mask, padding=padding).item()


@torch.no_grad()
def mask_iou(a: Bool[Tensor, "*batch h w"], b: Bool[Tensor, "*batch h w"]) -> float:
    """Intersection over union of masks; 1 if both are empty.

    Example:
        >>> mask_iou(torch.tensor([[True, True]]), torch.tensor([[True, False]]))
        0.5
    """
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def ms_ssim(a: Image, b: Image) -> float:
    """Multi-scale structural similarity over five scales (Wang, Simoncelli, Bovik 2003), mean over the batch.

    Raises:
        ShapeError: Shapes or dtypes differ, or a side is below 176 pixels.
    """
    losses.check_pair(a, b, None)
    height, width = a.shape[-3:-1]
    if min(height, width) < MS_SSIM_MIN_SIZE:
        minimum = f"at least {MS_SSIM_MIN_SIZE}x{MS_SSIM_MIN_SIZE} (five scales of an 11x11 window)"
        raise ShapeError("image", f"{height}x{width} pixels", minimum)
    x, y = (image.clamp(0, 1).reshape(-1, *image.shape[-3:]) for image in (a, b))
    value = x.new_ones(len(x))
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale > 0:
            x, y = _halve(x), _halve(y)
        maps = ssim_maps(x, y)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        factor = (maps.ssim if last else maps.contrast).mean((1, 2, 3))
        value = value * factor.clamp(min=0) ** weight
    return value.mean().item()


@torch.no_grad()
def lpips(a: Float[Tensor, "*batch h w 3"], b: Float[Tensor, "*batch h w 3"], weights: Path | None = None) -> float:
    """Learned perceptual distance on AlexNet features (Zhang et al. 2018, v0.1), 0 for equal images.

    Args:
        a: First image.
        b: Second image.
        weights: A .safetensors or .pt file, or a folder of them, with AlexNet's `features.*` (torchvision's names) and
            the five linear heads `lin0.model.1.weight` to `lin4.model.1.weight`.

    Raises:
        InputError: No weights were given; none can be bundled or downloaded.
        FileFormatError: The files lack a tensor, or one has a different shape.
        ShapeError: The images differ in shape or are smaller than 32 pixels.
    """
    losses.check_pair(a, b, None)
    network = _lpips_network(weights)
    x, y = (image.clamp(0, 1).float().reshape(-1, *image.shape[-3:]).movedim(-1, 1) for image in (a, b))
    return network(x, y).mean().item()


@functools.lru_cache(maxsize=1)
def _lpips_network(weights: Path | None) -> LpipsNetwork:
    return LpipsNetwork(find_weights(weights))


def _halve(images: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(images.movedim(-1, 1), 2).movedim(1, -1)
