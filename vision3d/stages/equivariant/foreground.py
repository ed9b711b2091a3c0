"""Background removal from images, and random backgrounds for training.

The canonical position of a digit comes from moments, which a faint gray over the entire frame changes more than the digit
does. So the background is removed first.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vision3d.stages.equivariant.config import ModelConfig

WINDOW = 0.4
"""Window size of the opening, as a fraction of the image size: wider than any stroke."""
MIN_CONTRAST = 0.05
"""Pixels at most this much brighter than the background belong to it."""
NOISE_FACTOR = 3.0
"""So do pixels at most this many standard deviations of the noise brighter."""
MIN_SIDE = 28
"""Minimum image size [px]: in smaller images strokes are as fine as the noise."""
MAX_GRAY, MAX_NOISE = 0.3, 0.15
"""Maximum gray level and maximum standard deviation of the noise in training."""


def foreground(images: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Images without their background: 0 on the background, 1 at the brightest pixel.

    1. The background is the morphological opening of the image smoothed over 3 x 3 pixels: the largest surface below it without
       bright features narrower than `WINDOW` times the image size. Gray levels, slopes and soft shadows are background, strokes
       are not.
    2. The standard deviation of the noise is 1.48 times the median distance of a pixel from the mean of its 3 x 3 pixels.
    3. `MIN_CONTRAST` and `NOISE_FACTOR` standard deviations are subtracted in addition to the background; negative values are
    0. 4. Each pixel is clamped to the second brightest of its eight neighbors, which removes single bright pixels.
    5. The image is divided by its maximum, unless that is 0.

    Args:
        images: Bright digits on a darker background, in [0, 1]. Images smaller than `MIN_SIDE` are enlarged first.
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
    """Images preprocessed for the network of a configuration, in training and afterwards."""
    return foreground(images) if config.background == "subtract" else images


def with_background(
    images: Float[Tensor, "n h w"], share: float, generator: torch.Generator | None = None
) -> Float[Tensor, "n h w"]:
    """Put some of the images over a gray level of up to `MAX_GRAY` and add normal noise of up to `MAX_NOISE`, both uniform.

    Args:
        images: On black, in [0, 1].
        share: Fraction of the images.
        generator: Random generator.
    """
    gray, noise, chosen = torch.rand(3, len(images), 1, 1, generator=generator).to(images)
    gray, noise = MAX_GRAY * gray, MAX_NOISE * noise
    shown = gray + (1 - gray) * images + noise * torch.randn(images.shape, generator=generator).to(images)
    return torch.where(chosen < share, shown.clamp(0, 1), images)


def _opening(images: Tensor, reach: int) -> Tensor:
    """Maximum of the minimum within `reach` pixels along both axes.

    Beyond the border the minimum is continued point-symmetrically, so that a slope is its own opening there as well.
    """
    size = 2 * reach + 1
    least = -functional.max_pool2d(-images[:, None], size, stride=1, padding=reach)
    for _ in range(2):
        inner = least.flip(-1)
        left, right = 2 * least[..., :1] - inner[..., -reach - 1 : -1], 2 * least[..., -1:] - inner[..., 1 : reach + 1]
        least = functional.max_pool2d(torch.cat([left, least, right], -1), (1, size), stride=1).mT
    return least[:, 0]
