"""The camera of a synthetic frame: the calibration and what the image shows of each box, in the conventions of KITTI."""

import math
from dataclasses import dataclass, field

import numpy as np

WIDTH, HEIGHT = 1242, 375
_NEAR = 0.1
"""Corners nearer to the image plane than this are moved there [m]."""


def _projection() -> np.ndarray:
    return np.array([[720.0, 0.0, 620.5, 0.0], [0.0, 720.0, 180.0, 0.0], [0.0, 0.0, 1.0, 0.0]])


def _to_camera() -> np.ndarray:
    matrix = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]])
    return matrix


@dataclass(frozen=True, eq=False)
class Camera:
    """The left color camera."""

    P2: np.ndarray = field(default_factory=_projection)
    """(3, 4) rectified camera to pixels."""
    to_camera: np.ndarray = field(default_factory=_to_camera)
    """(4, 4) sensor to rectified camera (x right, y down, z forward)."""
    size: tuple[int, int] = (WIDTH, HEIGHT)
    """Width and height [pixels]."""


def observed(boxes: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """2D boxes (B, 4), truncation (B,) and observation angles (B,) of boxes (B, 7) in the frame of the sensor."""
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    local = signs * boxes[:, None, 3:6]
    cosine, sine = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    corners = np.stack(
        [cosine * local[..., 0] - sine * local[..., 1], sine * local[..., 0] + cosine * local[..., 1], local[..., 2]], -1
    )
    corners += boxes[:, None, :3]
    seen = corners @ camera.to_camera[:3, :3].T + camera.to_camera[:3, 3]
    is_ahead = seen[..., 2] > _NEAR
    depth = np.maximum(seen[..., 2:], _NEAR)
    pixels = np.concatenate([seen[..., :2], depth, np.ones_like(depth)], -1) @ camera.P2.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    low, high = pixels.min(1), pixels.max(1)
    limit = np.array(camera.size) - 1.0
    clipped = np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)], 1)
    area = np.prod(np.maximum(high - low, 1e-6), axis=1)
    inside = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)
    is_seen = is_ahead.any(1) & (inside > 0)
    truncation = np.where(is_seen, 1 - np.clip(inside / area, 0, 1), 1.0)
    center = boxes[:, :3] @ camera.to_camera[:3, :3].T + camera.to_camera[:3, 3]
    turn = -boxes[:, 6] - math.pi / 2
    alpha = np.remainder(turn - np.arctan2(center[:, 0], center[:, 2]) + math.pi, 2 * math.pi) - math.pi
    return np.where(is_seen[:, None], clipped, 0.0), truncation, alpha
