"""What cameras do to images: blur, lost resolution, exposure, noise."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def photographed(images: Float[Tensor, "b h w 3"], generator: torch.Generator) -> Float[Tensor, "b h w 3"]:
    """Random errors of a camera.

    Args:
        images: sRGB in [0, 1].
        generator: Random numbers, on the CPU.
    """
    count = len(images)

    def rand(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    images = images * (0.7 + 0.6 * rand(1, 1, 1)) * (0.92 + 0.16 * rand(1, 1, 3))
    images = (images - 0.5) * (0.75 + 0.5 * rand(1, 1, 1)) + 0.5
    images = _blurred(images, 1.3 * rand() ** 2, _streaks(rand(2)))
    is_gray = rand(1, 1, 1) < 0.06
    images = torch.where(is_gray, images.mean(-1, keepdim=True), images)
    noise = torch.randn(images.shape, generator=generator) * (0.035 * rand(1, 1, 1) ** 2)
    return (images + noise).clamp(0, 1)


def _streaks(values: Float[Tensor, "b 2"]) -> Float[Tensor, "b 2"]:
    """Extra blur along x or y: a fifth of the images moved."""
    return torch.where(values < 0.1, 30 * values, 0)


def _blurred(images: Tensor, sigma: Float[Tensor, " b"], streaks: Float[Tensor, "b 2"]) -> Tensor:
    """Gaussian blur of each image by its own sigma, in both directions [px]."""
    offsets = torch.arange(-3, 4)
    flat = images.permute(0, 3, 1, 2).flatten(0, 1)[None]
    for axis in (0, 1):
        wide = torch.sqrt(sigma**2 + streaks[:, axis] ** 2).clamp(min=1e-3)
        kernel = torch.exp(-(offsets**2) / (2 * wide[:, None] ** 2))
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
        kernel = kernel[:, None, :, None] if axis else kernel[:, None, None, :]
        flat = functional.conv2d(
            functional.pad(flat, (3, 3, 0, 0) if axis == 0 else (0, 0, 3, 3), mode="replicate"), kernel, groups=flat.shape[1]
        )
    return flat[0].unflatten(0, (len(images), 3)).permute(0, 2, 3, 1)
