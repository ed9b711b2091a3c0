"""Convolutions on the bird's-eye image: levels of halved resolution, upsampled and concatenated (SECOND, Yan et al. 2018)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.stages.detect.config import BevConfig


class BevNet(nn.Module):
    """(B, C, X, Y) -> (B, levels * up_channels, X, Y).

    Args:
        inputs: Features of the image.
        config: The levels.
    """

    def __init__(self, inputs: int, config: BevConfig) -> None:
        super().__init__()
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, (channels, layers) in enumerate(zip(config.channels, config.layers)):
            blocks = [block(inputs if i == 0 else channels, channels, 2 if level and i == 0 else 1) for i in range(layers)]
            self.levels.append(nn.Sequential(*blocks))
            self.ups.append(block(channels, config.up_channels, kernel=1))
            inputs = channels
        self.channels = len(config.channels) * config.up_channels

    def forward(self, image: Float[Tensor, "b c x y"]) -> Float[Tensor, "b d x y"]:
        size, found = image.shape[-2:], []
        for level, up in zip(self.levels, self.ups):
            image = level(image)
            found.append(functional.interpolate(up(image), size, mode="nearest") if image.shape[-2:] != size else up(image))
        return torch.cat(found, 1)


def block(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
        nn.ReLU(inplace=True),
    )
