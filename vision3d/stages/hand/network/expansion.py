"""The expansion block: features of stride 32 to a feature map of stride 8, and tokens sampled from it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.core.errors import ConfigError, ShapeError
from vision3d.stages.hand.config import UP
from vision3d.stages.hand.network.attention import CoordinateAttention

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

    weight: Tensor
    scale: Tensor
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
            # The matrix of each of the 16 texels is contiguous.
            self.register_buffer("weight", block.up.weight.permute(2, 3, 0, 1).contiguous())
            self.register_buffer("scale", scale)
            self.register_buffer("shift", norm.bias - norm.running_mean * scale)

    def tokens(self, features: Float[Tensor, "n c h w"], uv: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p d"]:
        """As `Expansion.tokens` in evaluation mode."""
        features = self.reduce(features)
        positions = self.positions(UP * features.shape[2], UP * features.shape[3], features)
        return sampled_expansion(features, self.weight.permute(2, 3, 0, 1), self.scale, self.shift, positions, uv)


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


def sample_map(image: Float[Tensor, "n c h w"], uv: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p c"]:
    """A feature map at points, bilinear.

    Args:
        image: Feature map.
        uv: Points (across, down) in [0, 1], where 0 and 1 are the centers of the outermost texels; others are clamped.
            NaN gives NaN.
    """
    grid = (2 * (uv - 0.5)).clamp(-1, 1)
    sampled = functional.grid_sample(image, grid[:, :, None], mode="bilinear", padding_mode="zeros", align_corners=True)
    # grid_sample reads NaN as a point outside.
    return sampled[..., 0].mT + 0 * grid.sum(-1, keepdim=True)


def sampled_expansion(
    features: Float[Tensor, "n c h w"],
    weight: Float[Tensor, "c d 4 4"],
    scale: Float[Tensor, " d"],
    shift: Float[Tensor, " d"],
    positions: Float[Tensor, "d u v"],
    uv: Float[Tensor, "n p 2"],
) -> Float[Tensor, "n p d"]:
    """`sample_map` of relu(scale * conv + shift) + positions, conv the transposed convolution of kernel and stride 4.

    Kernel and stride are equal, so a texel depends on one cell of the features: its row of features times one of 16 matrices.
    Only the four texels around each point are computed, the texels of one matrix together.

    Args:
        features: Of stride 32.
        weight: Of the transposed convolution; fastest with `weight.permute(2, 3, 0, 1)` contiguous.
        scale: Of each feature: that of the norm.
        shift: Of each feature.
        positions: Added to the map; 4 h x 4 w texels.
        uv: Points as for `sample_map`.
    """
    count, _, height, width = features.shape
    outputs, rows, columns = positions.shape
    if (rows, columns) != (UP * height, UP * width):
        raise ShapeError("positions", positions.shape, f"({outputs}, {UP * height}, {UP * width})")
    size = uv.new_tensor([columns - 1, rows - 1])
    place = uv.clamp(0, 1) * size
    low = torch.minimum(place.detach().nan_to_num().floor(), (size - 1).clamp(min=0))
    part = place - low
    corner = low.long()[:, :, None] + torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=uv.device)
    share = torch.stack([1 - part, part], 2)
    weights = (share[:, :, [0, 1, 0, 1], 0] * share[:, :, [0, 0, 1, 1], 1]).flatten()
    x, y = corner.flatten(0, 2).unbind(-1)
    sample = torch.arange(count, device=uv.device).repeat_interleave(4 * uv.shape[1])
    cells = features.permute(0, 2, 3, 1).flatten(0, 2)[(sample * height + y // UP) * width + x // UP]
    kind = y % UP * UP + x % UP
    order = kind.argsort()
    groups = order.split(torch.bincount(kind, minlength=UP * UP).tolist())
    matrices = weight.permute(2, 3, 0, 1).flatten(0, 1)
    texels = torch.cat([cells[group] @ matrix for group, matrix in zip(groups, matrices)])
    texels = functional.relu(texels * scale + shift) + positions.permute(1, 2, 0).flatten(0, 1)[(y * columns + x)[order]]
    texels = torch.zeros_like(texels).index_copy(0, order, texels)
    return (texels * weights[:, None]).view(count, uv.shape[1], 4, outputs).sum(2)
