"""Rigging and animation of the creature: smooth skin weights, and two clips with inverse kinematics for the legs."""

from collections.abc import Callable

import numpy as np
from body import JOINTS, PARTS, Array, Ints

NAMES = tuple(JOINTS)
PARENTS = tuple(NAMES.index(parent) if parent else -1 for parent, _ in JOINTS.values())
PLACES = np.array([at for _, at in JOINTS.values()])
LEGS = (("shoulder", "elbow", "paw"), ("thigh", "knee", "foot"))
FPS = 24
_SOFTNESS = 0.03
"""Length over which one joint's influence fades into the next one's [m]."""

Pose = dict[str, Array]
"""Rotation matrix of each joint relative to its parent; others stay in the rest pose."""


def weights(vertices: Array, faces: Ints) -> Array:
    """Weights of each vertex for each joint: the owner of the nearest part, blurred on the surface, (M + s^2 L) w = M p."""
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import spsolve

    distances = np.stack([part.distances(vertices) for part in PARTS], -1)
    owners = np.array([NAMES.index(part.joint) for part in PARTS])[distances.argmin(-1)]
    corners = vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 2
    rows, columns, values = [], [], []
    for i in range(3):
        a, b = corners[:, (i + 1) % 3] - corners[:, i], corners[:, (i + 2) % 3] - corners[:, i]
        half = np.maximum((a * b).sum(-1) / (4 * areas), 0)  # half the cotangent, for the edge across
        rows += [faces[:, (i + 1) % 3], faces[:, (i + 2) % 3]]
        columns += [faces[:, (i + 2) % 3], faces[:, (i + 1) % 3]]
        values += [half, half]
    count = len(vertices)
    joined = coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count))
    mass = np.bincount(faces.ravel(), np.repeat(areas / 3, 3), count)
    laplacian = diags_array(joined.sum(1)) - joined
    owned = mass[:, None] * np.eye(len(NAMES))[owners]
    return spsolve((diags_array(mass) + _SOFTNESS**2 * laplacian).tocsc(), owned)


def turn(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> Array:
    """R_y(yaw) R_x(pitch) R_z(roll), in degrees: the head nods, looks to its left, tilts."""
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(a), np.sin(a)) for a in np.radians([pitch, yaw, roll]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return about_y @ about_x @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])


def walk(t: float) -> tuple[Pose, Array]:
    """The walk at a fraction t of its cycle, in place: four beats, each foot on the ground for two thirds of the time."""
    wave = 2 * np.pi * t
    pose = {
        "hips": turn(1.5 * np.cos(2 * wave), 5 * np.sin(wave), 4 * np.cos(wave)),
        "spine": turn(0, -5 * np.sin(wave), -4 * np.cos(wave)),
        "chest": turn(0, -6 * np.sin(wave), -4 * np.sin(wave)),
        "neck": turn(4 * np.cos(2 * wave + 0.6), 4 * np.sin(wave), 3 * np.sin(wave)),
        "head": turn(-6 + 6 * np.sin(2 * wave), 6 * np.sin(wave), 5 * np.sin(wave + 0.5)),
        **{f"tail_{i}": turn(3 * np.sin(2 * wave - i), 13 * np.sin(wave - 0.8 * i)) for i in range(1, 5)},
    }
    shift = np.array([0.006 * np.sin(wave), 0.008 * np.cos(2 * wave + 0.5) - 0.012, 0])
    feet = {}
    for name, start in (("foot_l", 0.0), ("paw_l", 0.25), ("foot_r", 0.5), ("paw_r", 0.75)):
        phase = (t + start) % 1
        if phase < 0.65:
            feet[name] = (0.0, 0.085 - 0.17 * phase / 0.65, 0.0)
        else:
            u = (phase - 0.65) / 0.35
            feet[name] = (0.055 * np.sin(np.pi * u), -0.085 + 0.17 * u * u * (3 - 2 * u), 32 * np.sin(np.pi * u) * (1 - u))
    return _stand(pose, shift, feet), shift


def jump(t: float) -> tuple[Pose, Array]:
    """A jump for joy at a fraction t of its cycle: down, up with a twist, and back with a wagging tail."""

    def keyed(*values: float) -> float:
        """Interpolates keys that are equal at the start and the end."""
        return _smooth(t, (0.0, 0.19, 0.38, 0.50, 0.62, 0.74, 0.87, 1.0), (*values, values[0]))

    wag = np.sin(10 * np.pi * t) * _smooth(t, (0.0, 0.25, 0.65, 0.85, 1.0), (0.3, 0.2, 0.3, 1.0, 0.3))
    pose = {
        "hips": turn(keyed(0, 6, -14, -4, 8, 4, 0), keyed(0, -3, 8, 14, 6, 0, 0)),
        "spine": turn(keyed(0, 5, -8, -5, 6, 4, 0), keyed(0, 0, -5, -12, -6, 0, 0), keyed(0, 0, 4, 10, 5, 0, 0)),
        "chest": turn(keyed(0, -4, -4, -2, 2, 2, 0), keyed(0, 0, -4, -10, -4, 0, 0)),
        "neck": turn(keyed(0, 12, -10, -8, 4, 10, 0), keyed(0, 4, -4, -8, -4, 0, 0)),
        "head": turn(keyed(0, -12, -14, -4, 10, -4, -6), keyed(0, 8, 0, -14, 0, 6, 8), keyed(0, 6, 0, -8, 0, 4, 16)),
        **{
            f"tail_{i}": turn(keyed(0, -7, 12, 5, -13, -6, 0) - 2 * wag, 15 * np.sin(10 * np.pi * t - 0.7 * i) * abs(wag))
            for i in range(1, 5)
        },
    }
    shift = np.array([0.0, keyed(0, -0.075, 0.07, 0.15, 0.075, -0.06, -0.004), keyed(0, -0.02, 0.01, 0.02, 0.02, 0.01, 0)])
    height = keyed(0, 0, 0.01, 0.16, 0.05, 0, 0)
    reach = keyed(0, 0, -0.03, 0.0, 0.04, 0.0, 0)
    feet = {}
    for side in "lr":
        feet[f"paw_{side}"] = (height + keyed(0, 0, 0.045, 0.01, -0.03, 0, 0), reach + keyed(0, 0, 0.05, 0.05, 0.03, 0, 0), 0.0)
        feet[f"foot_{side}"] = (height, reach - keyed(0, 0, 0.02, 0.05, 0.01, 0, 0), keyed(0, 0, 30, 40, 0, 0, 0))
    for name in feet:
        feet[name] = (*feet[name][:2], feet[name][2] + keyed(0, 0, 10, 22, -6, 0, 0))
    return _stand(pose, shift, feet), shift


