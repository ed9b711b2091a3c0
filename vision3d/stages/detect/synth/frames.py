"""A labelled synthetic frame from a seed."""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.io.kitti import KittiLabels
from vision3d.render.lidar.casting import Instance, Shape, cast
from vision3d.render.lidar.materials import INDEX, NAMES, table
from vision3d.render.lidar.returns import Errors, Returns, measure, random_phase, see_through
from vision3d.render.lidar.sensor import Sensor
from vision3d.scene.boxes import Boxes
from vision3d.stages.detect.camera import Camera, observed
from vision3d.stages.detect.synth.config import TRAINING_SENSORS, VALIDATION_SENSOR, FrameConfig
from vision3d.stages.detect.synth.library import library
from vision3d.stages.detect.synth.parts import box, shape
from vision3d.stages.detect.synth.populate import LABELLED, Placement, populate
from vision3d.stages.detect.synth.streets import LAYOUTS, VALIDATION_LAYOUTS, ground, street

_OCCLUSION_LIMITS = (0.8, 0.4, 0.1)
"""Visible share of the rays above which an object counts as fully visible, partly or largely occluded; below: unknown."""
_MARGIN = 0.05
"""Points this far outside its box still belong to the object: noise of the range [m]."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Points of one sweep and the boxes of its objects, in the frame of the sensor (x forward, y left, z up)."""

    points: Float[Tensor, "n 4"]
    """x y z [m] and intensity in [0, 1], float32."""
    boxes: Float[Tensor, "b 7"]
    """x y z of the center, length, width, height [m], yaw [rad], float32. Only objects with at least one point."""
    names: tuple[str, ...]
    """Class of each box: Car, Van, Truck, Pedestrian, Cyclist or Misc."""
    num_points: Int64[Tensor, " b"]
    """Points of each object."""
    boxes_2d: Float[Tensor, "b 4"]
    """Left, top, right, bottom in the image [pixels], clipped to it; zeros where the object is not in the image."""
    occlusion: Int64[Tensor, " b"]
    """0 visible, 1 partly, 2 largely occluded, 3 unknown, by `visible`."""
    truncation: Float[Tensor, " b"]
    """Share of the 2D box outside the image, in [0, 1]; 1 where the object is not in the image."""
    alpha: Float[Tensor, " b"]
    """Observation angle of KITTI [rad]."""
    visible: Float[Tensor, " b"]
    """Share of the rays that hit the object alone and reach it in the scene, in [0, 1]."""
    owner: Int64[Tensor, " n"]
    """Index of the box that each point belongs to; -1: none."""
    beam: Int64[Tensor, " n"]
    """Beam of each point, 0 is the top one."""
    camera: Camera
    """The calibration: projection and the transform from the sensor."""
    layout: str
    """Family of the street."""
    sensor_height: float
    """Above the ground [m]."""

    @property
    def labels(self) -> KittiLabels:
        """All objects with the columns of KITTI's label files."""
        return KittiLabels(
            Boxes.of_names(self.boxes, self.names),
            truncation=self.truncation,
            occlusion=self.occlusion,
            alpha=self.alpha,
            boxes_2d=self.boxes_2d,
            dont_care=torch.zeros(0, 4),
        )


