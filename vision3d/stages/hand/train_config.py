"""Options of the training of a hand network."""

from dataclasses import dataclass, field

from vision3d.core.errors import ConfigError
from vision3d.core.ranges import check_not_negative
from vision3d.stages.hand.config import AugmentConfig, FrameConfig, LossConfig, NetworkConfig
from vision3d.stages.hand.training_options import TrainingOptions


@dataclass(frozen=True)
class TrainConfig(TrainingOptions):
    """Train the network of hands on generated images."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    """The network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the losses."""
    frames: FrameConfig = field(default_factory=lambda: FrameConfig(size=160, empty=0.06))
    """What the generated images show."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of the images."""
    frozen: int = 0
    """First groups of blocks of the backbone that keep their first weights, such as 3 with `--init imagenet`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "frozen")
        if self.frames.size != self.network.input_size:
            raise ConfigError("frames.size", f"got {self.frames.size}, want network.input_size, {self.network.input_size}")
