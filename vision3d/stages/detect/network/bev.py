"""Convolutions on the bird's-eye image: levels of decreasing resolution, brought to one and concatenated (SECOND, Yan et al.
2018)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.stages.detect.config import BevConfig


class BevNet(nn.Module):
    """(B, C, X, Y) -> (B, levels * up_channels, X / stride, Y / stride).

    Args:
        inputs: Features of the image.
        config: The levels.
    """

    def __init__(self, inputs: int, config: BevConfig) -> None:
        super().__init__()
        self.stride = config.stride
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        before = 1
        for channels, layers, stride in zip(config.channels, config.layers, config.level_strides):
            step = stride // before
            if config.block == "residual":
                blocks = [Residual(inputs, channels, step), *(Residual(channels, channels) for _ in range(layers - 1))]
            else:
                blocks = [block(inputs, channels, step), *(block(channels, channels) for _ in range(layers - 1))]
            self.levels.append(nn.Sequential(*blocks))
            self.ups.append(resampled(channels, config, stride))
            inputs, before = channels, stride
        self.channels = len(config.channels) * config.up_channels

    def forward(self, image: Float[Tensor, "b c x y"]) -> Float[Tensor, "b d u v"]:
        width, height = image.shape[-2] // self.stride, image.shape[-1] // self.stride
        found = []
        for level, up in zip(self.levels, self.ups):
            image = level(image)
            resized = up(image)
            if resized.shape[-2] < width or resized.shape[-1] < height:
                resized = functional.interpolate(resized, (width, height), mode="nearest")
            # Levels of a grid with an odd number of cells are larger.
            found.append(resized[..., :width, :height])
        return torch.cat(found, 1)


def block(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return _normed(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))


class Residual(nn.Module):
    """Two 3x3 convolutions added to the input (He et al. 2016).

    Args:
        inputs: Features.
        outputs: Features of the result.
        stride: None: the input is added as it is, so `inputs` and `outputs` are equal; else a 1x1 convolution of it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int | None = None) -> None:
        super().__init__()
        self.first = block(inputs, outputs, stride or 1)
        self.second = block(outputs, outputs)[:2]
        self.shortcut = nn.Identity() if stride is None else block(inputs, outputs, stride, 1)[:2]

    def forward(self, image: Float[Tensor, "b c x y"]) -> Float[Tensor, "b d u v"]:
        return functional.relu(self.second(self.first(image)) + self.shortcut(image), inplace=True)


def resampled(channels: int, config: BevConfig, stride: int) -> nn.Sequential:
    """The layer from a level to the resolution of the output, but for the interpolation."""
    outputs = config.up_channels
    if stride < config.stride:
        step = config.stride // stride
        return _normed(nn.Conv2d(channels, outputs, step, step, bias=False))
    if config.up == "transposed" and stride > config.stride:
        step = stride // config.stride
        return _normed(nn.ConvTranspose2d(channels, outputs, step, step, bias=False))
    return block(channels, outputs, kernel=1)


def _normed(convolution: nn.Module) -> nn.Sequential:
    outputs = convolution.out_channels
    assert isinstance(outputs, int)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03), nn.ReLU(inplace=True))
