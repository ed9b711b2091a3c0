"""Closed-form ray intersections for the solids of the still life.

Every shape is in its own local frame (meters). Inputs are local origins and unit directions of shape (N, 3); the result is the
nearest distance in front of the origin (N,), infinity where the ray misses.
"""

import abc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Distances below this count as "behind": a ray must not hit the surface it has just left.
MIN_DISTANCE = 1e-5


def rotation_to(axis: Any) -> Array:
    """Builds a rotation whose third column (local z) points along an axis.

    Args:
        axis: direction in world coordinates, shape (3,), any length.

    Returns:
        Rotation matrix of shape (3, 3), local to world.
    """
    z = np.asarray(axis, dtype=np.float64)
    z = z / np.linalg.norm(z)
    helper = np.array([1.0, 0.0, 0.0]) if abs(z[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    x = np.cross(helper, z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def rotation_about_z(degrees: float) -> Array:
    """Returns the (3, 3) rotation about the world's z axis by an angle in degrees."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _first_in_front(near: Array, far: Array) -> Array:
    """Selects, for each ray, the smaller of two ordered distances that is in front; infinity if none is."""
    nearest = np.where(near > MIN_DISTANCE, near, far)
    return np.where(nearest > MIN_DISTANCE, nearest, np.inf)


def _solve_quadratic(a: Array, half_b: Array, c: Array) -> tuple[Array, Array]:
    """Solves a t^2 + 2 half_b t + c = 0 and returns both roots in order, NaN where there is none."""
    root = np.sqrt(half_b * half_b - a * c)
    first, second = (-half_b - root) / a, (-half_b + root) / a
    return np.minimum(first, second), np.maximum(first, second)


@dataclass
class Shape(abc.ABC):
    """A solid placed in the world.

    Attributes:
        centre: position of the local origin in world coordinates, shape (3,), metres.
        material: material number, an index of `scene.MATERIALS`.
        rotation: local-to-world rotation, shape (3, 3).
    """

    centre: Any
    material: int
    rotation: Array = field(default_factory=lambda: np.eye(3), kw_only=True)

    def __post_init__(self) -> None:
        """Converts the center to an array, so that callers may write plain tuples."""
        self.centre = np.asarray(self.centre, dtype=np.float64)

    @property
    @abc.abstractmethod
    def bound(self) -> float:
        """Radius of a sphere about the local origin that holds the shape, meters."""

    @abc.abstractmethod
    def hit(self, origins: Array, directions: Array) -> Array:
        """Intersects local rays, both (N, 3), and returns distances (N,)."""

    @abc.abstractmethod
    def normal(self, points: Array) -> Array:
        """Returns outward unit normals (N, 3) at local surface points (N, 3)."""

    def to_local(self, points: Array) -> Array:
        """Maps world points (N, 3) into the local frame."""
        return (points - self.centre) @ self.rotation


@dataclass
class Ellipsoid(Shape):
    """An ellipsoid with semi-axes (3,) along the local axes; a ball when they are equal."""

    semi_axes: Any = (1.0, 1.0, 1.0)

    @property
    def bound(self) -> float:
        """See `Shape.bound`."""
        return float(max(self.semi_axes))

    def hit(self, origins: Array, directions: Array) -> Array:
        """See `Shape.hit`."""
        scale = 1.0 / np.asarray(self.semi_axes)
        o, d = origins * scale, directions * scale
        a = np.einsum("ij,ij->i", d, d)
        half_b = np.einsum("ij,ij->i", o, d)
        c = np.einsum("ij,ij->i", o, o) - 1.0
        return _first_in_front(*_solve_quadratic(a, half_b, c))

    def normal(self, points: Array) -> Array:
        """See `Shape.normal`."""
        gradient = points / np.asarray(self.semi_axes) ** 2
        return gradient / np.linalg.norm(gradient, axis=1, keepdims=True)


@dataclass
class Box(Shape):
    """A cuboid with half extents (3,) along the local axes."""

    half: Any = (1.0, 1.0, 1.0)

    @property
    def bound(self) -> float:
        """See `Shape.bound`."""
        return float(np.linalg.norm(self.half))

    def hit(self, origins: Array, directions: Array) -> Array:
        """See `Shape.hit`."""
        half = np.asarray(self.half)
        inverse = 1.0 / np.where(np.abs(directions) < 1e-12, 1e-12, directions)
        middle, reach = -origins * inverse, half * np.abs(inverse)
        enter, leave = (middle - reach).max(axis=1), (middle + reach).min(axis=1)
        return np.where(enter <= leave, _first_in_front(enter, leave), np.inf)

    def normal(self, points: Array) -> Array:
        """See `Shape.normal`."""
        relative = points / np.asarray(self.half)
        axis = np.abs(relative).argmax(axis=1)
        rows = np.arange(len(points))
        normals = np.zeros_like(points)
        normals[rows, axis] = np.sign(relative[rows, axis])
        return normals


@dataclass
class Frustum(Shape):
    """A capped cone about the local z axis; a cylinder when both radii are equal.

    Attributes:
        half_height: half the height, meters.
        bottom: radius at local z = -half_height.
        top: radius at local z = +half_height.
    """

    half_height: float = 1.0
    bottom: float = 1.0
    top: float = 1.0

    @property
    def bound(self) -> float:
        """See `Shape.bound`."""
        return float(np.hypot(self.half_height, max(self.bottom, self.top)))

    def hit(self, origins: Array, directions: Array) -> Array:
        """See `Shape.hit`."""
        (ox, oy, oz), (dx, dy, dz) = origins.T, directions.T
        slope = (self.top - self.bottom) / (2.0 * self.half_height)
        radius = 0.5 * (self.top + self.bottom) + slope * oz
        change = slope * dz
        a = dx * dx + dy * dy - change * change
        half_b = ox * dx + oy * dy - radius * change
        near, far = _solve_quadratic(a, half_b, ox * ox + oy * oy - radius * radius)
        best = np.full(len(origins), np.inf)
        for t in (near, far):
            usable = (t > MIN_DISTANCE) & (np.abs(oz + t * dz) <= self.half_height)
            best = np.where(usable & (t < best), t, best)
        for height, limit in ((-self.half_height, self.bottom), (self.half_height, self.top)):
            t = (height - oz) / np.where(np.abs(dz) < 1e-12, 1e-12, dz)
            x, y = ox + t * dx, oy + t * dy
            usable = (t > MIN_DISTANCE) & (x * x + y * y <= limit * limit)
            best = np.where(usable & (t < best), t, best)
        return best

    def normal(self, points: Array) -> Array:
        """See `Shape.normal`."""
        slope = (self.top - self.bottom) / (2.0 * self.half_height)
        rim = np.hypot(points[:, 0], points[:, 1])
        side = np.stack([points[:, 0], points[:, 1], -slope * rim], axis=1)
        side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
        # A point belongs to a cap when it is nearer to the cap's plane than to the mantle.
        to_cap = self.half_height - np.abs(points[:, 2])
        to_side = np.abs(0.5 * (self.top + self.bottom) + slope * points[:, 2] - rim)
        cap = np.zeros_like(points)
        cap[:, 2] = np.sign(points[:, 2])
        return np.where((to_cap < to_side)[:, None], cap, side)


@dataclass
class Disc(Shape):
    """A flat ellipse in the local xy plane, without thickness; its normal is local +z."""

    semi_axes: Any = (1.0, 1.0)

    @property
    def bound(self) -> float:
        """See `Shape.bound`."""
        return float(max(self.semi_axes))

    def hit(self, origins: Array, directions: Array) -> Array:
        """See `Shape.hit`."""
        dz = np.where(np.abs(directions[:, 2]) < 1e-12, 1e-12, directions[:, 2])
        t = -origins[:, 2] / dz
        flat = (origins[:, :2] + t[:, None] * directions[:, :2]) / np.asarray(self.semi_axes)
        return np.where((t > MIN_DISTANCE) & ((flat * flat).sum(axis=1) <= 1.0), t, np.inf)

    def normal(self, points: Array) -> Array:
        """See `Shape.normal`."""
        return np.broadcast_to(np.array([0.0, 0.0, 1.0]), points.shape).copy()


@dataclass
class Torus(Shape):
    """A ring about the local z axis with the given ring and tube radii (meters)."""

    ring: float = 1.0
    tube: float = 0.25

    @property
    def bound(self) -> float:
        """See `Shape.bound`."""
        return self.ring + self.tube

    def _distance(self, points: Array) -> Array:
        """Signed distance (N,) of points (N, 3) to the surface."""
        around = np.sqrt(points[:, 0] ** 2 + points[:, 1] ** 2) - self.ring
        return np.sqrt(around * around + points[:, 2] ** 2) - self.tube

    def hit(self, origins: Array, directions: Array) -> Array:
        """See `Shape.hit`.

        The quartic's closed form loses digits near grazing rays. The distance to a torus is exact and cheap
        instead: sphere tracing from where the ray enters the bounding sphere, then Newton steps.
        A minimum step prevents slow progress along the tube; it skips no chord deeper than 0.1 micrometers.
        """
        half_b = np.einsum("ij,ij->i", origins, directions)
        inside = half_b * half_b - np.einsum("ij,ij->i", origins, origins) + self.bound**2
        reach = np.sqrt(np.maximum(inside, 0.0))
        t, end = np.maximum(-half_b - reach, MIN_DISTANCE), -half_b + reach
        live = np.flatnonzero((inside > 0.0) & (end > MIN_DISTANCE))
        result = np.full(len(origins), np.inf)
        for _ in range(400):
            if not len(live):
                break
            step = self._distance(origins[live] + t[live, None] * directions[live])
            done = step < 1e-6
            result[live[done]] = t[live[done]]
            t[live] += np.maximum(step, 1e-4)
            live = live[~done & (t[live] <= end[live])]
        found = np.flatnonzero(np.isfinite(result))
        for _ in range(4):
            points = origins[found] + result[found, None] * directions[found]
            slope = np.einsum("ij,ij->i", self.normal(points), directions[found])
            result[found] -= self._distance(points) / np.minimum(slope, -0.05)
        return np.where(result > MIN_DISTANCE, result, np.inf)

    def normal(self, points: Array) -> Array:
        """See `Shape.normal`."""
        rim = np.maximum(np.hypot(points[:, 0], points[:, 1]), 1e-12)
        core = points.copy()
        core[:, :2] *= (self.ring / rim)[:, None]
        core[:, 2] = 0.0
        away = points - core
        return away / np.linalg.norm(away, axis=1, keepdims=True)
