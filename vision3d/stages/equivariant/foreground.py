"""What stands out from the background of an image, and backgrounds to train with.

The canonical position of a digit comes from moments, which a faint grey all over the frame moves more than the digit does. So
the background goes before anything looks at the image.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vision3d.stages.equivariant.config import ModelConfig

WINDOW = 0.4
"""Side of the window of the opening, as a fraction of the image's: wider than any stroke."""
MIN_CONTRAST = 0.05
"""What is this much brighter than the background, or less, belongs to it."""
NOISE_FACTOR = 3.0
"""So does what is this many standard deviations of the noise brighter."""
MIN_SIDE = 28
"""Least side of the images [px]: on smaller ones strokes are as fine as the noise."""
MAX_GREY, MAX_NOISE = 0.3, 0.15
"""Largest grey level and largest standard deviation of the noise in training."""


def foreground(images: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Images without their background: 0 where nothing stands out, and 1 where the image is brightest.

    1. The background is the morphological opening of the image smoothed over 3 x 3 pixels: the largest surface below it that
       has no bright feature narrower than `WINDOW` times the side. Grey levels, slopes and soft shadows are background,
       strokes are not.
    2. The standard deviation of the noise is 1.48 times the median distance of a pixel from the mean of its 3 x 3 pixels.
    3. What is above the background by more than `MIN_CONTRAST` and `NOISE_FACTOR` deviations is kept, less that threshold.
    4. No pixel is brighter than the second brightest of its eight neighbors: single bright pixels go.
    5. The brightest pixel becomes 1, unless nothing has been left.

    Args:
        images: Bright digits on a darker background, in [0, 1]. Smaller ones than `MIN_SIDE` are enlarged first.
    """
    ratio = MIN_SIDE / min(images.shape[-2:])
    if ratio > 1:
        size = [round(ratio * side) for side in images.shape[-2:]]
        images = functional.interpolate(images[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    smooth = functional.avg_pool2d(functional.pad(images[:, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]
    background = _opening(smooth, round(WINDOW * min(images.shape[-2:]) / 2))
    spread = 1.48 * (images - smooth).abs().flatten(1).median(1).values[:, None, None]
    found = (images - background - (NOISE_FACTOR * spread).clamp(min=MIN_CONTRAST)).clamp(min=0)
    around = functional.unfold(found[:, None], 3, padding=1)[:, [0, 1, 2, 3, 5, 6, 7, 8]]
    found = torch.minimum(found, around.topk(2, 1).values[:, 1].view_as(found))
    return found / found.amax((-2, -1), keepdim=True).clamp(min=MIN_CONTRAST)


def prepared(images: Float[Tensor, "n h w"], config: ModelConfig) -> Float[Tensor, "n h w"]:
    """Images as the network of a configuration takes them, in training and after it."""
    return foreground(images) if config.background == "subtract" else images


def with_background(
    images: Float[Tensor, "n h w"], share: float, generator: torch.Generator | None = None
) -> Float[Tensor, "n h w"]:
    """Some of the images over a grey level of up to `MAX_GREY` and with normal noise of up to `MAX_NOISE`, both uniform.

    Args:
        images: Over black, in [0, 1].
        share: How many of them.
        generator: Of the random numbers.
    """
    grey, noise, chosen = torch.rand(3, len(images), 1, 1, generator=generator).to(images)
    grey, noise = MAX_GREY * grey, MAX_NOISE * noise
    shown = grey + (1 - grey) * images + noise * torch.randn(images.shape, generator=generator).to(images)
    return torch.where(chosen < share, shown.clamp(0, 1), images)


def _opening(images: Tensor, reach: int) -> Tensor:
    """The greatest of the least within `reach` pixels along both axes.

    Beyond the border the surface of the least is continued point-symmetrically, so that a slope is its own opening there, too.
    """
    size = 2 * reach + 1
    least = -functional.max_pool2d(-images[:, None], size, stride=1, padding=reach)
    for _ in range(2):
        inner = least.flip(-1)
        left, right = 2 * least[..., :1] - inner[..., -reach - 1 : -1], 2 * least[..., -1:] - inner[..., 1 : reach + 1]
        least = functional.max_pool2d(torch.cat([left, least, right], -1), (1, size), stride=1).mT
    return least[:, 0]
