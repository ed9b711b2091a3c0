"""Options of the edit stage."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_counts, check_not_negative, check_numbers
from vision3d.training.options import NetworkTraining, training_groups

Split = Literal["train", "val", "test"]
"""Of the objects: to train on, to choose by, and to measure on."""


@dataclass(frozen=True)
class PlanesConfig:
    """Encoder and decoder of planes."""

    size: int = 64
    """Texels along a side of a plane."""
    channels: int = 20
    """Channels of a plane."""
    density_channels: int = 8
    """Of these, those of the density; the others are color and material, which edits change."""
    width: int = 32
    """Channels of the finest level of the encoder."""
    levels: int = 4
    """Levels of the encoder, each with half the texels."""
    hidden: int = 64
    """Neurons of the hidden layers of the decoder."""

    def __post_init__(self) -> None:
        check_counts(self, "size", "channels", "density_channels", "width", "levels", "hidden")
        if self.density_channels >= self.channels:
            raise ConfigError("density_channels", f"got {self.density_channels}, want less than channels, {self.channels}")
        if self.size % 2 ** (self.levels - 1):
            raise ConfigError("size", f"got {self.size}, want a multiple of {2 ** (self.levels - 1)}, by the levels")


@dataclass(frozen=True)
class AdapterConfig:
    """The network that changes planes by a text."""

    reduce: int = 8
    """Texels along a side of the blocks that the U-Net sees, an even number; the other layers see each texel."""
    width: int = 48
    """Channels of the finest level of the U-Net."""
    levels: int = 2
    """Levels, each with half the blocks."""
    context: int = 16
    """Features of the U-Net that the layers at each texel see."""
    hidden: int = 96
    """Features of these layers."""
    layers: int = 2
    """Number of these layers."""
    style: int = 192
    """Features of text and object that steer the layers."""
    queries: int = 8
    """Queries that attend to the tokens of the text."""

    def __post_init__(self) -> None:
        check_counts(self, "reduce", "width", "levels", "context", "hidden", "layers", "style", "queries")
        if self.reduce % 2:
            raise ConfigError("reduce", f"got {self.reduce}, want an even number")


@dataclass(frozen=True)
class ObjectTraining(NetworkTraining):
    """Train on objects."""

    HELP_GROUPS: ClassVar[HelpGroups] = training_groups(("steps", "batch_size", "objects", "furniture"), "evaluate_objects")

    furniture: Path | None = None
    """Folder with the unpacked Debian package sweethome3d-furniture; procedural objects only without it."""
    objects: int = 4096
    """Different objects, made before the training and kept on disk, 230 KB each."""
    samples: Path | None = None
    """Folder of the objects; by default in the cache."""
    points: int = 8192
    """Maximum number of points that the encoder sees."""
    queries: int = 2048
    """Points per object at which colors and the inside are compared."""
    steps: int = 4000
    """Steps of training."""
    batch_size: int = 4
    """Objects per step."""
    ema: float = 0.995
    """Decay of the moving averages of the parameters, which are evaluated and saved."""
    checkpoint_every: int = 250
    """Steps between checkpoints; 0: only at the end and when interrupted."""
    evaluate_every: int = 1000
    """Steps between evaluations, whose best checkpoint is kept as best.pt; 0: only at the end."""
    evaluate_objects: int = 64
    """Held-out objects of an evaluation; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "objects", "points", "queries")
        check_not_negative(self, "evaluate_objects")


@dataclass(frozen=True)
class PlanesTrainConfig(ObjectTraining):
    """Train encoder and decoder of planes."""

    network: PlanesConfig = field(default_factory=PlanesConfig)
    """The network."""


@dataclass(frozen=True)
class AdapterTrainConfig(ObjectTraining):
    """Train the network that edits planes by a text."""

    network: AdapterConfig = field(default_factory=AdapterConfig)
    """The network."""
    planes: str = "edit_planes"
    """Encoder and decoder of the planes: a file, or the name of bundled weights."""
    batch_size: int = 32
    """Pairs of an object and an instruction per step."""
    pool: int = 384
    """Encoded objects that a step draws from; every second step replaces one of them."""
    queries: int = 1024
    """Points per object of which targets are computed."""
    compared: int = 64
    """Of these, the points at which colors are compared."""
    phrases: int = 8192
    """Different instructions."""
    two: float = 0.15
    """Share of instructions with two edits."""
    basic: float = 0.4
    """Share of edits that are basic: of the whole object, without fine colors and patterns in given colors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "phrases", "pool", "compared")
        check_numbers(self, ("two", "basic"), lambda value: 0 <= value <= 1, "a share in [0, 1]")
        if self.compared > self.queries:
            raise ConfigError("compared", f"got {self.compared}, want at most queries, {self.queries}")
