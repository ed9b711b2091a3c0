"""The adapter: what a text changes in the color features of planes, by regression.

A zero-initialised residual, as the adapters of frozen networks have. The paper trains a latent denoiser instead; where the
target is unique, regression needs a fraction of its training.
"""

import itertools
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vision3d.scene.triplane import AXES
from vision3d.stages.edit.config import AdapterConfig, PlanesConfig
from vision3d.stages.edit.network.blocks import Block, Cross

TEXT_WIDTH = 384
_WAVES = 10
"""Half periods along the object's box: stripes, checks and dots of objects of any size are among them."""
_TURNS = (0.5, 1.0, 1.5, 2.5)
"""Periods of the cube along an axis: wood and marble do not depend on the size of the object."""


class AdapterNet(nn.Module):
    """From planes and a text to the change of the channels of color.

    Args:
        planes: The network whose planes are changed.
        config: Sizes.
    """

    def __init__(self, planes: PlanesConfig, config: AdapterConfig) -> None:
        super().__init__()
        self.planes, self.config = planes, config
        colors = planes.channels - planes.density_channels
        width, style = config.width, config.style
        self.tokens = TokenPool(TEXT_WIDTH, style, config.queries)
        # Without the norms, what differs between texts would be a percent of what all have in common after some layers.
        self.style = nn.Sequential(
            nn.Linear(style + 4 + 3 * colors, 2 * style), nn.SiLU(), nn.Linear(2 * style, style), nn.LayerNorm(style)
        )
        waves = 2 * (2 * _WAVES + 2 * len(_TURNS) + 2)
        self.gate = nn.Linear(style, waves)
        self.embedding = nn.Parameter(torch.zeros(3, width, 1, 1))
        block = config.reduce**2
        self.enter = nn.Conv2d(planes.channels * block + waves, width, 1)
        widths = [width * (level + 2) // 2 for level in range(config.levels)]
        self.down = nn.ModuleList(Block(channels, style) for channels in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in itertools.pairwise(widths))
        self.cross = nn.ModuleList(Cross(channels) for channels in widths)
        self.up = nn.ModuleList(Block(channels, style) for channels in widths)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.last = nn.ModuleList(Block(width, style) for _ in range(config.blocks))
        self.leave = nn.Conv2d(width, colors * block, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        planes: Float[Tensor, "b 3 c h w"],
        box: Float[Tensor, "b 2 3"],
        tokens: Float[Tensor, "b t 384"],
        mask: Bool[Tensor, "b t"],
        baked: Float[Tensor, " b"],
    ) -> Float[Tensor, "b 3 k h w"]:
        """The change of the channels of color.

        Args:
            planes: Of the source.
            box: Lowest and highest corner of the object in the cube.
            tokens: Of the text.
            mask: Which tokens belong to it.
            baked: 1 where colors have to show what a material does, since the object cannot have one; otherwise 0.
        """
        count, reduce = len(planes), self.config.reduce
        colors = planes[:, :, self.planes.density_channels :]
        about = [self.tokens(tokens, mask), baked[:, None], box[:, 1] - box[:, 0], colors.mean((3, 4)).flatten(1)]
        style = self.style(torch.cat(about, 1))
        reduced = nn.functional.pixel_unshuffle(planes.flatten(0, 1), reduce).unflatten(0, (count, 3))
        places = place_features(box, reduced.shape[-1]) * (1 + self.gate(style))[:, None, :, None, None]
        style = style.repeat_interleave(3, 0)
        x = self.enter(torch.cat([reduced, places], 2).flatten(0, 1)) + self.embedding.repeat(count, 1, 1, 1)
        kept = []
        for level, (block, cross) in enumerate(zip(self.down, self.cross)):
            if level:
                x = self.shrink[level - 1](x)
            x = cross(block(x, style).unflatten(0, (count, 3))).flatten(0, 1)
            kept.append(x)
        for level in range(len(kept) - 1, -1, -1):
            if level < len(kept) - 1:
                x = kept[level] + nn.functional.interpolate(self.grow[level](x), scale_factor=2.0, mode="bilinear")
            x = self.up[level](x, style)
        for block in self.last:
            x = block(x, style)
        return nn.functional.pixel_shuffle(self.leave(x), reduce).unflatten(0, (count, 3))


class TokenPool(nn.Module):
    """Learned queries that attend to the tokens of a text: unlike their mean, these know the order of words.

    Args:
        inputs: Features of a token.
        outputs: Features of the text.
        queries: Number of queries.
    """

    def __init__(self, inputs: int, outputs: int, queries: int) -> None:
        super().__init__()
        self.each = 64
        self.queries = nn.Parameter(torch.randn(queries, self.each))
        self.norm = nn.LayerNorm(inputs)
        self.keys, self.values = nn.Linear(inputs, self.each), nn.Linear(inputs, self.each)
        self.mix = nn.Sequential(
            nn.LayerNorm(queries * self.each), nn.Linear(queries * self.each, outputs), nn.LayerNorm(outputs)
        )

    def forward(self, tokens: Float[Tensor, "b t i"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b o"]:
        """Features of texts."""
        tokens = self.norm(tokens)
        scores = torch.einsum("qe,bte->bqt", self.queries, self.keys(tokens)) / math.sqrt(self.each)
        shares = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        return self.mix(torch.einsum("bqt,bte->bqe", shares, self.values(tokens)).flatten(1))


def place_features(box: Float[Tensor, "b 2 3"], size: int) -> Float[Tensor, "b 3 k size size"]:
    """Where each texel lies along the two axes of its plane: waves relative to the object's box, and to the cube.

    Args:
        box: Lowest and highest corner of each object.
        size: Texels along a side.
    """
    at = (2 * torch.arange(size, device=box.device, dtype=box.dtype) + 1) / size - 1
    low, high = box[:, 0, :, None], box[:, 1, :, None]
    share = ((at - low) / (high - low).clamp(min=1e-3)).clamp(-0.1, 1.1)  # (b, 3, size)
    steps = torch.arange(1, _WAVES + 1, device=box.device, dtype=box.dtype) * math.pi
    turns = box.new_tensor(_TURNS) * math.pi
    parts = [(share[..., None] * steps).cos(), (share[..., None] * steps).sin(), share[..., None]]
    cube = at[None, None, :, None].expand(*share.shape, 1)
    parts += [(cube * turns).cos(), (cube * turns).sin(), cube]
    waves = torch.cat(parts, -1).movedim(-1, 2)  # (b, 3 axes, k, size)
    planes = []
    for across, down in AXES:
        columns = waves[:, across, :, None, :].expand(-1, -1, size, -1)
        rows = waves[:, down, :, :, None].expand(-1, -1, -1, size)
        planes.append(torch.cat([columns, rows], 1))
    return torch.stack(planes, 1)
