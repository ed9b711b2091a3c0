"""The network of the finder: centers of hands with their size, rotation and side, in cells of 8 pixels."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.core.errors import ShapeError
from vision3d.stages.hand.config import STRIDE
from vision3d.stages.hand.finder.config import FinderConfig
from vision3d.stages.hand.network.mobilenet import MobileNetV3Small, NormAct

CELL = 8
"""Pixels along a cell."""
_PRIOR = -3.0  # logit of the first probability of a center
_LEVELS = ((2, 24), (4, 48))  # blocks in front of the features of strides 8 and 16, and their number


@dataclass(frozen=True)
class FinderOutputs:
    """Predictions of each cell."""

    heat: Float[Tensor, "n 1 h w"]
    """Logit of the center of a hand."""
    offset: Float[Tensor, "n 2 h w"]
    """From the middle of the cell to the center of the joints' box (across, down) [cells]."""
    size: Float[Tensor, "n 1 h w"]
    """Logarithm of the longer side of the joints' box [cells]."""
    turn: Float[Tensor, "n 2 h w"]
    """Cosine and sine of the rotation of `Detections.angles`."""
    side: Float[Tensor, "n 1 h w"]
    """Logit of a right hand."""


class FinderNet(nn.Module):
    """MobileNetV3-small, its last features brought back to stride 8 (Lin et al. 2017, feature pyramid), and one head.

    Args:
        config: The network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: FinderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Any = MobileNetV3Small()
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.backbone.std).view(3, 1, 1), persistent=False)
        width = config.channels
        self.top = nn.Sequential(nn.Conv2d(self.backbone.channels, width, 1, bias=False), NormAct(width, "relu"))
        self.sides = nn.ModuleList(nn.Conv2d(channels, width, 1) for _, channels in _LEVELS)
        self.mixes = nn.ModuleList(_separable(width) for _ in _LEVELS)
        self.head = nn.Sequential(_separable(width), nn.Conv2d(width, 7, 1))
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias[0] = _PRIOR
        own: Any = self
        own.to(memory_format=torch.channels_last)  # faster on a CPU

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> FinderOutputs:
        """The predictions for images.

        Args:
            images: Red, green and blue in [0, 1]; sides are multiples of 32 pixels.
        """
        if images.ndim != 4 or images.shape[1] != 3 or any(side % STRIDE or not side for side in images.shape[2:]):
            raise ShapeError("images", images.shape, f"(N, 3, H, W), sides multiples of {STRIDE}")
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        x = self.backbone.bn1(self.backbone.conv_stem(x))
        levels = []
        for number, block in enumerate(self.backbone.blocks, 1):
            x = block(x)
            if number in (before for before, _ in _LEVELS):
                levels.append(x)
        x = self.top(x)
        for level, side, mix in zip(reversed(levels), reversed(self.sides), reversed(self.mixes)):
            x = mix(functional.interpolate(x, scale_factor=2.0, mode="nearest") + side(level))
        heat, offset, size, turn, side = self.head(x).split([1, 2, 1, 2, 1], 1)
        return FinderOutputs(heat, offset, size, turn, side)


def _separable(channels: int) -> nn.Sequential:
    """Depthwise and pointwise convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 5, 1, 2, groups=channels, bias=False),
        NormAct(channels, "relu"),
        nn.Conv2d(channels, channels, 1, bias=False),
        NormAct(channels, "relu"),
    )
