"""Options of the finder and of its training."""

from dataclasses import dataclass, field

from vision3d.core.errors import ConfigError
from vision3d.core.ranges import check_counts, check_numbers
from vision3d.stages.hand.config import STRIDE
from vision3d.stages.hand.training_options import TrainingOptions


@dataclass(frozen=True)
class FinderConfig:
    """The network of the finder."""

    size: int = 192
    """Longer side of the reduced image, which is padded to a square [px]."""
    channels: int = 64
    """Features of a cell."""

    def __post_init__(self) -> None:
        check_counts(self, "channels")
        if not 64 <= self.size <= 1024 or self.size % STRIDE:
            raise ConfigError("size", f"got {self.size}, want a multiple of {STRIDE} from 64 to 1024")


@dataclass(frozen=True)
class SceneConfig:
    """What the generated whole images show."""

    size: int = 192
    """Side [px]."""
    first: float = 0.85
    """Share of images with a hand."""
    second: float = 0.4
    """Share with another one."""
    objects: float = 0.25
    """Share of hands that hold something."""

    def __post_init__(self) -> None:
        check_counts(self, "size")
        check_numbers(self, ("first", "second", "objects"), lambda value: 0 <= value <= 1, "a share in [0, 1]")


@dataclass(frozen=True)
class FinderTrainConfig(TrainingOptions):
    """Train the finder of hands on generated images."""

    network: FinderConfig = field(default_factory=FinderConfig)
    """The network."""
    scenes: SceneConfig = field(default_factory=SceneConfig)
    """What the generated images show."""
    backbone: str | None = None
    """Network of `hand train` whose backbone to begin with: a file, or the name of bundled weights. It knows hands already."""
    images: int = 40_000
    """Different images, a multiple of 16."""
    steps: int = 5_000
    """Steps of training."""
    clip_norm: float = 5.0
    """Maximum norm of the gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone is not None and self.init is not None:
            raise ConfigError("backbone", "got it beside init, want one of them")
        if self.scenes.size != self.network.size:
            raise ConfigError("scenes.size", f"got {self.scenes.size}, want network.size, {self.network.size}")
