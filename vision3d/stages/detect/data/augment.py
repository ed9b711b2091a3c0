"""Random changes of a sweep in training."""

import math

import numpy as np
import torch
from torch import Tensor

from vision3d.stages.detect.config import AugmentConfig, GridConfig
from vision3d.stages.detect.data.sweeps import IGNORED, LabelledSweep, inside, turned


def augmented(sweep: LabelledSweep, config: AugmentConfig, rng: np.random.Generator) -> LabelledSweep:
    """The sweep rotated, mirrored, scaled, shifted, tilted and thinned."""
    sweep = turned(sweep, math.radians(float(rng.uniform(-config.turn_deg, config.turn_deg))))
    points, boxes = sweep.points, sweep.boxes
    if config.flip and rng.random() < 0.5:
        points[:, 1], boxes[:, 1], boxes[:, 6] = -points[:, 1], -boxes[:, 1], -boxes[:, 6]
    _scale_objects(points, boxes, config.object_scale, rng)
    scale = float(rng.uniform(*config.scale))
    points[:, :3] *= scale
    boxes[:, :6] *= scale
    direction, tilt = rng.uniform(0, 2 * math.pi), math.tan(math.radians(rng.uniform(0, config.tilt_deg)))
    slope = torch.tensor([math.cos(direction) * tilt, math.sin(direction) * tilt], dtype=points.dtype)
    shift = float(rng.uniform(-config.height, config.height))
    points[:, 2] += points[:, :2] @ slope + shift
    boxes[:, 2] += boxes[:, :2] @ slope + shift
    if rng.random() < config.thin:
        points = points[torch.from_numpy(_thinned(points.numpy(), rng))]
    if rng.random() < config.drop_intensity:
        points[:, 3] = 0
    return LabelledSweep(points, boxes, sweep.labels, sweep.name)


def cropped(sweep: LabelledSweep, grid: GridConfig, min_points: int) -> LabelledSweep:
    """The points in the grid and the boxes whose centers are in it; those with too few points become ignored."""
    low, high = sweep.points.new_tensor(grid.low), sweep.points.new_tensor(grid.high)
    points = sweep.points[((sweep.points[:, :3] >= low) & (sweep.points[:, :3] < high)).all(1)]
    keep = ((sweep.boxes[:, :2] >= low[:2]) & (sweep.boxes[:, :2] < high[:2])).all(1)
    boxes, labels = sweep.boxes[keep], sweep.labels[keep]
    counts = inside(points[:, :3], boxes, 0.05).sum(1) if len(boxes) else labels
    return LabelledSweep(points, boxes, torch.where(counts >= min_points, labels, IGNORED), sweep.name)


def _scale_objects(points: Tensor, boxes: Tensor, limits: tuple[float, float], rng: np.random.Generator) -> None:
    """Scale each box with its points, in place; the middle of its bottom stays."""
    scales = torch.from_numpy(rng.uniform(*limits, len(boxes))).to(points)
    if not len(boxes) or limits == (1.0, 1.0):
        return
    owner = torch.full((len(points),), -1)
    for index, owned in reversed(list(enumerate(inside(points[:, :3], boxes, 0.03)))):
        owner[owned] = index
    bottom = boxes[:, :3].clone()
    bottom[:, 2] -= boxes[:, 5] / 2
    rows = (owner >= 0).nonzero()[:, 0]
    own = owner[rows]
    points[rows, :3] = (points[rows, :3] - bottom[own]) * scales[own, None] + bottom[own]
    boxes[:, 3:6] *= scales[:, None]
    boxes[:, 2] = bottom[:, 2] + boxes[:, 5] / 2


def _thinned(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask that keeps every second beam or a random part of the points."""
    if rng.random() < 0.5:
        return rng.random(len(points)) < rng.uniform(0.4, 0.9)
    # The elevation in steps of half a degree stands for the number of the beam, which files do not have.
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    pitch = float(rng.choice([0.4, 0.45, 0.5, 0.65]))
    return np.floor(elevation / pitch).astype(int) % 2 == int(rng.integers(2))
