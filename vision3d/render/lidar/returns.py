"""From hits of rays to what a LiDAR reports: lost pulses, mixed pixels, noise, rain and intensity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vision3d.render.lidar.casting import Hits, Instance, cast_on
from vision3d.render.lidar.materials import table
from vision3d.render.lidar.sensor import Sensor

_MAX_PANES = 2
"""A pulse is followed through this many sheets of glass."""
_MIXED_STEP = 0.25
"""Depth steps above this are edges: a beam on one may hit both surfaces [m]."""
_MIXED_MERGE = 2.5
"""A receiver separates two returns that are farther apart than this [m]."""
_SPECKLE = 0.25
"""Standard deviation of the logarithm of the power of a return."""
_WEAK = 0.1
"""Albedo to which `Sensor.reach` refers."""
RAIN_INTENSITY = 0.03


@dataclass(frozen=True)
class Errors:
    """Random errors of one scan, besides those of `Sensor`."""

    dropout: float = 0.01
    """Share of pulses lost for no reason that is modelled, in [0, 1]."""
    gain: float = 1.0
    """Factor on the power of all pulses."""
    rain: float = 0.0
    """Returns of drops per metre of a pulse in its first 20 m."""


@dataclass(frozen=True, eq=False)
class Returns:
    """Points of one scan, in the order of beams and then azimuths."""

    points: np.ndarray
    """(N, 3) float32 [m], in the frame of the sensor."""
    intensity: np.ndarray
    """(N,) float32 in [0, 1]."""
    instance: np.ndarray
    """(N,) int64: index of the instance; -1 for rain."""
    beam: np.ndarray
    """(N,) int64."""


def see_through(sensor: Sensor, instances: Sequence[Instance], rays: np.ndarray, hits: Hits, rng: np.random.Generator) -> None:
    """Let pulses pass glass, in place: each pane passes, returns or deflects a share of them."""
    passes = table("transmission")
    active = np.nonzero(passes[hits.material].ravel() * np.isfinite(hits.distance.ravel()))[0]
    flat = {name: getattr(hits, name).reshape(-1) for name in ("distance", "instance", "material", "cosine")}
    directions, origins = rays.reshape(-1, 3), np.repeat(sensor.beam_origins, rays.shape[1])
    for _ in range(_MAX_PANES):
        # at grazing incidence glass reflects instead (Schlick)
        share = passes[flat["material"][active]] * (1 - (1 - flat["cosine"][active]) ** 5)
        active = active[rng.random(len(active), np.float32) < share]
        if not len(active):
            return
        start = flat["distance"][active] + 1e-3
        behind = cast_on(instances, directions[active], origins[active], start, max_range=sensor.max_range)
        for name in flat:
            flat[name][active] = getattr(behind, name)
        active = active[np.isfinite(behind.distance) & (passes[behind.material] > 0)]


def measure(
    sensor: Sensor, rays: np.ndarray, hits: Hits, instances: Sequence[Instance], errors: Errors, rng: np.random.Generator
) -> Returns:
    """The points that the sensor reports.

    The power of a return is albedo times a function of the incidence angle over the squared distance (LiDAR equation). It is
    detected with a probability that is one half where the power is that of albedo 0.1 at `sensor.reach`.

    Args:
        sensor: Its noise and limits.
        rays: (beams, steps, 3) as the sensor believes them to be; the true ones were cast.
        hits: Of the true rays.
        instances: Those that were cast.
        errors: Of this scan.
        rng: Source of all randomness.
    """
    distance = hits.distance
    if sensor.divergence > 0:
        distance = _mixed(sensor, distance, rng)
    row, column = np.nonzero(np.isfinite(distance) & (distance >= sensor.min_range) & (distance <= sensor.max_range))
    far, owner = distance[row, column], hits.instance[row, column]
    material, cosine = hits.material[row, column], hits.cosine[row, column]
    own = [table("albedo") if placed.albedo is None else placed.albedo for placed in instances]
    albedo = np.stack(own or [table("albedo")]).astype(np.float32)[owner, material]
    rough = table("roughness")[material]
    angular = rough + (1 - rough) * cosine ** table("gloss")[material]
    speckle = np.exp(np.float32(_SPECKLE) * rng.standard_normal(len(far), np.float32))
    reflected = albedo * angular * speckle
    closeness = np.float32(sensor.reach) / np.maximum(far, np.float32(1.0))
    power = np.float32(errors.gain / _WEAK) * reflected * closeness * closeness
    power = power * power * power
    is_back = rng.random(len(far), np.float32) < np.float32(1 - errors.dropout) * power / (1 + power)
    row, column, far, owner = row[is_back], column[is_back], far[is_back], owner[is_back]
    level = np.clip(sensor.intensity_scale * reflected[is_back], 0, 1)
    spread = np.hypot(np.float32(sensor.range_noise), table("depth"))[material[is_back]]
    far = far + spread * rng.standard_normal(len(far), np.float32)
    far += (sensor.beam_bias * rng.standard_normal(sensor.num_beams)).astype(np.float32)[row]
    owner = owner.astype(np.int64)
    if errors.rain > 0:
        far, owner, level = _rained(errors, far, owner, level, rng)
    keep = far >= sensor.min_range
    row = row[keep]
    points = rays[row, column[keep]] * far[keep, None]
    points[:, 2] += sensor.beam_origins[row]
    level = np.round(level[keep] * sensor.intensity_steps) / sensor.intensity_steps
    return Returns(points.astype(np.float32), np.minimum(level, 1).astype(np.float32), owner[keep], row.astype(np.int64))


def _mixed(sensor: Sensor, distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distances where beams on the edge of an object return a mean of both surfaces."""
    probability = min(sensor.divergence / sensor.azimuth_step, 1.0) / 2
    with np.errstate(invalid="ignore"):
        step = np.abs(distance[:, 1:] - distance[:, :-1])
        row, column = np.nonzero((step > _MIXED_STEP) & (step < _MIXED_MERGE))
    chosen = rng.random(len(row), np.float32) < probability
    row, column = row[chosen], column[chosen]
    share = rng.random(len(row), np.float32)
    mixed = distance.copy()
    mixed[row, column] = share * distance[row, column] + (1 - share) * distance[row, column + 1]
    return mixed


def _rained(
    errors: Errors, far: np.ndarray, owner: np.ndarray, level: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    drop = rng.exponential(1 / errors.rain, len(far)).astype(np.float32)
    is_rain = drop < np.minimum(far, 20.0)
    share = rng.random(len(far), np.float32)
    return (
        np.where(is_rain, drop, far),
        np.where(is_rain, -1, owner),
        np.where(is_rain, RAIN_INTENSITY * share, level),
    )


def random_phase(sensor: Sensor, rng: np.random.Generator) -> np.ndarray:
    """First azimuth of each beam [rad]: beams do not fire at the same angles."""
    return rng.random(sensor.num_beams) * math.radians(sensor.azimuth_step)
