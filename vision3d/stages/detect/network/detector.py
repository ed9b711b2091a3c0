"""Detectors: encoder, bird's-eye network and head."""

from jaxtyping import Float
from torch import Tensor, nn

from vision3d.stages.detect.config import ModelConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.network.bev import BevNet
from vision3d.stages.detect.network.head import CenterHead, Outputs
from vision3d.stages.detect.network.lion import LionBackbone
from vision3d.stages.detect.network.points import PointEncoder
from vision3d.stages.detect.voxels.voxels import Voxels, keys_of


class Pillars(nn.Module):
    """PointPillars (Lang et al. 2019, arXiv 1812.05784) with the dynamic encoder and a center head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, height, _ = config.grid.shape
        self.encoder = PointEncoder(config.channels, config.grid, (width, height, 1), config.intensity)
        self.bev = BevNet(config.channels, config.bev)
        self.head = CenterHead(self.bev.channels, config.head_channels, len(config.classes))

    def forward(self, batch: PointBatch) -> Outputs:
        return self.head(self.bev(self.image(batch)))

    def image(self, batch: PointBatch) -> Tensor:
        """The bird's-eye image of the encoder."""
        return height_to_features(self.encoder(batch))


class Lion(nn.Module):
    """LION (Liu et al. 2024, arXiv 2407.18232): sequence operators on voxels, then the image from above."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PointEncoder(config.channels, config.grid, config.grid.shape, config.intensity)
        self.backbone = LionBackbone(config.channels, config.grid.shape, config.lion)
        self.bev = BevNet(config.channels * self.backbone.height, config.bev)
        self.head = CenterHead(self.bev.channels, config.head_channels, len(config.classes))

    def forward(self, batch: PointBatch) -> Outputs:
        return self.head(self.bev(height_to_features(self.backbone(self.encoder(batch)))))


def height_to_features(voxels: Voxels) -> Float[Tensor, "b c x y"]:
    """The bird's-eye image of voxels, with the features of all heights side by side; channels last in memory."""
    width, length, height = voxels.grid
    image = voxels.features.new_zeros(voxels.batch_size * width * length * height, voxels.features.shape[1])
    image = image.index_put((keys_of(voxels.coords, voxels.grid),), voxels.features)
    return image.view(voxels.batch_size, width, length, -1).permute(0, 3, 1, 2)


def make_network(config: ModelConfig) -> nn.Module:
    """The network of a configuration, with random parameters."""
    return Lion(config) if config.method == "lion" else Pillars(config)
