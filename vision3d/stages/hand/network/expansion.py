"""The expansion block: features of stride 32 to a feature map of stride 8, and tokens sampled from it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.core.errors import ConfigError
from vision3d.stages.hand.config import UP
from vision3d.stages.hand.network.attention import CoordinateAttention
from vision3d.stages.hand.network.sampling import sample_map, sampled_expansion

_TEMPERATURE = 10000.0


class Expansion(nn.Module):
    """Transposed convolution of kernel and stride 4, batch norm, ReLU, then the position of each texel.

    Args:
        inputs: Features of stride 32.
        channels: Features of the map, a multiple of 4.
        reduce: Features after a 1x1 convolution in front; 0: none.
        attention: Coordinate attention in front of the positions.
    """

    def __init__(self, inputs: int, channels: int, reduce: int = 0, attention: bool = False) -> None:
        super().__init__()
        self.reduce: nn.Module = nn.Identity()
        if reduce:
            self.reduce = nn.Sequential(nn.Conv2d(inputs, reduce, 1, bias=False), nn.BatchNorm2d(reduce), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(reduce or inputs, channels, UP, UP, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.attention = CoordinateAttention(channels) if attention else None
        self.positions = Positions(channels)

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d u v"]:
        """The feature map with positions, four times as wide and high."""
        image = functional.relu(self.norm(self.up(self.reduce(features))), inplace=True)
        image = image if self.attention is None else self.attention(image)
        return image + self.positions(image.shape[2], image.shape[3], image)

    def tokens(self, features: Float[Tensor, "n c h w"], uv: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p d"]:
        """The feature map at points.

        Args:
            features: Of stride 32.
            uv: Points as for `sample_map`.
        """
        return sample_map(self(features), uv)


class SampledExpansion(nn.Module):
    """An expansion block for inference that computes the feature map only around the points where it is needed.

    Args:
        block: The block, whose norm is folded with its running averages.

    Raises:
        ConfigError: The block has coordinate attention, for which all texels are needed.
    """

    weights: Tensor
    shift: Tensor

    def __init__(self, block: Expansion) -> None:
        super().__init__()
        norm = block.norm
        if block.attention is not None:
            raise ConfigError("coordinate_attention", "got True, want False: it needs all texels of the feature map")
        assert norm.running_mean is not None and norm.running_var is not None
        self.reduce, self.positions = block.reduce, block.positions
        with torch.no_grad():
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weights = block.up.weight.permute(2, 3, 0, 1).flatten(0, 1) * scale
            self.register_buffer("weights", weights.contiguous())
            self.register_buffer("shift", norm.bias - norm.running_mean * scale)

    def tokens(self, features: Float[Tensor, "n c h w"], uv: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p d"]:
        """As `Expansion.tokens` in evaluation mode."""
        rows = self.reduce(features).permute(0, 2, 3, 1)
        positions = self.positions(UP * rows.shape[1], UP * rows.shape[2], rows)
        return sampled_expansion(rows, self.weights, self.shift, positions.permute(1, 2, 0).flatten(0, 1), uv)


class Positions(nn.Module):
    """`sine_positions` of maps of any size, kept for the next call.

    Args:
        channels: A multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self._found: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}

    def forward(self, height: int, width: int, like: Tensor) -> Float[Tensor, "d u v"]:
        """Positions on the device and with the dtype of a tensor; channels last in memory."""
        key = (height, width, like.device, like.dtype)
        if key in self._found:
            return self._found[key]
        rows = sine_positions(height, width, self.channels).permute(1, 2, 0).contiguous().to(like)
        if not torch.compiler.is_compiling():  # a traced tensor is not a tensor for later
            self._found[key] = rows.permute(2, 0, 1)
        return rows.permute(2, 0, 1)


def sine_positions(height: int, width: int, channels: int) -> Float[Tensor, "c h w"]:
    """Sines and cosines of the row (first half of the channels) and the column (second half); Carion et al. 2020.

    Both are counted from 1 and normalized to 2 pi; wavelengths grow as 10000^(4 k / channels).

    Args:
        height: Number of rows.
        width: Number of columns.
        channels: A multiple of 4.
    """
    half = channels // 2
    waves = _TEMPERATURE ** (torch.arange(0, half, 2, dtype=torch.float64) / half)
    found = []
    for count in (height, width):
        angles = torch.arange(1, count + 1, dtype=torch.float64) * (2 * math.pi / count) / waves[:, None]
        found.append(torch.stack([angles.sin(), angles.cos()], 1).flatten(0, 1).float())
    rows, columns = found
    return torch.cat([rows[:, :, None].expand(-1, -1, width), columns[:, None].expand(-1, height, -1)])