def frame(seed: int, config: FrameConfig | None = None, index: int = 0) -> Frame:
    """Generate a frame; the same seed, index and configuration always give the same frame.

    Shapes are made once per process, so the first frames take longer.

    Args:
        seed: Of a sequence of frames, at least 0.
        config: What the frame shows.
        index: Number of the frame, at least 0.

    Raises:
        MissingDependencyError: embreex is not installed.
        ConfigError: The sensor has invalid values.
        MissingFileError: The sensor is neither a bundled one nor a YAML file.
    """
    config = config or FrameConfig()
    rng = np.random.default_rng((seed, index, int(config.split == "val")))
    sensor = _sensor(config, rng)
    family = str(rng.choice(VALIDATION_LAYOUTS if config.split == "val" else LAYOUTS))
    where = street(family, rng)
    shapes = library(config.split, config.variety, config.models)
    placed = populate(where, config, shapes, rng)
    height = rng.uniform(*config.height)
    to_sensor = _to_sensor(height, math.radians(config.tilt), rng)
    instances = [Instance(ground(where, rng), to_sensor, _albedo(rng, 1)[0], is_counted=False)]
    colors = _albedo(rng, len(placed))
    instances += [
        Instance(one.shape, to_sensor @ one.matrix, color, is_counted=one.kind in LABELLED)
        for one, color in zip(placed, colors)
    ]
    has_carrier = rng.random() < 0.8
    if has_carrier:
        instances.append(Instance(_carrier(height, rng), to_sensor, is_counted=False))
    errors = Errors(
        dropout=float(rng.uniform(0, 0.03)),
        gain=float(np.exp(rng.normal(0, 0.3))),
        rain=float(rng.uniform(0.0005, 0.01)) if rng.random() < config.rain else 0.0,
    )
    phase = random_phase(sensor, rng)
    columns = _sector(sensor, config.azimuth)
    true = sensor.directions(phase, sensor.angle_noise * rng.standard_normal(sensor.num_beams))[:, columns]
    hits = cast(instances, true, sensor.beam_origins, max_range=sensor.max_range)
    seen = np.bincount(hits.instance[hits.instance >= 0].ravel(), minlength=len(instances))
    if has_carrier and rng.random() < 0.8:  # most data sets remove these points
        hits.distance[hits.instance == len(instances) - 1] = np.inf
    see_through(sensor, instances, true, hits, rng)
    found = measure(sensor, sensor.directions(phase)[:, columns], hits, instances, errors, rng)
    return _labelled(found, placed, to_sensor, seen, hits.alone, family, height)


def _labelled(
    found: Returns,
    placed: list[Placement],
    to_sensor: np.ndarray,
    seen: np.ndarray,
    alone: np.ndarray,
    family: str,
    height: float,
) -> Frame:
    labelled = [k for k, one in enumerate(placed) if one.kind in LABELLED]
    boxes = np.array([_box(placed[k], to_sensor) for k in labelled]).reshape(-1, 7)
    of_instance = np.full(len(alone), -1)
    of_instance[np.array(labelled, int) + 1] = np.arange(len(labelled))
    owner = np.where(found.instance >= 0, of_instance[found.instance], -1)
    owner[~_inside(found.points, boxes, owner)] = -1  # mixed pixels behind it, mirrors
    count = np.bincount(owner[owner >= 0], minlength=len(boxes))
    kept = np.nonzero(count > 0)[0]
    renumbered = np.full(len(boxes) + 1, -1)
    renumbered[kept] = np.arange(len(kept))
    owner = renumbered[owner]
    boxes = boxes[kept]
    rows = np.array(labelled, int)[kept] + 1
    visible = seen[rows] / np.maximum(alone[rows], 1)
    occlusion = (visible[:, None] <= np.array(_OCCLUSION_LIMITS)).sum(1)
    camera = Camera()
    boxes_2d, truncation, alpha = observed(boxes, camera)
    names = tuple("Misc" if placed[labelled[k]].kind == "trailer" else placed[labelled[k]].kind for k in kept)
    points = np.concatenate([found.points, found.intensity[:, None]], 1)
    return Frame(
        torch.from_numpy(points),
        torch.from_numpy(boxes).float(),
        names,
        torch.from_numpy(count[kept]).long(),
        torch.from_numpy(boxes_2d).float(),
        torch.from_numpy(occlusion).long(),
        torch.from_numpy(truncation).float(),
        torch.from_numpy(alpha).float(),
        torch.from_numpy(visible).float(),
        torch.from_numpy(owner).long(),
        torch.from_numpy(found.beam),
        camera,
        family,
        float(height),
    )


