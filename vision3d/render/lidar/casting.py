"""Nearest hits of the rays of a LiDAR on instances of meshes, by Embree.

Each mesh has its own Embree scene, built once; a frame moves instances by transforming the rays into the frame of the mesh.
A frame therefore costs only rays, however many triangles its objects have, and the hits of each object alone, which labels
need, are a by-product. Only the block of rays that the bounding box of an instance can meet is cast.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vision3d.core.errors import InputError, MissingDependencyError
from vision3d.render.lidar.materials import DEFAULT

MAX_FACES = 2**26
_NO_HIT = -1


@dataclass(eq=False)
class Shape:
    """A mesh to cast rays at, float32, with a material per face."""

    vertices: np.ndarray
    """(V, 3) [m]."""
    faces: np.ndarray
    """(F, 3) int32."""
    materials: np.ndarray
    """(F,) uint8, indices into `materials.NAMES`."""
    info: dict[str, Any] = field(default_factory=dict)
    """What the maker of the shape wants to remember."""
    _embree: Any = field(default=None, repr=False)
    _corners: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, vertices: np.ndarray, faces: np.ndarray, materials: np.ndarray | int = DEFAULT, **info: Any) -> "Shape":
        """Check the arrays and convert their types; one material may be given for all faces.

        Raises:
            InputError: The shape has no faces, too many, an index out of range, or a coordinate that is not finite.
        """
        vertices = np.ascontiguousarray(vertices, np.float32).reshape(-1, 3)
        faces = np.ascontiguousarray(faces, np.int32).reshape(-1, 3)
        if not 0 < len(faces) <= MAX_FACES:
            raise InputError(f"Shape: got {len(faces)} faces, want 1 to {MAX_FACES}")
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise InputError(f"Shape: faces use vertices {faces.min()} to {faces.max()}, want 0 to {len(vertices) - 1}")
        if not np.isfinite(vertices).all():
            raise InputError("Shape: a vertex is not finite")
        return cls(vertices, faces, np.broadcast_to(np.asarray(materials, np.uint8), len(faces)).copy(), info)

    @property
    def corners(self) -> np.ndarray:
        """The eight corners of the bounding box, (8, 3) float64; the first is the lowest, the last the highest."""
        if self._corners is None:
            low, high = self.vertices.min(0), self.vertices.max(0)
            ends = [(low[i], high[i]) for i in range(3)]
            self._corners = np.array([[x, y, z] for x in ends[0] for y in ends[1] for z in ends[2]], np.float64)
        return self._corners

    def embree(self) -> Any:
        """The Embree scene, built at the first call."""
        if self._embree is None:
            self._embree = _embree_scene(self.vertices, self.faces)
        return self._embree


@dataclass(frozen=True, eq=False)
class Instance:
    """A shape in the frame of the sensor."""

    shape: Shape
    matrix: np.ndarray
    """(4, 4) shape to sensor: any invertible affine map."""
    albedo: np.ndarray | None = None
    """(number of materials,) instead of the albedo of the table."""
    is_counted: bool = True
    """Whether `Hits.alone` is wanted; without it, rays that hit something nearer are not cast."""

    @functools.cached_property
    def inverse(self) -> np.ndarray:
        """Sensor to shape, (4, 4)."""
        matrix = np.asarray(self.matrix, np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
            raise InputError("Instance: the matrix is singular or not finite, want an invertible (4, 4) matrix")
        return np.linalg.inv(matrix)

    @functools.cached_property
    def corners(self) -> np.ndarray:
        """Corners of its bounding box in the frame of the sensor, (8, 3)."""
        return self.shape.corners @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    @property
    def nearest(self) -> float:
        """A lower bound of its distance from the origin [m]."""
        inside = np.clip(self.inverse[:3, 3], self.shape.corners[0], self.shape.corners[-1]) - self.inverse[:3, 3]
        return float(np.linalg.norm(inside)) / max(float(np.linalg.norm(self.inverse[:3, :3], 2)), 1e-12) - 1e-3


@dataclass(frozen=True, eq=False)
class Hits:
    """What each ray hits first, arrays of the shape of the rays (beams, steps)."""

    distance: np.ndarray
    """[m], float32; infinite where nothing is hit."""
    instance: np.ndarray
    """Index of the instance, int32; -1 where nothing is hit."""
    material: np.ndarray
    """uint8."""
    cosine: np.ndarray
    """Absolute cosine between the ray and the normal, float32."""
    alone: np.ndarray
    """(instances,) int64: number of rays that would hit the instance if it were alone."""


def cast(instances: Sequence[Instance], rays: np.ndarray, origins: np.ndarray, *, max_range: float = math.inf) -> Hits:
    """Cast a grid of rays from points on the z axis.

    Args:
        instances: Objects in the frame of the sensor.
        rays: (beams, steps, 3) float32 unit vectors: azimuth increases along steps by a constant step through at most one turn,
            elevation is about constant along them.
        origins: (beams,) float32 height of the origin of each beam [m].
        max_range: Farther hits do not count [m].

    Raises:
        MissingDependencyError: embreex is not installed.
        InputError: The matrix of an instance is singular or not finite.
    """
    shape, count = rays.shape[:2], rays.shape[0] * rays.shape[1]
    distance = np.full(shape, np.inf, np.float32)
    instance, material = np.full(count, _NO_HIT, np.int32), np.zeros(count, np.uint8)
    cosine, alone = np.zeros(count, np.float32), np.zeros(len(instances), np.int64)
    grid = _Grid(rays, origins)
    flat, heights, nearest = rays.reshape(-1, 3), np.repeat(origins, shape[1]), distance.reshape(-1)
    margin = float(np.abs(origins).max())
    bounds = [placed.nearest - margin for placed in instances]
    for k in np.argsort(bounds, kind="stable").tolist():  # near ones hide rays from those behind
        placed = instances[k]
        for rows, columns in grid.blocks(placed):
            is_wanted = distance[rows, columns] > (-1.0 if placed.is_counted else bounds[k])
            row, column = np.nonzero(is_wanted)
            index = (row + rows.start) * shape[1] + (column + columns.start)
            found = _hits(placed.shape, heights[index], flat[index], placed.inverse, max_range)
            if found is None:
                continue
            which, far, face, along = found
            alone[k] += len(which)
            at = index[which]
            is_nearer = far < nearest[at]
            if not is_nearer.all():
                at, far, face, along = at[is_nearer], far[is_nearer], face[is_nearer], along[is_nearer]
            nearest[at], instance[at] = far, k
            material[at], cosine[at] = placed.shape.materials[face], along
    grids = [values.reshape(shape) for values in (instance, material, cosine)]
    return Hits(distance, grids[0], grids[1], grids[2], alone)


def cast_on(
    instances: Sequence[Instance],
    rays: np.ndarray,
    origins: np.ndarray,
    start: np.ndarray,
    *,
    max_range: float = math.inf,
) -> Hits:
    """Cast some rays (N, 3) from the heights `origins` (N,) on the z axis that begin at a distance `start` (N,).

    Arguments and errors otherwise as for `cast`; the arrays of hits are (N,), distances count from the origins.
    """
    count = len(rays)
    distance = np.full(count, np.inf, np.float32)
    instance, material = np.full(count, _NO_HIT, np.int32), np.zeros(count, np.uint8)
    cosine, alone = np.zeros(count, np.float32), np.zeros(len(instances), np.int64)
    corners = np.stack([placed.corners for placed in instances])
    centers = corners.mean(1)
    radii = np.sqrt(((corners - centers[:, None]) ** 2).sum(-1).max(1)) + 1e-3
    along = rays @ centers.T.astype(np.float32) - (rays[:, 2] * origins)[:, None]
    away = (centers**2).sum(1) - 2 * origins[:, None] * centers[:, 2].astype(np.float32) + (origins**2)[:, None]
    may_hit = (away - along**2 <= radii**2) & (along + radii > start[:, None])
    for k in np.nonzero(may_hit.any(0))[0].tolist():
        near = np.nonzero(may_hit[:, k])[0]
        found = _hits(instances[k].shape, origins[near], rays[near], instances[k].inverse, max_range, start[near])
        if found is None:
            continue
        which, far, face, normal = found
        alone[k] = len(which)
        which = near[which]
        far = far + start[which]
        is_nearer = far < distance[which]
        which = which[is_nearer]
        distance[which], instance[which] = far[is_nearer], k
        material[which], cosine[which] = instances[k].shape.materials[face[is_nearer]], normal[is_nearer]
    return Hits(distance, instance, material, cosine, alone)


class _Grid:
    """Finds the rows and columns of rays that can meet a bounding box."""

    def __init__(self, rays: np.ndarray, origins: np.ndarray) -> None:
        self.highest, self.lowest = float(origins.max()), float(origins.min())
        self.steps = rays.shape[1]
        elevation = np.arcsin(np.clip(rays[..., 2], -1, 1))
        self.low, self.high = elevation.min(1), elevation.max(1)
        first = np.arctan2(rays[:, 0, 1], rays[:, 0, 0])
        self.start = float(first.min())  # the columns of different beams may be shifted by less than half a turn
        self.slack = float(first.max() - first.min())
        last = np.arctan2(rays[0, -1, 1], rays[0, -1, 0])
        turn = (last - first[0]) % (2 * math.pi)
        self.step = turn / max(self.steps - 1, 1) if turn > 0 else 2 * math.pi

    def blocks(self, placed: Instance) -> list[tuple[slice, slice]]:
        corners = placed.corners
        center = corners[:, :2].mean(0)
        radius = float(np.sqrt(((corners[:, :2] - center) ** 2).sum(1).max())) + 1e-3
        away = float(np.hypot(*center))
        near, far = max(away - radius, 1e-6), away + radius
        bottom, top = corners[:, 2].min() - 1e-3 - self.highest, corners[:, 2].max() + 1e-3 - self.lowest
        lowest = math.atan2(bottom, near if bottom < 0 else far)
        highest = math.atan2(top, near if top > 0 else far)
        rows = np.nonzero((self.high >= lowest) & (self.low <= highest))[0]
        if not len(rows):
            return []
        wanted = slice(int(rows[0]), int(rows[-1]) + 1)
        if away <= radius * 1.0001:
            return [(wanted, slice(0, self.steps))]
        middle = math.atan2(center[1], center[0])
        angles = np.arctan2(corners[:, 1], corners[:, 0]) - middle
        angles = (angles + math.pi) % (2 * math.pi) - math.pi
        first = (middle + angles.min() - self.slack - self.start) / self.step
        count = math.ceil((angles.max() - angles.min() + self.slack) / self.step) + 3
        around = 2 * math.pi / self.step
        first = math.floor(first % around) - 1
        pieces = []
        for shift in (-around, 0.0, around):
            begin, end = max(math.floor(first + shift), 0), min(math.ceil(first + shift) + count, self.steps)
            if begin < end:
                pieces.append((wanted, slice(begin, end)))
        return _joined(pieces)


def _joined(pieces: list[tuple[slice, slice]]) -> list[tuple[slice, slice]]:
    """Merge column ranges that overlap, so that no ray is cast twice."""
    pieces = sorted(pieces, key=lambda piece: piece[1].start)
    merged: list[tuple[slice, slice]] = []
    for rows, columns in pieces:
        if merged and columns.start <= merged[-1][1].stop:
            last = merged.pop()
            merged.append((rows, slice(last[1].start, max(last[1].stop, columns.stop))))
        else:
            merged.append((rows, columns))
    return merged


def _hits(
    shape: Shape,
    heights: np.ndarray,
    rays: np.ndarray,
    inverse: np.ndarray,
    max_range: float,
    begin: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Indices of the rays that hit, and their distances (from `begin`), faces and absolute cosines; None if none hits."""
    turned = inverse[:3, :3].astype(np.float32)
    local = rays @ turned.T
    starts = heights[:, None] * turned[:, 2] + inverse[:3, 3].astype(np.float32)
    if begin is not None:
        starts += begin[:, None] * local
    found = shape.embree().run(starts, local, output=True)
    which = np.flatnonzero((found["primID"] >= 0) & (found["tfar"] <= max_range))
    if not len(which):
        return None
    normals = found["Ng"][which]
    along = np.abs(np.einsum("ij,ij->i", normals, local[which]))
    outside = normals @ turned  # A^-T n
    length = np.sqrt(np.einsum("ij,ij->i", outside, outside))
    return which, found["tfar"][which], found["primID"][which], along / np.maximum(length, 1e-20)


def _embree_scene(vertices: np.ndarray, faces: np.ndarray) -> Any:
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError as error:
        raise MissingDependencyError("embreex", "lidar", "casting the rays of a LiDAR") from error
    scene = EmbreeScene()
    TriangleMesh(scene, vertices, faces)
    return scene
