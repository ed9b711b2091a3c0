"""LiDAR sensors: the pattern of their beams and the errors of their measurements."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.core.config import load_yaml
from vision3d.core.errors import ConfigError

MAX_RAYS = 2**24


@dataclass(frozen=True)
class Sensor:
    """A spinning LiDAR. `Sensor.load("hdl64e")` loads one of `configs/lidar`; the errors are drawn anew for each scan."""

    elevations: tuple[float, ...]
    """Angle of each beam above the horizontal plane [degrees], from the top beam to the bottom one."""
    azimuth_step: float
    """Angle between two firings of a beam [degrees]."""
    origins: tuple[float, ...] = ()
    """Height of the origin of each beam above that of the sensor [m]; none: all are 0."""
    min_range: float = 0.9
    """Nearer surfaces give no return [m]."""
    max_range: float = 120.0
    """Farther surfaces give no return [m]."""
    range_noise: float = 0.02
    """Standard deviation of the distance of each point [m]."""
    beam_bias: float = 0.01
    """Standard deviation of the error of the distance that all points of a beam share [m]."""
    angle_noise: float = 0.02
    """Standard deviation of the error of the elevation that all points of a beam share [degrees]."""
    divergence: float = 0.12
    """Full width of a beam [degrees]: at the edges of objects a beam hits two surfaces."""
    reach: float = 50.0
    """Distance at which a surface of albedo 0.1 that faces the sensor returns half of the pulses [m]."""
    intensity_scale: float = 1.0
    """Intensity of a surface of albedo 1 that faces the sensor; intensities are clamped to 1."""
    intensity_steps: int = 100
    """Levels of the intensity between 0 and 1."""

    def __post_init__(self) -> None:
        angles = (*self.elevations, *self.origins, self.azimuth_step, self.min_range, self.max_range, self.reach)
        if not all(math.isfinite(value) for value in angles):
            raise ConfigError("sensor", "has a value that is not finite")
        if not self.elevations or any(abs(value) >= 90 for value in self.elevations):
            raise ConfigError(
                "sensor.elevations", f"got {len(self.elevations)} angles, want at least one, each above -90, below 90"
            )
        if len(self.origins) not in (0, len(self.elevations)):
            raise ConfigError("sensor.origins", f"got {len(self.origins)} heights, want one for each beam, or none")
        if any(low >= high for high, low in zip(self.elevations, self.elevations[1:])):
            raise ConfigError("sensor.elevations", "want decreasing angles, from the top beam to the bottom one")
        if not 0 < self.azimuth_step <= 90 or len(self.elevations) * 360 / self.azimuth_step > MAX_RAYS:
            raise ConfigError(
                "sensor.azimuth_step", f"got {self.azimuth_step}, want above 0, up to 90, and at most {MAX_RAYS} rays"
            )
        if not 0 <= self.min_range < self.max_range:
            raise ConfigError("sensor.min_range", f"got {self.min_range}, want from 0 to below max_range ({self.max_range})")
        if self.reach <= 0:
            raise ConfigError("sensor.reach", f"got {self.reach}, want a positive distance")
        for name in ("range_noise", "beam_bias", "angle_noise", "divergence"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"sensor.{name}", f"got {getattr(self, name)}, want at least 0")
        if not 0 < self.intensity_scale < math.inf:
            raise ConfigError("sensor.intensity_scale", f"got {self.intensity_scale}, want a positive number")
        if self.intensity_steps < 1:
            raise ConfigError("sensor.intensity_steps", f"got {self.intensity_steps}, want at least 1")

    @classmethod
    def load(cls, source: Path | str) -> "Sensor":
        """Load a sensor by its name in `configs/lidar` (hdl64e, hdl32e, vlp16, vls128), or from a YAML file.

        Raises:
            MissingFileError: There is neither a file nor a sensor of this name.
            ConfigError: A key is unknown, or a value is invalid.
        """
        return load_yaml(cls, source, stage="lidar")

    @property
    def num_beams(self) -> int:
        return len(self.elevations)

    @property
    def beam_origins(self) -> np.ndarray:
        """Height of the origin of each beam [m], (beams,) float32."""
        return np.array(self.origins or (0.0,) * self.num_beams, np.float32)

    @property
    def num_steps(self) -> int:
        """Firings of a beam in a full turn."""
        return round(360 / self.azimuth_step)

    def directions(self, phase: Any = 0.0, elevation_error: Any = 0.0) -> np.ndarray:
        """Unit vectors of all rays, (beams, steps, 3) float32, in the frame of the sensor (x forward, y left, z up).

        Args:
            phase: Azimuth of the first firing [rad], one number or one per beam; azimuths go from -pi to pi, counter-clockwise.
            elevation_error: Added to the elevations [degrees], one number or one per beam.
        """
        up = np.radians(np.asarray(self.elevations) + elevation_error)
        around = np.arange(self.num_steps) * (2 * math.pi / self.num_steps) - math.pi
        start = np.broadcast_to(np.asarray(phase, float), self.num_beams)
        forward, left = np.cos(up) * np.cos(start), np.cos(up) * np.sin(start)
        cosine, sine = np.cos(around), np.sin(around)
        rays = np.empty((self.num_beams, self.num_steps, 3), np.float32)
        rays[..., 0] = np.outer(forward, cosine) - np.outer(left, sine)
        rays[..., 1] = np.outer(left, cosine) + np.outer(forward, sine)
        rays[..., 2] = np.sin(up)[:, None]
        return rays