def _inside(points: np.ndarray, boxes: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Whether each point is in the box of its owner."""
    rows = np.nonzero(owner >= 0)[0]
    is_inside = np.zeros(len(points), bool)
    if len(rows):
        own = boxes[owner[rows]]
        local = points[rows] - own[:, :3]
        cosine, sine = np.cos(own[:, 6]), np.sin(own[:, 6])
        x, y = cosine * local[:, 0] + sine * local[:, 1], cosine * local[:, 1] - sine * local[:, 0]
        half = own[:, 3:6] / 2 + _MARGIN
        is_inside[rows] = (np.abs(x) <= half[:, 0]) & (np.abs(y) <= half[:, 1]) & (np.abs(local[:, 2]) <= half[:, 2])
    return is_inside


def _box(one: Placement, to_sensor: np.ndarray) -> list[float]:
    center = to_sensor @ one.matrix @ np.array([*one.shape.info["center"], 1.0])
    size = np.array(one.shape.info["size"]) * one.scale
    ahead = to_sensor[:3, :3] @ one.matrix[:3, 0]
    return [*center[:3], *size, math.atan2(ahead[1], ahead[0])]


def _to_sensor(height: float, tilt: float, rng: np.random.Generator) -> np.ndarray:
    """From the frame below the sensor, on the ground, to the sensor's."""
    pitch, roll = rng.normal(0, tilt), rng.normal(0, tilt / 2)
    about_y = np.array([[math.cos(pitch), 0, math.sin(pitch)], [0, 1, 0], [-math.sin(pitch), 0, math.cos(pitch)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(roll), -math.sin(roll)], [0, math.sin(roll), math.cos(roll)]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_y @ about_x
    matrix[:3, 3] = matrix[:3, :3] @ [0, 0, -height]
    return matrix


@functools.cache
def _loaded(name: str) -> Sensor:
    return Sensor.load(name)


def _sensor(config: FrameConfig, rng: np.random.Generator) -> Sensor:
    """The sensor of a frame, with the intensity scale of one device of its kind."""
    name = config.sensor
    if name == "mixed":
        name = VALIDATION_SENSOR if config.split == "val" else str(rng.choice(TRAINING_SENSORS, p=[0.5, 0.35, 0.15]))
    sensor = _loaded(name)
    changes: dict[str, Any] = {"intensity_scale": float(sensor.intensity_scale * np.exp(rng.normal(0, 0.25)))}
    if config.sensor == "mixed" and sensor.num_beams >= 32:
        keep = slice(int(rng.integers(2)), None, 2) if rng.random() < 0.2 else slice(None)
        moved = np.array(sensor.elevations[keep]) * rng.uniform(0.95, 1.05) + rng.normal(0, 0.5)
        changes |= {"elevations": tuple(moved.tolist()), "origins": sensor.origins[keep]}
    return replace(sensor, **changes)


def _carrier(height: float, rng: np.random.Generator) -> Shape:
    """Roof and hood of the car below the sensor, which hide a part of the ground."""
    top, front, width = height - rng.uniform(0.25, 0.5), rng.uniform(1.6, 2.6), rng.uniform(1.3, 1.7)
    ahead, behind = rng.uniform(0.1, 0.7), rng.uniform(0.6, 1.4)
    parts = [box((ahead + behind, width * 0.8, 0.1), ((ahead - behind) / 2, 0, top), "paint")]
    parts.append(box((front, width, 0.1), (front / 2, 0, rng.uniform(0.4, 0.52) * height), "paint"))
    parts.append(box((2.4, width, 0.1), (-1.2, 0, rng.uniform(0.4, 0.6) * height), "paint"))
    for _ in range(int(rng.integers(0, 4))):  # other sensors and their mounts
        parts.append(box(rng.uniform(0.05, 0.25, 3), (*rng.uniform(-0.9, 0.9, 2), top + 0.05), "trim"))
    return shape(parts, family="carrier")


def _sector(sensor: Sensor, azimuth: float) -> slice:
    steps = sensor.num_steps
    count = min(math.ceil(steps * azimuth / 360), steps)
    first = (steps - count) // 2
    return slice(first, first + count)


_VARIED = {"wall": 0.35, "cloth": 0.5, "trousers": 0.6, "bag": 0.5, "plastic": 0.5, "hair": 0.4, "wood": 0.3, "roof": 0.3}
"""Standard deviation of the logarithm of the albedo; 0.12 for others."""


def _albedo(rng: np.random.Generator, count: int) -> np.ndarray:
    """Albedos (count, materials) of objects."""
    spread = np.array([_VARIED.get(name, 0.12) for name in NAMES])
    values = table("albedo") * np.exp(spread * rng.standard_normal((count, len(NAMES))))
    paint = rng.choice([0.05, 0.12, 0.25, 0.45, 0.6, 0.8], size=count, p=[0.18, 0.17, 0.15, 0.2, 0.12, 0.18])
    values[:, INDEX["paint"]] = paint * np.exp(0.15 * rng.standard_normal(count))
    return values.astype(np.float32)