CLIPS: dict[str, tuple[Callable[[float], tuple[Pose, Array]], int]] = {"Walk": (walk, 24), "Jump": (jump, 32)}
"""Name -> (pose at a fraction of the cycle, frames at 24 per second)."""


def sampled(name: str) -> tuple[Array, Array, Array]:
    """Times (T,) [s], local rotations (T, J, 3, 3) and translations of the root (T, 3); the last frame repeats the first."""
    pose_at, count = CLIPS[name]
    rotmats, shifts = np.tile(np.eye(3), (count + 1, len(NAMES), 1, 1)), np.zeros((count + 1, 3))
    for frame in range(count + 1):
        pose, shifts[frame] = pose_at((frame % count) / count)
        for joint, rotmat in pose.items():
            rotmats[frame, NAMES.index(joint)] = rotmat
    return np.arange(count + 1) / FPS, rotmats, shifts


def _stand(pose: Pose, shift: Array, feet: dict[str, tuple[float, float, float]]) -> Pose:
    """The pose with legs bent so that the feet reach their targets.

    Args:
        pose: Pose of everything except the legs.
        shift: Translation of the root [m].
        feet: Target of each foot: height [m], offset along the body from its rest position [m], and pitch [degrees].
    """
    pose = dict(pose)
    for upper, middle, lower in LEGS:
        for side in "lr":
            top, joint, foot = (NAMES.index(f"{name}_{side}") for name in (upper, middle, lower))
            rotmat, place = _placed(pose, shift, PARENTS[top])
            height, way, pitch = feet[f"{lower}_{side}"]
            hip = place + rotmat @ (PLACES[top] - PLACES[PARENTS[top]])
            target = rotmat.T @ (PLACES[foot] + [0, height, way] - hip)
            first, second = _bent(PLACES[joint] - PLACES[top], PLACES[foot] - PLACES[joint], target)
            pose[f"{upper}_{side}"], pose[f"{middle}_{side}"] = turn(first), turn(second)
            pose[f"{lower}_{side}"] = (rotmat @ turn(first + second)).T @ turn(pitch)
    return pose


def _bent(upper: Array, lower: Array, target: Array) -> tuple[float, float]:
    """Rotations about x [degrees] of two bones that end at the target seen along x; the knee bends as in the rest pose."""
    angles = [np.arctan2(bone[2], bone[1]) for bone in (upper, lower)]
    lengths = [np.hypot(bone[1], bone[2]) for bone in (upper, lower)]
    reach = np.clip(np.hypot(target[1], target[2]), abs(lengths[0] - lengths[1]) + 1e-6, sum(lengths) * 0.999)
    side = np.sign(np.sin(angles[1] - angles[0]))
    at_hip = np.arccos(np.clip((lengths[0] ** 2 + reach**2 - lengths[1] ** 2) / (2 * lengths[0] * reach), -1, 1))
    at_knee = np.arccos(np.clip((lengths[0] ** 2 + lengths[1] ** 2 - reach**2) / (2 * lengths[0] * lengths[1]), -1, 1))
    first = np.arctan2(target[2], target[1]) - side * at_hip - angles[0]
    second = side * (np.pi - at_knee) - (angles[1] - angles[0])
    return _degrees(first), _degrees(second)


def _placed(pose: Pose, shift: Array, joint: int) -> tuple[Array, Array]:
    """Rotation and position of a joint in the world."""
    own = pose.get(NAMES[joint], np.eye(3))
    if PARENTS[joint] < 0:
        return own, PLACES[joint] + shift
    rotmat, place = _placed(pose, shift, PARENTS[joint])
    return rotmat @ own, place + rotmat @ (PLACES[joint] - PLACES[PARENTS[joint]])


def _degrees(angle: float) -> float:
    return float(np.degrees((angle + np.pi) % (2 * np.pi) - np.pi))


def _smooth(t: float, times: tuple[float, ...], values: tuple[float, ...]) -> float:
    """Interpolation of keys with the slopes of a closed Catmull-Rom spline."""
    at, keys = np.array(times), np.array(values)
    slopes = np.empty(len(keys))
    slopes[1:-1] = (keys[2:] - keys[:-2]) / (at[2:] - at[:-2])
    slopes[0] = slopes[-1] = (keys[1] - keys[-2]) / (at[1] - at[0] + at[-1] - at[-2])
    i = int(np.clip(np.searchsorted(at, t, side="right") - 1, 0, len(at) - 2))
    gap = at[i + 1] - at[i]
    u = (t - at[i]) / gap
    return float(
        (2 * u**3 - 3 * u**2 + 1) * keys[i]
        + (u**3 - 2 * u**2 + u) * gap * slopes[i]
        + (3 * u**2 - 2 * u**3) * keys[i + 1]
        + (u**3 - u**2) * gap * slopes[i + 1]
    )
