"""The ground of a sweep as a plane, so that the height and tilt of the sensor need not be known."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.stages.detect.config import GROUND
from vision3d.stages.detect.data.sweeps import LabelledSweep

_CELL, _REACH = 2.0, 40.0  # m
_NEAR = 1.0  # m: around the sensor lies the vehicle that carries it
_SCALE = 0.15  # m: cells of larger residuals are not on the ground
_FEWEST = 12  # cells
_STEEPEST, _USUAL = 0.12, 0.02  # slopes
_TRIALS = 400


def ground_plane(points: Float[Tensor, "n 3"]) -> tuple[float, float, float]:
    """The ground z = a x + b y + c, from the lowest points of cells of 2 m within 40 m.

    Vehicles, walls and vegetation hide the ground in many cells, so the plane is chosen by the number of cells near it, then
    fitted to these. Cells of few points count less. If too few cells have points, the ground is a horizontal plane below the
    lowest points.

    Returns:
        a, b, c [1, 1, m].
    """
    xyz = points.detach().cpu().numpy().astype(np.float64)
    distance = np.hypot(xyz[:, 0], xyz[:, 1])
    xyz = xyz[(distance > _NEAR) & (distance < _REACH) & np.isfinite(xyz).all(1)]
    if not len(xyz):
        return 0.0, 0.0, GROUND
    cells = np.floor(xyz[:, :2] / _CELL).astype(np.int64)
    key = (cells[:, 0] + 1024) * 2048 + cells[:, 1] + 1024
    order = np.lexsort((xyz[:, 2], key))
    _, first, counts = np.unique(key[order], return_index=True, return_counts=True)
    # The lowest twentieth: single points below the ground are reflections.
    low = xyz[order[first + counts // 20]]
    weight = np.minimum(counts, 20) / 20.0
    low, weight = low[counts >= 3], weight[counts >= 3]
    if len(low) < _FEWEST:
        return 0.0, 0.0, float(np.quantile(xyz[:, 2], 0.02))
    design = np.column_stack([low[:, :2], np.ones(len(low))])
    plane = _best_of_three(design, low[:, 2], weight)
    for _ in range(5):
        weights = weight / (1 + ((low[:, 2] - design @ plane) / _SCALE) ** 2) ** 2
        ridge = np.diag([weights.sum(), weights.sum(), 0.0])
        plane = np.linalg.solve(design.T @ (design * weights[:, None]) + ridge, design.T @ (low[:, 2] * weights))
    return float(plane[0]), float(plane[1]), float(plane[2])


def level_transform(plane: tuple[float, float, float]) -> Float[Tensor, "4 4"]:
    """The rigid transform that takes the ground to the horizontal plane at the height `GROUND`, the sensor above the origin."""
    a, b, c = plane
    up = np.array([-a, -b, 1.0]) / math.sqrt(a * a + b * b + 1)
    axis = np.cross(up, [0.0, 0.0, 1.0])
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = np.eye(3) + skew + skew @ skew / (1 + up[2])
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(rotation)
    matrix[2, 3] = GROUND - c * up[2]
    return matrix


def levelled(sweep: LabelledSweep) -> LabelledSweep:
    """A sweep whose ground is horizontal at the height `GROUND`."""
    matrix = level_transform(ground_plane(sweep.points[:, :3])).to(sweep.points)
    points, boxes = sweep.points.clone(), sweep.boxes.clone()
    points[:, :3] = points[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    boxes[:, :3] = boxes[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    return LabelledSweep(points, boxes, sweep.labels, sweep.name)


def _best_of_three(design: np.ndarray, heights: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The plane through three cells near which most other cells lie (RANSAC, Fischler & Bolles 1981), and few below it."""
    picks = np.random.default_rng(0).integers(0, len(design), (_TRIALS, 3))
    corners = design[picks]
    usable = np.abs(np.linalg.det(corners)) > _CELL**2
    planes = np.linalg.solve(corners[usable], heights[picks[usable]][..., None])[..., 0]
    planes = planes[np.hypot(planes[:, 0], planes[:, 1]) <= _STEEPEST]
    level = np.column_stack([np.zeros((len(heights), 2)), heights])
    planes = np.concatenate([planes, level])
    residuals = heights - planes @ design.T
    near = np.exp(-((residuals / _SCALE) ** 2)) - 0.5 * (residuals < -3 * _SCALE)
    # Steeper planes must explain more: sensors and streets are level within a degree or two.
    steepness = np.hypot(planes[:, 0], planes[:, 1]) / _USUAL
    return planes[np.argmax(near @ weights - 0.02 * weights.sum() * steepness**2)]
