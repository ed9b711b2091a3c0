"""Rig of the hand: skin weights, axes and limits of the joints, and the matrix that finds the joints from the vertices."""

import numpy as np
import torch
from anatomy import FINGERS, KEYPOINTS, NAMES, PARENTS, PLACES, THUMB, Array, Ints, unit
from body import GROUPS, WEBS, gradient

from vision3d.geometry.kinematics import forward_kinematics
from vision3d.geometry.rotation import so3_exp

KINDS = ("flexion", "abduction", "twist")
_FINGER_LIMITS = (((-0.25, 1.5), (-0.25, 0.25)), ((0.0, 1.7),), ((0.0, 1.2),))
_THUMB_LIMITS = (((-0.35, 0.6), (-0.35, 0.85)), ((-0.2, 0.7),), ((0.0, 1.1),))
_OPPOSITION = unit(np.array([0.05, -1.0, -0.05]))
"""Axis about which the thumb circles to the front of the palm."""
_LIGHTEST = 0.02
"""Weights below this are dropped, so that most vertices between two joints follow one only."""
_POSES, _RIDGE = 240, 2e-4


def axes() -> Array:
    """Axes of flexion, abduction (towards the thumb; of the thumb, out of the palm's plane) and twist, (16, 3, 3)."""
    found = np.zeros((len(NAMES), 3, 3))
    found[0] = np.eye(3)[[0, 2, 1]] * [[1], [-1], [1]]
    for number, finger in enumerate(FINGERS):
        for bone in range(3):
            flexion, along = finger.flexion_axis(bone), finger.direction(bone)
            found[1 + 3 * number + bone] = flexion, np.cross(along, flexion), along
    found[1, 1] = _OPPOSITION
    return found


def limits() -> Array:
    """Lowest and highest angle about each axis [rad], (16, 3, 2); equal where a joint does not move."""
    found = np.zeros((len(NAMES), 3, 2))
    for number, finger in enumerate(FINGERS):
        for bone, ranges in enumerate(_THUMB_LIMITS if finger is THUMB else _FINGER_LIMITS):
            for kind, pair in enumerate(ranges):
                found[1 + 3 * number + bone, kind] = pair
    return found


def owners(points: Array) -> Ints:
    """The joint that moves each point most, with hard borders."""
    distances = np.stack([np.min([part.distances(points) for part in group], 0) for group in GROUPS], -1)
    nearest, found = distances.argmin(-1), np.zeros(len(points), np.int64)
    for number, finger in enumerate(FINGERS, 1):
        own = nearest == number
        for bone in range(3):
            along = finger.direction(bone)
            if bone:
                along = unit(along + finger.direction(bone - 1))
            beyond = (points - finger.joints[bone]) @ along > 0
            if bone == 0 and finger is THUMB:
                continue
            found[own & beyond] = 3 * number - 2 + bone
        if finger is THUMB:
            names = [part.joint for part in GROUPS[0]]
            palm = np.stack([part.distances(points) for part in GROUPS[0]], -1).argmin(-1)
            found[~own & np.isin(palm, [i for i, name in enumerate(names) if name == "thumb_1"])] = 1
            found[own & (found == 0)] = 1
    return found


def _softness(points: Array) -> Array:
    """Length over which one joint's influence fades into the next one's [m]."""
    reach = np.array([0.014, 0.012, 0.0078, 0.0064, 0.005, *[0.0090, 0.0060, 0.0052, 0.004] * 4])
    reach = np.append(reach, [0.009] * len(WEBS))
    places = np.concatenate([KEYPOINTS, [(web.start + web.end) / 2 for web in WEBS]])
    distances = np.linalg.norm(points[:, None] - places, axis=-1)
    share = np.exp(-distances / 0.006)
    return (share * reach).sum(1) / share.sum(1)


