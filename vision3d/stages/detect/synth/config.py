"""Options of synthetic LiDAR frames."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups

TRAINING_SENSORS = ("hdl64e", "hdl32e", "vlp16")
VALIDATION_SENSOR = "vls128"
"""Sensors of `mixed`."""


@dataclass(frozen=True, kw_only=True)
class StreetObjects:
    """The labelled objects of a street."""

    cars: tuple[int, int] = (6, 18)
    """Minimum and maximum number of cars and vans; there are fewer if the street has no space left."""
    people: tuple[int, int] = (4, 10)
    """Minimum and maximum number of pedestrians."""
    cyclists: tuple[int, int] = (3, 8)
    """Minimum and maximum number of cyclists."""
    models: Path | None = None
    """Folder with the unpacked Debian package sweethome3d-furniture, whose models become a third of the vehicles and people.
    One maker is in val only."""

    def check_objects(self, prefix: str = "") -> None:
        """Refuse impossible numbers; the prefix is that of the options."""
        for name in ("cars", "people", "cyclists"):
            check_range(prefix + name, getattr(self, name))


def check_range(name: str, limits: tuple[float, float]) -> None:
    """Refuse a minimum and a maximum that are negative or in the wrong order.

    Raises:
        ConfigError: They are.
    """
    low, high = limits
    if not 0 <= low <= high < math.inf:
        raise ConfigError(name, f"got {low} to {high}, want two numbers of at least 0 in increasing order")


@dataclass(frozen=True)
class FrameConfig(StreetObjects):
    """What a synthetic frame shows."""

    HELP_GROUPS: ClassVar[HelpGroups] = {}

    sensor: str = "hdl64e"
    """Sensor: hdl64e, hdl32e, vlp16, vls128, a YAML file, or mixed: all but vls128 in train, with some of their beams missing,
    and vls128 in val."""
    split: Literal["train", "val"] = "train"
    """Shapes and streets: families of cars and a layout of val never appear in train."""
    azimuth: float = 360.0
    """Width of the sector around the forward direction [degrees]; objects stand mostly inside it."""
    height: tuple[float, float] = (1.5, 2.1)
    """Minimum and maximum height of the sensor above the ground [m]."""
    tilt: float = 1.0
    """Standard deviation of the pitch of the sensor [degrees]; the roll has half of it."""
    rain: float = 0.05
    """Share of frames with rain, in [0, 1]."""
    variety: int = 64
    """Shapes per class that are made once and placed with other sizes, colors and positions."""

    def __post_init__(self) -> None:
        self.check_objects()
        check_range("height", self.height)
        if not 0.3 <= self.height[0] <= self.height[1] <= 10:
            raise ConfigError("height", f"got {self.height[0]} to {self.height[1]} m, want 0.3 to 10")
        if not 0 < self.azimuth <= 360:
            raise ConfigError("azimuth", f"got {self.azimuth}, want above 0, up to 360 degrees")
        if not 0 <= self.tilt <= 10:
            raise ConfigError("tilt", f"got {self.tilt}, want 0 to 10 degrees")
        if not 0 <= self.rain <= 1:
            raise ConfigError("rain", f"got {self.rain}, want 0 to 1")
        if not 1 <= self.variety <= 4096:
            raise ConfigError("variety", f"got {self.variety}, want 1 to 4096")


@dataclass(frozen=True)
class SynthConfig(FrameConfig):
    """A folder of synthetic frames in the layout of KITTI."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "frames": ("frames", "val_frames", "seed", "split", "sensor", "azimuth", "workers"),
        "content": ("cars", "people", "cyclists", "height", "tilt", "rain", "variety", "models"),
    }

    frames: int = 1000
    """Number of frames of --split."""
    val_frames: int = 0
    """Number of further frames with the shapes and streets of val."""
    seed: int = 0
    """Of the first frame; a folder with another seed shares no frame."""
    min_points: int = 5
    """Objects with fewer points become DontCare regions."""
    workers: int | None = None
    """Processes; the frames do not depend on their number. None: one for each core, if there are many frames."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("frames", 1), ("val_frames", 0), ("seed", 0), ("min_points", 1)):
            if getattr(self, name) < low:
                raise ConfigError(name, f"got {getattr(self, name)}, want at least {low}")
        if self.workers is not None and not 0 <= self.workers <= 256:
            raise ConfigError("workers", f"got {self.workers}, want 0 to 256")
        if self.frames + self.val_frames > MAX_FRAMES:
            raise ConfigError("frames", f"got {self.frames + self.val_frames}, want at most {MAX_FRAMES}")


MAX_FRAMES = 1_000_000
"""Names of frames have six digits."""
