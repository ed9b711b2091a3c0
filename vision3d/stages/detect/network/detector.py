"""A detector: encoder, bird's-eye network and head."""

from torch import Tensor, nn

from vision3d.stages.detect.config import ModelConfig
from vision3d.stages.detect.network.bev import BevNet
from vision3d.stages.detect.network.head import CenterHead, Outputs
from vision3d.stages.detect.network.points import PointBatch, PointEncoder, to_image


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
        features, cells = self.encoder(batch)
        return to_image(features, cells, batch.num_samples, self.config.grid.shape[:2])


def make_network(config: ModelConfig) -> nn.Module:
    """The network of a configuration, with random parameters."""
    return Pillars(config)
