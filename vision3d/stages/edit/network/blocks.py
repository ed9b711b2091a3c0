"""Layers over planes: residual convolutions, and the exchange between planes along their common axes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.scene.triplane import AXES


class Block(nn.Module):
    """Residual block: a convolution, and a layer at each texel.

    Args:
        channels: Of input and output.
        condition: Features that scale and shift the normalised channels; 0: none.
    """

    def __init__(self, channels: int, condition: int = 0) -> None:
        super().__init__()
        # Depthwise convolutions would have fewer parameters, but their gradient is several times as slow on a CPU.
        self.spread = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(1, channels, affine=not condition)
        self.layers = nn.Sequential(nn.SiLU(), nn.Conv2d(channels, channels, 1))
        self.style = nn.Linear(condition, 2 * channels) if condition else None
        if self.style is not None:
            nn.init.zeros_(self.style.weight)
            nn.init.zeros_(self.style.bias)

    def forward(self, x: Float[Tensor, "n c h w"], condition: Float[Tensor, "n k"] | None = None) -> Float[Tensor, "n c h w"]:
        """The features plus what the layers make of them."""
        y = self.norm(self.spread(x))
        if self.style is not None:
            assert condition is not None
            scale, shift = self.style(condition)[..., None, None].chunk(2, 1)
            y = y * (1 + scale) + shift
        return x + self.layers(y)


class Cross(nn.Module):
    """Each plane gets, along each of its axes, the means of the other plane that has this axis.

    Convolutions alone would see planes as images, in which neighbors are right and what is above in another plane is unknown.

    Args:
        channels: Of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * channels, channels)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, planes: Float[Tensor, "b 3 c h w"]) -> Float[Tensor, "b 3 c h w"]:
        """The planes with what they exchanged."""
        # (plane, axis) -> means over the other axis of the plane, (b, c, size)
        means = {}
        for index, (across, down) in enumerate(AXES):
            means[index, across], means[index, down] = planes[:, index].mean(2), planes[:, index].mean(3)
        changed = []
        for index, (across, down) in enumerate(AXES):
            row = next(value for (plane, axis), value in means.items() if axis == across and plane != index)
            column = next(value for (plane, axis), value in means.items() if axis == down and plane != index)
            height, width = planes.shape[3:]
            both = torch.cat([row[:, :, None].expand(-1, -1, height, -1), column[..., None].expand(-1, -1, -1, width)], 1)
            changed.append(self.mix(both.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return planes + torch.stack(changed, 1)
