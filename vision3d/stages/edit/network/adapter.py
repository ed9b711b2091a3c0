"""The adapter: what a text changes in the color features of planes, by regression.

A zero-initialised residual, as the adapters of frozen networks have. The paper trains a latent denoiser instead; where the
target is unique, regression needs a fraction of its training.

The text and a summary of the object predict linear maps of the color channels: one that holds everywhere ("make it red"), and
others weighted by masks in [0, 1] that layers at each texel draw ("add red stripes"). These layers see the texel, its place,
and what a coarse U-Net knows of the shape around it; they are not convolutions, so that a training can evaluate them at those
texels only that the compared points touch.
"""

import itertools

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vision3d.scene.triplane import AXES
from vision3d.stages.edit.config import AdapterConfig, PlanesConfig
from vision3d.stages.edit.network.blocks import Block, Cross
from vision3d.stages.edit.network.places import PLACES, axis_features, place_features, texels_at
from vision3d.stages.edit.network.texts import READING, TextReader

_SUMMARY = 32
_MASKS = 2


class AdapterNet(nn.Module):
    """From planes and a text to the change of the channels of color.

    Args:
        planes: The network whose planes are changed.
        config: Sizes.
    """

    def __init__(self, planes: PlanesConfig, config: AdapterConfig) -> None:
        super().__init__()
        self.planes, self.config = planes, config
        self.colors = planes.channels - planes.density_channels
        style = config.style
        self.texts = TextReader(style, config.queries)
        self.summary = nn.Linear(planes.channels, _SUMMARY + 1)
        # Without the norms, what differs between texts would be a percent of what all have in common after some layers.
        self.style = nn.Sequential(
            nn.Linear(style + READING + 4 + 3 * _SUMMARY, 2 * style),
            nn.SiLU(),
            nn.Linear(2 * style, style),
            nn.LayerNorm(style),
        )
        self.maps = nn.Linear(style, 3 * (1 + _MASKS) * self.colors * (self.colors + 1))
        self.around = Around(4 * planes.channels, style, config)
        inputs = planes.channels + PLACES + config.context
        self.texels = nn.ModuleList(
            Modulated(size, config.hidden, style) for size in (inputs, *[config.hidden] * (config.layers - 1))
        )
        self.masks = nn.Linear(config.hidden, _MASKS)
        self.leave = nn.Linear(config.hidden, self.colors)
        for parameter in (*self.leave.parameters(), *self.maps.parameters()):
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
        height, width = planes.shape[3:]
        numbers = torch.arange(max(height, width), device=planes.device)
        columns, rows = texels_at(numbers[:height], numbers[:width], len(planes))
        text, reading = self.texts(tokens, mask)
        changed = self.change(planes, columns, rows, box, text, reading, baked)[1]
        return changed.transpose(2, 3).unflatten(3, (height, width))

    def features(
        self,
        planes: Float[Tensor, "b 3 c h w"],
        points: Float[Tensor, "b n 3"],
        box: Float[Tensor, "b 2 3"],
        text: Float[Tensor, "b s"],
        reading: Float[Tensor, "b r"],
        baked: Float[Tensor, " b"],
    ) -> Float[Tensor, "b n f"]:
        """Color features of edited planes at points, as `sample_planes` gives them; computed at the texels around the points.

        Args:
            planes: Of the source.
            points: In the cube.
            box: Lowest and highest corner of the object.
            text: Features of the text.
            reading: Its reading.
            baked: As for `forward`.
        """
        size = planes.shape[-1]
        on_planes = torch.stack([points[..., axes] for axes in AXES], 1)
        at = ((on_planes + 1) * (size / 2) - 0.5).clamp(0, size - 1)
        low = at.floor().clamp(max=size - 2)
        share, low = at - low, low.long()
        corners = [(low[..., 0] + i, low[..., 1] + j) for j in (0, 1) for i in (0, 1)]
        columns, rows = (torch.stack(parts, 3).flatten(2) for parts in zip(*corners))
        own, change = self.change(planes, columns, rows, box, text, reading, baked)
        weights = [torch.stack([1 - share[..., axis], share[..., axis]], -1) for axis in (0, 1)]
        weights = (weights[1][..., :, None] * weights[0][..., None, :]).flatten(3)  # (b, 3, n, 4)
        found = ((own + change).unflatten(2, (-1, 4)) * weights[..., None]).sum(3)
        return found.transpose(1, 2).flatten(2)

    def change(
        self, planes: Tensor, columns: Int64[Tensor, "b 3 m"], rows: Int64[Tensor, "b 3 m"], box: Tensor, text: Tensor,
        reading: Tensor, baked: Tensor,
    ) -> tuple[Float[Tensor, "b 3 m k"], Float[Tensor, "b 3 m k"]]:  # fmt: skip
        """Color channels of texels, and their change."""
        count, size = len(planes), planes.shape[-1]
        flat = planes.flatten(3).transpose(2, 3)  # (b, 3, texels, c)
        about = [text, reading, baked[:, None], box[:, 1] - box[:, 0], self._summary(flat)]
        style = self.style(torch.cat(about, 1))
        maps = self.maps(style).view(count, 3, 1 + _MASKS, self.colors + 1, self.colors)
        own = _gathered(flat, rows * size + columns)
        along, reduce = axis_features(box, size), self.config.reduce
        around = self.around(planes, along, style).flatten(3).transpose(2, 3)
        near = _gathered(around, rows // reduce * (size // reduce) + columns // reduce)
        y = torch.cat([own, place_features(along, columns, rows), near], 3)
        for layer in self.texels:
            y = layer(y, style)
        masks = torch.cat([torch.ones_like(y[..., :1]), self.masks(y).sigmoid()], -1)
        colors = own[..., self.planes.density_channels :]
        mapped = colors[:, :, None] @ maps[..., :-1, :] + maps[..., -1:, :]  # (b, 3, masks, m, k)
        return colors, self.leave(y) + (mapped * masks.transpose(2, 3)[..., None]).sum(2)

    def _summary(self, texels: Float[Tensor, "b 3 t c"]) -> Float[Tensor, "b s"]:
        """Weighted means over each plane of features of its texels: the object's own colors, without what is empty."""
        features, weights = self.summary(texels[:, :, ::3]).split((_SUMMARY, 1), -1)
        weights = weights.sigmoid()
        return ((nn.functional.silu(features) * weights).sum(2) / weights.sum(2).clamp(min=1e-3)).flatten(1)


class Around(nn.Module):
    """A U-Net over blocks of texels: what lies around them.

    Args:
        inputs: Channels of a block.
        style: Features of text and object.
        config: Sizes.
    """

    def __init__(self, inputs: int, style: int, config: AdapterConfig) -> None:
        super().__init__()
        self.reduce, width = config.reduce, config.width
        self.embedding = nn.Parameter(torch.zeros(3, width, 1, 1))
        self.enter = nn.Conv2d(inputs + PLACES, width, 1)
        widths = [width * (level + 2) // 2 for level in range(config.levels)]
        self.down = nn.ModuleList(Block(channels, style) for channels in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in itertools.pairwise(widths))
        self.cross = nn.ModuleList(Cross(channels) for channels in widths)
        self.up = nn.ModuleList(Block(channels, style) for channels in widths)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.leave = nn.Conv2d(width, config.context, 1)

    def forward(
        self, planes: Float[Tensor, "b 3 c h w"], along: Float[Tensor, "b 3 h k"], style: Float[Tensor, "b s"]
    ) -> Float[Tensor, "b 3 k i j"]:
        """Features of the blocks.

        Args:
            planes: Of the source.
            along: Of `axis_features`.
            style: Features of text and object.
        """
        count, size = len(planes), planes.shape[-1] // self.reduce
        # Four means of a block are enough of it here, and all of its texels would cost as much as the rest of the network.
        blocks = nn.functional.pixel_unshuffle(nn.functional.avg_pool2d(planes.flatten(0, 1), self.reduce // 2), 2)
        middle = torch.arange(size, device=planes.device) * self.reduce + self.reduce // 2
        rows, columns = (one.flatten().expand(count, 3, -1) for one in torch.meshgrid(middle, middle, indexing="ij"))
        places = place_features(along, columns, rows).transpose(2, 3).unflatten(3, (size, size)).flatten(0, 1)
        style = style.repeat_interleave(3, 0)
        x = self.enter(torch.cat([blocks, places], 1)) + self.embedding.repeat(count, 1, 1, 1)
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
        return self.leave(x).unflatten(0, (count, 3))


class Modulated(nn.Module):
    """A layer at each texel whose features are scaled and shifted by text and object.

    Args:
        inputs: Features.
        outputs: Features.
        condition: Features of text and object.
    """

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        self.style = nn.Linear(condition, 2 * outputs)

    def forward(self, x: Float[Tensor, "b 3 m i"], condition: Float[Tensor, "b k"]) -> Float[Tensor, "b 3 m o"]:
        """The features of the texels."""
        scale, shift = self.style(condition).chunk(2, 1)
        # The scale is part of the weights: a pass over the texels would cost more than the product with them.
        weights = self.layer.weight * (1 + scale)[..., None]
        shift = shift + self.layer.bias * (1 + scale)
        return nn.functional.silu(torch.baddbmm(shift[:, None], x.flatten(1, 2), weights.transpose(1, 2))).unflatten(1, (3, -1))


def _gathered(values: Float[Tensor, "b 3 t c"], cells: Int64[Tensor, "b 3 m"]) -> Float[Tensor, "b 3 m c"]:
    return values.gather(2, cells[..., None].expand(-1, -1, -1, values.shape[-1]))
