"""Attention: of positions in a feature map, of tokens to tokens."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.stages.hand.network.native_attention import attend


class CoordinateAttention(nn.Module):
    """Gates of rows and columns of a feature map (Hou et al. 2021, arXiv 2103.02907).

    The means over each row and over each column pass one layer together; each then gives the gate of its row or column.

    Args:
        channels: Features.
        reduction: Features per hidden feature, of which there are at least 8.
    """

    def __init__(self, channels: int, reduction: int = 32) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.hidden = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.rows, self.columns = nn.Conv2d(hidden, channels, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, image: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The image times the gates of its rows and columns, in (0, 1)."""
        means = torch.cat([image.mean(3, keepdim=True), image.mean(2, keepdim=True).mT], 2)
        rows, columns = self.hidden(means).split([image.shape[2], image.shape[3]], 2)
        return image * self.rows(rows).sigmoid() * self.columns(columns.mT).sigmoid()


class Attention(nn.Module):
    """Multi-head attention softmax(Q K^T / sqrt(c / heads)) V with a linear layer behind (Vaswani et al. 2017).

    Args:
        channels: Features c, a multiple of `heads`.
        heads: Number of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Float[Tensor, "n t c"], context: Float[Tensor, "n s c"] | None = None) -> Float[Tensor, "n t c"]:
        """What each token finds in the context.

        Args:
            x: Tokens.
            context: Tokens that they attend to; themselves when None.
        """
        context = x if context is None else context
        found = attend(self.query(x), self.key(context), self.value(context), self.heads)
        return self.output(found)
