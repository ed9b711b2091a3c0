"""The network of the finder: centers of hands with their size, rotation and side, in cells of 8 pixels."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ShapeError
from vision3d.stages.hand.config import STRIDE
from vision3d.stages.hand.finder.config import FinderConfig
from vision3d.stages.hand.network.mobilenet import MobileNetV3Small
from vision3d.stages.hand.network.pyramid import descend, pyramid_layers, separable

CELL = 8
"""Pixels along a cell."""
_PRIOR = -3.0  # logit of the first probability of a center


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
        self.top, self.sides, self.mixes = pyramid_layers(self.backbone.level_channels, width)
        self.head = nn.Sequential(separable(width), nn.Conv2d(width, 7, 1))
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
        x = descend(self.backbone.levels(x), self.top, self.sides, self.mixes)
        heat, offset, size, turn, side = self.head(x).split([1, 2, 1, 2, 1], 1)
        return FinderOutputs(heat, offset, size, turn, side)
