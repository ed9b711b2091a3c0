"""Heads: 2D joints of a crop, and what is true of the whole crop."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.stages.hand.config import UP

_FIRST_WEIGHTS = 0.01


class LinearUv(nn.Module):
    """2D joints from pooled features, unbounded.

    Args:
        inputs: Features.
        joints: Number of joints.
    """

    def __init__(self, inputs: int, joints: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 2 * joints)

    def forward(self, features: Float[Tensor, "n c h w"], pooled: Float[Tensor, "n c"]) -> tuple[Float[Tensor, "n j 2"], None]:
        """Joints (across, down) in crop sides; [0, 1] is the crop."""
        return self.linear(pooled).unflatten(-1, (-1, 2)), None


class HeatmapUv(nn.Module):
    """2D joints as the means of heat maps of four times the resolution (Sun et al. 2018, arXiv 1711.08229).

    A cell of the features predicts its 4x4 texels at once (Shi et al. 2016). A linear shift from pooled features, zero at
    first, reaches joints outside the crop, which no mean of texels does.

    Args:
        inputs: Features.
        joints: Number of joints.
        hidden: Features of the layer in front.
    """

    def __init__(self, inputs: int, joints: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, joints * UP * UP, 1),
            nn.PixelShuffle(UP),
        )
        self.shift = nn.Linear(inputs, 2 * joints)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(
        self, features: Float[Tensor, "n c h w"], pooled: Float[Tensor, "n c"]
    ) -> tuple[Float[Tensor, "n j 2"], Float[Tensor, "n j u v"]]:
        """Joints (across, down) in crop sides, [0, 1] is the crop; and the logits of the heat maps."""
        heat = self.layers(features)
        return soft_argmax(heat) + self.shift(pooled).unflatten(-1, (-1, 2)), heat


def soft_argmax(logits: Float[Tensor, "n j h w"]) -> Float[Tensor, "n j 2"]:
    """Mean position (across, down) of softmax over texels, whose centers are at (i + 0.5) / count."""
    rows, columns = logits.shape[2:]
    # In half precision the sum over texels loses a hundredth of a crop.
    shares = functional.softmax(logits.float().flatten(2), -1).unflatten(-1, (rows, columns))
    x = (torch.arange(columns, device=logits.device) + 0.5) / columns
    y = (torch.arange(rows, device=logits.device) + 0.5) / rows
    return torch.stack([shares.sum(2) @ x, shares.sum(3) @ y], -1)


def small_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer whose output is near zero at first."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.mul_(_FIRST_WEIGHTS)
        layer.bias.zero_()
    return layer
