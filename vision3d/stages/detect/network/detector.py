"""Detectors: encoder, bird's-eye network and head."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.stages.detect.config import ModelConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.network.anchors import AnchorHead
from vision3d.stages.detect.network.bev import BevNet
from vision3d.stages.detect.network.centers import CenterHead
from vision3d.stages.detect.network.head import Head
from vision3d.stages.detect.network.lion import LionBackbone
from vision3d.stages.detect.network.points import PointEncoder
from vision3d.stages.detect.network.sparse_bev import CellRows
from vision3d.stages.detect.voxels.voxels import Voxels, keys_of


class Network(nn.Module):
    """Points to the predictions of the head.

    lion: sequence operators on voxels, then the image from above (LION, Liu et al. 2024, arXiv 2407.18232).
    pillars: the image at once (PointPillars, Lang et al. 2019, arXiv 1812.05784), with the same encoder.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, length, height = config.grid.shape
        cells = (width, length, height if config.method == "lion" else 1)
        self.encoder = PointEncoder(config.channels, config.grid, cells, config.intensity)
        self.backbone = LionBackbone(config.channels, cells, config.lion) if config.method == "lion" else None
        self.bev = BevNet(config.channels * (1 if self.backbone is None else self.backbone.height), config.bev)
        self.head = make_head(self.bev.channels, config)
        # As the image is: a fifth faster on a CPU.
        for parameter in (*self.bev.parameters(), *self.head.parameters()):
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(self, batch: PointBatch) -> Any:
        """The predictions of the head."""
        voxels = self.voxels(batch)
        if self.config.bev.sparse:
            return self.head.at_cells(self.bev.at_cells(CellRows.of_voxels(voxels, self.config.bev.dilate)))
        return self.head(self.bev(height_to_features(voxels)))

    def voxels(self, batch: PointBatch) -> Voxels:
        """The voxels of which the bird's-eye image is made."""
        voxels = self.encoder(batch)
        return voxels if self.backbone is None else self.backbone(voxels)

    def image(self, batch: PointBatch) -> Float[Tensor, "b c x y"]:
        """The bird's-eye image before its convolutions."""
        return height_to_features(self.voxels(batch))


def make_head(inputs: int, config: ModelConfig) -> Head[Any]:
    """The head of a configuration.

    Args:
        inputs: Features of the bird's-eye image.
        config: The network.
    """
    if config.head == "anchor":
        return AnchorHead(inputs, config.grid, config.anchors)
    return CenterHead(inputs, config.head_channels, len(config.classes), config.grid)


def height_to_features(voxels: Voxels) -> Float[Tensor, "b c x y"]:
    """The bird's-eye image of voxels, with the features of all heights side by side; channels last in memory."""
    width, length, height = voxels.grid
    image = voxels.features.new_zeros(voxels.batch_size * width * length * height, voxels.features.shape[1])
    image = image.index_put((keys_of(voxels.coords, voxels.grid),), voxels.features)
    return image.view(voxels.batch_size, width, length, -1).permute(0, 3, 1, 2)


def make_network(config: ModelConfig) -> Network:
    """The network of a configuration, with random parameters."""
    return Network(config)
