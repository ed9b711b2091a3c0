"""From colored points to planes in one pass, and the decoder of the planes.

As convolutional occupancy networks do (Peng et al. 2020, arXiv 2003.04618, section 3): features of the points are averaged in
the texels of the three planes, and a 2D U-Net that the planes share spreads them.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ShapeError
from vision3d.render.triplanes.field import decode, sample_planes, shaded
from vision3d.scene.triplane import AXES
from vision3d.stages.edit.config import PlanesConfig
from vision3d.stages.edit.network.blocks import Block, Cross

VALUES = 5
"""Of a point: red, green, blue, metallic, roughness."""


class PlaneNet(nn.Module):
    """Encoder and decoder.

    Args:
        config: Sizes.
    """

    def __init__(self, config: PlanesConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.points = nn.Sequential(nn.Linear(3 + 2 + VALUES, width), nn.SiLU(), nn.Linear(width, width))
        self.embedding = nn.Parameter(torch.zeros(3, width, 1, 1))
        self.unet = UNet(width + 1, width, config.levels, config.channels)
        count, hidden = config.channels - config.density_channels, config.hidden
        layers = {
            "density": [3 * config.density_channels, hidden, 1],
            "color": [3 * count, hidden, hidden, VALUES],
        }
        self.decoder = nn.ModuleDict(
            {name: nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)) for name, sizes in layers.items()}
        )

    def encode(
        self, points: Float[Tensor, "b n 3"], values: Float[Tensor, "b n 5"], weights: Float[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b 3 c h w"]:
        """The planes of objects.

        Args:
            points: On the surface, in the cube [-1, 1]^3.
            values: Red, green, blue (sRGB), metallic and roughness of each.
            weights: Of the points in the means; 1 when None.
        """
        if points.ndim != 3 or points.shape[2] != 3 or values.shape != (*points.shape[:2], VALUES):
            raise ShapeError("points, values", (tuple(points.shape), tuple(values.shape)), "(B, N, 3), (B, N, 5)")
        size = self.config.size
        weights = points.new_ones(points.shape[:2]) if weights is None else weights
        return self.unet(torch.stack([self._scattered(points, values, weights, axes, size) for axes in AXES], 1))

    def values(self, planes: Float[Tensor, "b 3 c h w"], points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 5"]:
        """Red, green, blue, metallic, roughness at points."""
        return shaded(self.raw_values(planes[:, :, self.config.density_channels :], points))

    def raw_values(self, color_planes: Float[Tensor, "b 3 k h w"], points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 5"]:
        """The same before they are squashed, from the channels of color only."""
        return decode(self.weights(), "color", sample_planes(color_planes, points))

    def logits(self, planes: Float[Tensor, "b 3 c h w"], points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
        """Logits of being inside at points."""
        features = sample_planes(planes[:, :, : self.config.density_channels], points)
        return decode(self.weights(), "density", features)[..., 0]

    def weights(self) -> dict[str, Tensor]:
        """The decoder as a `Triplane` holds it."""
        return {name.removeprefix("decoder."): value for name, value in self.named_parameters() if name.startswith("decoder.")}

    def _scattered(self, points: Tensor, values: Tensor, weights: Tensor, axes: tuple[int, int], size: int) -> Tensor:
        """Means of the features of the points in each texel of a plane, and how full it is."""
        at = (points[..., axes] + 1) * (0.5 * size)
        cells = at.floor().clamp(0, size - 1)
        features = self.points(torch.cat([points, at - cells - 0.5, values], -1))
        rows = cells[..., 1].long() * size + cells[..., 0].long()
        rows = rows + torch.arange(len(points), device=points.device)[:, None] * size * size
        total = features.new_zeros(len(points) * size * size, features.shape[-1] + 1)
        parts = torch.cat([features, torch.ones_like(features[..., :1])], -1) * weights[..., None]
        total = total.index_add(0, rows.flatten(), parts.flatten(0, 1).to(total))
        means = total[:, :-1] / total[:, -1:].clamp(min=1e-6)
        filled = (total[:, -1:] > 0).to(means)
        plane = torch.cat([means, filled], 1).view(len(points), size, size, -1).permute(0, 3, 1, 2)
        index = AXES.index(axes)
        return torch.cat([plane[:, :-1] + self.embedding[index] * plane[:, -1:], plane[:, -1:]], 1)


class UNet(nn.Module):
    """A 2D U-Net over three planes, which exchange means along their common axes at each level.

    Args:
        inputs: Channels of the planes.
        width: Channels of the finest level; each coarser one has as many more.
        levels: Number of levels.
        outputs: Channels of the result.
    """

    def __init__(self, inputs: int, width: int, levels: int, outputs: int) -> None:
        super().__init__()
        widths = [width * (level + 1) for level in range(levels)]
        self.enter = nn.Conv2d(inputs, width, 3, padding=1)
        self.down = nn.ModuleList(Block(channels) for channels in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in itertools.pairwise(widths))
        self.cross = nn.ModuleList(Cross(channels) for channels in widths)
        self.up = nn.ModuleList(Block(channels) for channels in widths)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.leave = nn.Conv2d(width, outputs, 1)

    def forward(self, planes: Float[Tensor, "b 3 c h w"]) -> Float[Tensor, "b 3 k h w"]:
        """The planes with features of what lies around."""
        count = len(planes)
        x = self.enter(planes.flatten(0, 1))
        kept = []
        for level, (block, cross) in enumerate(zip(self.down, self.cross)):
            if level:
                x = self.shrink[level - 1](x)
            x = cross(block(x).unflatten(0, (count, 3))).flatten(0, 1)
            kept.append(x)
        for level in range(len(kept) - 1, -1, -1):
            if level < len(kept) - 1:
                x = kept[level] + nn.functional.interpolate(self.grow[level](x), scale_factor=2.0, mode="bilinear")
            x = self.up[level](x)
        return self.leave(x).unflatten(0, (count, 3))
