"""The colors of the creature: functions of the position on its surface in the rest pose, in sRGB."""

import numpy as np
from body import JOINTS, PARTS, Array, distance

BACK, FLANK, BELLY = (0.08, 0.47, 0.52), (0.22, 0.72, 0.62), (0.99, 0.91, 0.70)
STRIPE, SPOT, HORN, HORN_TIP = (0.05, 0.27, 0.40), (1.0, 0.83, 0.30), (0.97, 0.50, 0.18), (1.0, 0.84, 0.45)
TOE, BLUSH, DARK, WHITE, IRIS = (1.0, 0.94, 0.80), (0.98, 0.55, 0.50), (0.05, 0.06, 0.09), (1.0, 1.0, 1.0), (0.72, 0.36, 0.06)
SPOTS = (
    (0.375, -0.185, 0.030), (0.335, -0.095, 0.021), (0.385, -0.045, 0.026), (0.335, 0.025, 0.023), (0.39, 0.075, 0.027),
    (0.315, 0.125, 0.022), (0.275, -0.195, 0.020), (0.225, 0.105, 0.019), (0.15, 0.095, 0.014), (0.215, -0.145, 0.018),
    (0.125, -0.14, 0.014), (0.315, -0.305, 0.020), (0.285, -0.395, 0.016), (0.47, 0.165, 0.020),
)  # fmt: skip
"""Height, position along the body, and radius [m]; on both sides."""
EYE, GAZE = np.array([0.072, 0.605, 0.335]), np.array([0.72, 0.20, 0.66])


def colors(points: Array, normals: Array) -> Array:
    """Colors at points of the surface, darker in the folds."""
    side, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    level = (y - _axis_height(z)) / 0.13
    found = _mix(np.tile(FLANK, (len(points), 1)), BACK, _step(0.0, 0.8, level))
    bands = np.cos(2 * np.pi * (z + 0.4 * side**2) / 0.1)
    found = _mix(found, STRIPE, _step(0.35, 0.6, bands - _step(0.75, 0.1, level)) * _step(0.22, 0.17, z))
    under = _step(-0.30, -0.48, level) * _step(0.112, 0.09, side) * _step(0.16, 0.19, y)
    found = _mix(found, BELLY, under)
    for height, along, radius in SPOTS:
        found = _mix(found, SPOT, _step(radius + 0.003, radius - 0.003, np.hypot(y - height, z - along)) * (side > 0.05))
    to_body, feet, horns = (_distance_to(kind, points) for kind in ("body", "foot", "horn"))
    found = _mix(found, TOE, _step(0.004, -0.004, feet - to_body) * _step(0.034, 0.026, y))
    for foot in (part for part in PARTS if part.kind == "foot"):
        for across, along in ((-0.03, 0.058), (0.0, 0.07), (0.03, 0.058)):
            claw = np.add(foot.start, (across, -0.006, along))
            found = _mix(found, TOE, _step(0.017, 0.012, np.linalg.norm(points - claw, axis=-1)))
    is_horn = _step(0.003, -0.003, horns - np.minimum(to_body, feet))
    found = _mix(found, HORN, is_horn)
    found = _mix(found, HORN_TIP, is_horn * _step(0.015, 0.05, to_body))
    found = _with_face(found, side, y, z)
    return found * (0.68 + 0.32 * _openness(points, normals)) * (0.94 + 0.06 * normals[:, 1:2])


def _with_face(found: Array, side: Array, y: Array, z: Array) -> Array:
    place = np.stack([side, y, z], -1)
    found = _mix(found, BLUSH, 0.8 * _step(0.026, 0.012, np.linalg.norm(place - [0.098, 0.532, 0.372], axis=-1)))
    found = _mix(found, DARK, _step(0.011, 0.008, np.linalg.norm(place - [0.028, 0.553, 0.484], axis=-1)))
    smile = np.abs(y - 0.492 - 3.0 * side**2 - 0.1 * np.maximum(0.45 - z, 0))
    found = _mix(found, DARK, _step(0.0055, 0.0025, smile) * _step(0.372, 0.385, z))
    offset = place - EYE
    toward = offset / np.maximum(np.linalg.norm(offset, axis=-1, keepdims=True), 1e-9)
    is_near = np.linalg.norm(offset, axis=-1) < 0.085
    gaze = GAZE / np.linalg.norm(GAZE)
    angle = np.arccos(np.clip(toward @ gaze, -1, 1))
    for color, radius in ((DARK, 0.98), (WHITE, 0.88), (IRIS, 0.68), (DARK, 0.50)):
        found = _mix(found, color, _step(radius + 0.03, radius - 0.03, angle) * is_near)
    for shift, radius in (((0.10, 0.24, -0.04), 0.17), ((-0.08, -0.22, 0.06), 0.08)):
        glint = (gaze + shift) / np.linalg.norm(gaze + shift)
        found = _mix(found, WHITE, _step(radius + 0.03, radius - 0.03, np.arccos(np.clip(toward @ glint, -1, 1))) * is_near)
    return found


def _openness(points: Array, normals: Array) -> Array:
    """Openness of the sky above a point, from 0 to 1: distances along the normal relative to those of a plane."""
    hidden = np.zeros(len(points))
    for reach, weight in ((0.02, 0.5), (0.05, 0.9), (0.10, 0.7)):
        hidden += weight * np.clip(1 - distance(points + reach * normals) / reach, 0, 1)
    return np.clip(1 - hidden, 0, 1)[:, None]


def _axis_height(z: Array) -> Array:
    """Height of the body's axis at positions along it."""
    middle = sorted((at[2], at[1]) for name, (_, at) in JOINTS.items() if at[0] == 0)
    return np.interp(z, [at for at, _ in middle], [height for _, height in middle])


def _distance_to(kind: str, points: Array) -> Array:
    return np.min([part.distances(points) for part in PARTS if part.kind == kind], 0)


def _step(low: float, high: float, values: Array) -> Array:
    """From 0 at `low` to 1 at `high`, smooth; falling where high < low."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _mix(found: Array, color: tuple[float, ...] | Array, share: Array) -> Array:
    return found + (np.asarray(color) - found) * share[:, None]
