"""Options of the rotation stage."""

from dataclasses import dataclass
from typing import Literal

from vision3d.errors import ConfigError
from vision3d.ranges import check_counts, check_not_negative, check_positive

PUBLISHED_ROWS = ("6d", "5d", "9d_svd", "quat", "axis_angle4", "rotvec", "euler")

RESUMABLE = ("representations", "seeds", "checkpoint_every", "keep", "device")
"""Keys that may change when a run is resumed."""
GROWS = ("steps",)
"""Keys that may become larger when a run is resumed."""


@dataclass(frozen=True)
class TrainingConfig:
    """What the three experiments share: each trains one network for every representation and seed."""

    representations: tuple[str, ...] = PUBLISHED_ROWS
    """Names of docs/rotations.md."""
    seeds: tuple[int, ...] = (0,)
    """One training for each; draws of the data are the same for all representations."""
    steps: int = 12_000
    """Steps of each training."""
    lr: float = 2e-3
    """Highest learning rate of Adam."""
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """Rise for three tenths of the run and fall to nearly 0, or stay."""
    drop_after: int = 0
    """Of constant: steps after which the rate is a tenth; 0: never."""
    log_every: int = 100
    """Steps between two lines of metrics.jsonl."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; 0: only at the end and when interrupted."""
    keep: int = 2
    """How many checkpoints of a training stay."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        if not self.representations:
            raise ConfigError("representations", "got none, want at least one name of docs/rotations.md")
        if self.representations != type(self).representations:  # the defaults need no look, nor does --help torch
            _check_names(self.representations)
        for name in ("representations", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise ConfigError(name, f"{twice} is given twice")
        if not self.seeds or not all(0 <= seed < 2**31 for seed in self.seeds):
            raise ConfigError("seeds", f"got {list(self.seeds)}, want whole numbers of 0 to 2^31 - 1, at least one")
        check_counts(self, "steps", "log_every", "keep")
        check_not_negative(self, "drop_after", "checkpoint_every")
        check_positive(self, "lr")


def _check_names(names: tuple[str, ...]) -> None:
    from vision3d.geometry.representations import representation

    for name in names:
        try:
            representation(name)
        except ConfigError as error:
            raise ConfigError("representations", error.problem) from None


@dataclass(frozen=True)
class SanityConfig(TrainingConfig):
    """Learn to give back the rotation that is put in."""

    batch_size: int = 64
    """Rotations a step."""
    loss: Literal["entries", "geodesic"] = "entries"
    """Mean of the squared differences of the entries, or the mean angle [rad]."""
    width: int = 128
    """Of the three hidden layers."""
    test_rotations: int = 100_000
    """Uniform rotations to measure on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "batch_size", "width", "test_rotations")


@dataclass(frozen=True)
class PointCloudConfig(TrainingConfig):
    """Find the rotation between a cloud of points and its rotated copy."""

    representations: tuple[str, ...] = ("6d", "5d", "9d_svd", "9d_direct", "quat", "axis_angle4", "euler")
    """Names of docs/rotations.md."""
    steps: int = 16_000
    """Steps of each training."""
    lr: float = 7e-4
    """Highest learning rate of Adam."""
    clouds: int = 8
    """Clouds a step."""
    rotations: int = 8
    """Rotated copies of each; the cloud itself is encoded once for all."""
    points: int = 256
    """Points of a cloud that are drawn, anew at every step; 0: all that every cloud has."""
    sampling: Literal["haar", "published"] = "haar"
    """Uniform rotations, or with angles that are uniform in 0 to 180 degrees, as in the code of the paper."""
    test_rotations: int = 50
    """Rotations of each held-out cloud."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "clouds", "rotations", "test_rotations")
        if self.points < 0:
            raise ConfigError("points", f"got {self.points}, want at least 1, or 0 for all")


@dataclass(frozen=True)
class IkConfig(TrainingConfig):
    """Find the rotations of joints from their places."""

    representations: tuple[str, ...] = ("6d", "5d", "9d_svd", "9d_direct", "quat", "axis_angle4", "rotvec", "euler")
    """Names of docs/rotations.md."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training for each; draws of the data are the same for all representations."""
    steps: int = 16_000
    """Steps of each training."""
    lr: float = 2e-3
    """Highest learning rate of Adam."""
    batch_size: int = 64
    """Poses a step."""
    width: int = 512
    """Of the three hidden layers; 1024 as published."""
    rate: float = 30.0
    """Poses a second to which all clips are brought."""
    scale: float = 0.0
    """Metres in the unit of the clips; 0: what makes the skeleton `height` tall at rest."""
    height: float = 1.7
    """Of the body [m], where no scale is given."""
    shift: float = 0.1
    """Greatest shift on the ground in training [m]."""
    jitter_deg: float = 20.0
    """Of random turns of every joint in training, standard deviation about each axis; 0: none, as published. It makes up for
    clips that are few."""
    up: Literal["auto", "x", "y", "z"] = "auto"
    """Axis about which poses are turned in training and in the test; auto: from the feet to the head, by names."""
    hip_weight: float = 10.0
    """Weight of the places of the joints next to the root, which those below depend on, beside that of all."""
    weighted: tuple[str, ...] = ()
    """Names of the joints that have this weight; none: those next to the root."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "batch_size", "width")
        check_positive(self, "rate", "height")
        check_not_negative(self, "scale", "shift", "hip_weight", "jitter_deg")
