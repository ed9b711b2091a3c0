"""A feature pyramid (Lin et al. 2017, arXiv 1612.03144): features of strides 32, 16 and 8 at stride 8, and heads on them."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.stages.hand.network.expansion import Positions
from vision3d.stages.hand.network.heads import soft_argmax
from vision3d.stages.hand.network.mobilenet import NormAct
from vision3d.stages.hand.network.sampling import sample_map

_FINER = 2
"""Texels of the heat maps along a texel of the pyramid."""


def separable(channels: int) -> nn.Sequential:
    """Depthwise and pointwise convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 5, 1, 2, groups=channels, bias=False),
        NormAct(channels, "relu"),
        nn.Conv2d(channels, channels, 1, bias=False),
        NormAct(channels, "relu"),
    )


def pyramid_layers(inputs: Sequence[int], width: int) -> tuple[nn.Sequential, nn.ModuleList, nn.ModuleList]:
    """The layers of a pyramid: on the coarsest features, on each of the finer ones, and on each sum.

    Args:
        inputs: Features of each level, the finest first.
        width: Features of the pyramid.
    """
    top = nn.Sequential(nn.Conv2d(inputs[-1], width, 1, bias=False), NormAct(width, "relu"))
    sides = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in inputs[:-1])
    return top, sides, nn.ModuleList(separable(width) for _ in sides)


def descend(
    levels: Sequence[Float[Tensor, "n _c _h _w"]], top: nn.Module, sides: nn.ModuleList, mixes: nn.ModuleList
) -> Float[Tensor, "n width h w"]:
    """The pyramid's features of the finest level.

    Args:
        levels: Features, the finest first, each of half the stride of the next.
        top: As `pyramid_layers` returns it.
        sides: The same.
        mixes: The same.
    """
    x = top(levels[-1])
    for level, side, mix in zip(reversed(levels[:-1]), reversed(sides), reversed(mixes), strict=True):
        x = mix(functional.interpolate(x, scale_factor=2.0, mode="nearest") + side(level))
    return x


class Pyramid(nn.Module):
    """A feature map of stride 8, the 2D joints by heat maps of stride 4 on it, and tokens sampled from it.

    Args:
        inputs: Features of each level, the finest first.
        width: Features of the pyramid.
        joints: Number of joints.
        channels: Features of a token, a multiple of 4.
    """

    def __init__(self, inputs: Sequence[int], width: int, joints: int, channels: int) -> None:
        super().__init__()
        self.top, self.sides, self.mixes = pyramid_layers(inputs, width)
        self.heat = nn.Sequential(separable(width), nn.Conv2d(width, joints * _FINER * _FINER, 1), nn.PixelShuffle(_FINER))
        self.enter = nn.Conv2d(width, channels, 1)
        self.positions = Positions(channels)
        self.shift = nn.Linear(inputs[-1], 2 * joints)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, levels: Sequence[Float[Tensor, "n _c _h _w"]]) -> Float[Tensor, "n width h w"]:
        """The feature map."""
        return descend(levels, self.top, self.sides, self.mixes)

    def uv(
        self, image: Float[Tensor, "n width h w"], pooled: Float[Tensor, "n c"]
    ) -> tuple[Float[Tensor, "n j 2"], Float[Tensor, "n j u v"]]:
        """2D joints (across, down) in crop sides, and the logits of the heat maps; a shift as of `HeatmapUv`."""
        heat = self.heat(image)
        return soft_argmax(heat) + self.shift(pooled).unflatten(-1, (-1, 2)), heat

    def tokens(self, image: Float[Tensor, "n width h w"], uv: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p d"]:
        """The feature map with positions, at points as for `sample_map`."""
        features = self.enter(image)
        return sample_map(features + self.positions(features.shape[2], features.shape[3], features), uv)
