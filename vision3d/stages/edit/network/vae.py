"""The VAE of planes ("Tri-VAE"): the channels of color as latents of fewer cells, one VAE for each plane or one for all.

Instructive3D (Kathare et al. 2025, arXiv 2501.04374) edits such latents. Only the color channels are coded: the density of the
source stays, so that edits cannot change the shape.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ShapeError
from vision3d.stages.edit.config import PlanesConfig
from vision3d.stages.edit.diffusion_config import VaeConfig
from vision3d.stages.edit.network.blocks import Block

_LOWEST, _HIGHEST = -20.0, 4.0  # log variance


class TriVae(nn.Module):
    """Encoder and decoder of the color channels of three planes.

    Args:
        planes: The network whose planes are coded.
        config: Sizes.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(self, planes: PlanesConfig, config: VaeConfig) -> None:
        super().__init__()
        if planes.size % config.reduce:
            raise ShapeError("planes", planes.size, f"a multiple of reduce, {config.reduce}")
        self.config, self.size = config, planes.size // config.reduce
        self.colors = planes.channels - planes.density_channels
        self.register_buffer("mean", torch.zeros(3, self.colors, 1, 1))
        self.register_buffer("std", torch.ones(3, self.colors, 1, 1))
        self.register_buffer("scale", torch.ones(3 * config.latents, 1, 1))
        stacked = 1 if config.layout == "three" else 3
        values = stacked * self.colors * config.reduce**2
        latents = stacked * config.latents
        number = 3 // stacked
        self.encoders = nn.ModuleList(_chain(values, 2 * latents, config) for _ in range(number))
        self.decoders = nn.ModuleList(_chain(latents, values, config) for _ in range(number))

    @torch.no_grad()
    def normalize_by(self, colors: Float[Tensor, "b 3 k h w"]) -> None:
        """Take mean and standard deviation of each channel from planes of the training set."""
        self.mean.copy_(colors.mean((0, 3, 4))[..., None, None])
        self.std.copy_(colors.std((0, 3, 4)).clamp(min=1e-3)[..., None, None])

    @torch.no_grad()
    def scale_by(self, colors: Float[Tensor, "b 3 k h w"]) -> None:
        """Set the scale of the latents, so that each channel has unit variance: what noise schedules are made for."""
        latents = self.distribution(colors)[0]
        self.scale.copy_(1 / latents.std((0, 2, 3)).clamp(min=1e-3)[:, None, None])

    def distribution(self, colors: Float[Tensor, "b 3 k h w"]) -> tuple[Float[Tensor, "b l i j"], Float[Tensor, "b l i j"]]:
        """Mean and log variance of the latents of color channels, not scaled."""
        cells = nn.functional.pixel_unshuffle((colors - self.mean) / self.std, self.config.reduce)
        parts = cells.unbind(1) if self.config.layout == "three" else [cells.flatten(1, 2)]
        coded = [encoder(part).chunk(2, 1) for encoder, part in zip(self.encoders, parts)]
        means, logs = (torch.cat(some, 1) for some in zip(*coded))
        return means, logs.clamp(_LOWEST, _HIGHEST)

    def encode(self, colors: Float[Tensor, "b 3 k h w"]) -> Float[Tensor, "b l i j"]:
        """Scaled latents: the means."""
        return self.distribution(colors)[0] * self.scale

    def decode(self, latents: Float[Tensor, "b l i j"]) -> Float[Tensor, "b 3 k h w"]:
        """Color channels of scaled latents."""
        latents = latents / self.scale
        parts = latents.chunk(len(self.decoders), 1)
        values = torch.cat([decoder(part) for decoder, part in zip(self.decoders, parts)], 1)
        planes = nn.functional.pixel_shuffle(values.unflatten(1, (3, -1)), self.config.reduce)
        return planes * self.std + self.mean


def _chain(inputs: int, outputs: int, config: VaeConfig) -> nn.Sequential:
    blocks = [Block(config.width) for _ in range(config.blocks)]
    return nn.Sequential(nn.Conv2d(inputs, config.width, 1), *blocks, nn.Conv2d(config.width, outputs, 1))
