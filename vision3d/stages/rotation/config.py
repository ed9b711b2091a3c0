"""Options of the rotation stage."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_counts, check_not_negative, check_positive

PUBLISHED_ROWS = ("6d", "5d", "9d_svd", "quat", "axis_angle4", "rotvec", "euler")

RESUMABLE = ("representations", "seeds", "checkpoint_every", "keep", "device")
"""Keys that may change when a run is resumed."""
GROWS = ("steps",)
"""Keys that may be larger when a run is resumed."""


@dataclass(frozen=True)
class TrainingConfig:
    """Options shared by the three experiments: each trains one network for every representation and seed."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("representations", "seeds", "steps"),
        "training": ("lr", "schedule", "drop_after", "device"),
        "logs and checkpoints": ("log_every", "checkpoint_every", "keep"),
    }

    representations: tuple[str, ...] = PUBLISHED_ROWS
    """Names of docs/rotations.md."""
    seeds: tuple[int, ...] = (0,)
    """One training per seed; all representations see the same data."""
    steps: int = 12_000
    """Steps of each training."""
    lr: float = 2e-3
    """Maximum learning rate of Adam."""
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """Rise for three tenths of training and decay to nearly 0 (one-cycle), or constant."""
    drop_after: int = 0
    """With --schedule constant: step after which the learning rate is a tenth; 0: never."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; 0: only at the end and when interrupted."""
    keep: int = 2
    """Number of checkpoints to keep per training."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        if not self.representations:
            raise ConfigError("representations", "got none, want at least one name of docs/rotations.md")
        if self.representations != type(self).representations:  # the defaults need no check, and --help does not import torch
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
    """Reproduce the input rotation."""

    batch_size: int = 64
    """Rotations per step."""
    loss: Literal["entries", "geodesic"] = "entries"
    """Mean of the squared differences of the entries, or the mean angle [rad]."""
    width: int = 128
    """Width of the three hidden layers."""
    test_rotations: int = 100_000
    """Number of uniform test rotations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "batch_size", "width", "test_rotations")


@dataclass(frozen=True)
class PointCloudConfig(TrainingConfig):
    """Estimate the rotation between a point cloud and its rotated copy."""

    representations: tuple[str, ...] = ("6d", "5d", "9d_svd", "9d_direct", "quat", "axis_angle4", "euler")
    """Names of docs/rotations.md."""
    steps: int = 16_000
    """Steps of each training."""
    lr: float = 7e-4
    """Maximum learning rate of Adam."""
    clouds: int = 8
    """Clouds per step."""
    rotations: int = 8
    """Rotated copies of each cloud; the cloud itself is encoded once for all."""
    points: int = 256
    """Points sampled from each cloud at every step; 0: the minimum number over all clouds."""
    sampling: Literal["haar", "published"] = "haar"
    """Uniform rotations (haar), or uniform angles in 0 to 180 degrees, as in the code of the paper (published)."""
    test_rotations: int = 50
    """Rotations of each held-out cloud."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "clouds", "rotations", "test_rotations")
        if self.points < 0:
            raise ConfigError("points", f"got {self.points}, want at least 1, or 0 for all")


@dataclass(frozen=True)
class IkConfig(TrainingConfig):
    """Estimate joint rotations from joint positions."""

    representations: tuple[str, ...] = ("6d", "5d", "9d_svd", "9d_direct", "quat", "axis_angle4", "rotvec", "euler")
    """Names of docs/rotations.md."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training per seed; the sampled data is the same for all representations."""
    steps: int = 16_000
    """Steps of each training."""
    lr: float = 2e-3
    """Maximum learning rate of Adam."""
    batch_size: int = 64
    """Poses per step."""
    width: int = 512
    """Width of the three hidden layers; 1024 as published."""
    rate: float = 30.0
    """Poses per second to which all clips are resampled."""
    scale: float = 0.0
    """Meters per unit of the clips; 0: scale the skeleton to --height in its rest pose."""
    height: float = 1.7
    """Height of the body [m], if no scale is given."""
    shift: float = 0.1
    """Maximum horizontal translation in training [m]."""
    jitter_deg: float = 20.0
    """Standard deviation of random rotations of every joint about each axis in training [degrees]; 0: none, as published. It
    compensates for few clips."""
    up: Literal["auto", "x", "y", "z"] = "auto"
    """Up axis, about which poses are rotated in training and in the test; auto: from the feet to the head, by names."""
    hip_weight: float = 10.0
    """Weight of the positions of the joints next to the root, on which their descendants depend, relative to all others."""
    weighted: tuple[str, ...] = ()
    """Names of the joints with this weight; none: those next to the root."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "batch_size", "width")
        check_positive(self, "rate", "height")
        check_not_negative(self, "scale", "shift", "hip_weight", "jitter_deg")