def weights(points: Array, faces: Ints, at: Array) -> Array:
    """Skin weights (V, 16) at points on the surface: hard ownership, blurred on a fine mesh, (M + L) w = M p.

    Args:
        points: Vertices of the fine mesh.
        faces: Its faces.
        at: Points at which the weights are wanted.
    """
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import spsolve
    from scipy.spatial import KDTree

    corners, soft = points[faces], _softness(points)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 2
    rows, columns, values = [], [], []
    for i in range(3):
        a, b = corners[:, (i + 1) % 3] - corners[:, i], corners[:, (i + 2) % 3] - corners[:, i]
        half = np.clip((a * b).sum(-1) / np.maximum(4 * areas, 1e-12), 0, 10)  # half the cotangent, for the edge across
        first, second = faces[:, (i + 1) % 3], faces[:, (i + 2) % 3]
        half = half * soft[first] * soft[second]
        rows, columns, values = [*rows, first, second], [*columns, second, first], [*values, half, half]
    count = len(points)
    joined = coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count))
    mass = np.bincount(faces.ravel(), np.repeat(areas / 3, 3), count)
    owned = mass[:, None] * np.eye(len(NAMES))[owners(points)]
    blurred = np.asarray(spsolve((diags_array(mass) + diags_array(joined.sum(1)) - joined).tocsc(), owned))
    # Vertices of the fine mesh around each point, on the same side of thin parts.
    distances, near = KDTree(points).query(at, 8)
    slopes, own = gradient(points), gradient(at)
    is_same = (slopes[near] * own[:, None]).sum(-1) > 0.3
    share = np.exp(-((distances / 0.002) ** 2)) * is_same + 1e-9
    found = (share[..., None] * blurred[near]).sum(1) / share.sum(1, keepdims=True)
    return _sparse(found)


def _sparse(found: Array) -> Array:
    """At most four weights of each vertex, none tiny, with sum 1."""
    found = np.where(found < _LIGHTEST, 0, found)
    smallest = np.sort(found, 1)[:, -4]
    found = np.where(found < smallest[:, None], 0, found)
    return found / found.sum(1, keepdims=True)


def posed(vertices: Array, skin: Array, angles: Array) -> tuple[Array, Array]:
    """Vertices (B, V, 3) by linear blend skinning, and the 21 joints (B, 21, 3).

    Args:
        vertices: At rest.
        skin: Weights (V, 16).
        angles: About the three axes of each joint (B, 16, 3) [rad].
    """
    turns = so3_exp(torch.from_numpy(angles[..., None] * axes()))
    local = turns[..., 0, :, :] @ turns[..., 1, :, :] @ turns[..., 2, :, :]
    offsets = PLACES - np.where(np.array(PARENTS)[:, None] < 0, 0, PLACES[np.array(PARENTS)])
    rotmats, places = (part.numpy() for part in forward_kinematics(local, torch.from_numpy(offsets), PARENTS))
    moved = np.einsum("bjxy,jvy->bjvx", rotmats, vertices - PLACES[:, None]) + places[:, :, None]
    blended = np.einsum("vj,bjvx->bvx", skin, moved)
    joints = [places[:, 0]]
    for f, finger in enumerate(FINGERS):
        tip = places[:, 3 * f + 3] + rotmats[:, 3 * f + 3] @ (finger.joints[3] - finger.joints[2])
        joints += [*np.moveaxis(places[:, 3 * f + 1 : 3 * f + 4], 1, 0), tip]
    return blended, np.stack(joints, 1)


def joint_matrix(vertices: Array, skin: Array, tips: Ints, ring: Ints) -> Array:
    """Matrix (21, V) of joints from vertices: rows >= 0 with sum 1, fitted to random poses; tips are single vertices."""
    from scipy.optimize import nnls

    generator = np.random.default_rng(0)
    low, high = np.moveaxis(limits(), -1, 0)
    angles = low + generator.random((_POSES, len(NAMES), 3)) * (high - low)
    angles[0] = 0
    shapes, targets = posed(vertices, skin, angles)
    found = np.zeros((len(KEYPOINTS), len(vertices)))
    for joint, place in enumerate(KEYPOINTS):
        if joint and joint % 4 == 0:
            found[joint, tips[joint // 4 - 1]] = 1
            continue
        finger, bone = divmod(joint - 1, 4)
        if joint == 0:
            near = np.union1d(ring, np.flatnonzero((skin[:, 0] == 1) & (vertices[:, 1] < 0.018)))
        else:
            reach = 0.022 if bone == 0 else 1.75 * FINGERS[finger].radii[bone]
            bones = [0, 3 * finger + 1] if bone == 0 else [3 * finger + bone, 3 * finger + bone + 1]
            involved = skin[:, bones].sum(1) > 0.6
            near = np.flatnonzero((np.linalg.norm(vertices - place, axis=1) < reach) & involved)
        system = shapes[:, near].transpose(0, 2, 1).reshape(-1, len(near)) - targets[:, joint].reshape(-1, 1)
        # Rows of 1 for the sum, and a pull towards equal weights, which keeps noise of the vertices small.
        strong, weak = 1e2, _RIDGE * np.sqrt(len(system) * len(near))
        system = np.concatenate([system, np.full((1, len(near)), strong), weak * np.eye(len(near))])
        wanted = np.concatenate([np.zeros(len(system) - 1 - len(near)), [strong], np.full(len(near), weak / len(near))])
        row = nnls(system, wanted)[0]
        found[joint, near] = row / row.sum()
    return found
