"""The shape of the creature: a smooth union of round cones and ellipsoids, and a triangle mesh of its surface.

The creature stands on y = 0, looks along z, and is mirror-symmetric in x. Lengths in meters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

JOINTS: dict[str, tuple[str, tuple[float, float, float]]] = {
    "hips": ("", (0.0, 0.335, -0.15)),
    "spine": ("hips", (0.0, 0.35, -0.02)),
    "chest": ("spine", (0.0, 0.35, 0.10)),
    "neck": ("chest", (0.0, 0.42, 0.20)),
    "head": ("neck", (0.0, 0.52, 0.27)),
    "tail_1": ("hips", (0.0, 0.33, -0.25)),
    "tail_2": ("tail_1", (0.0, 0.29, -0.345)),
    "tail_3": ("tail_2", (0.0, 0.265, -0.44)),
    "tail_4": ("tail_3", (0.0, 0.285, -0.53)),
    "shoulder_l": ("chest", (0.105, 0.30, 0.125)),
    "elbow_l": ("shoulder_l", (0.118, 0.165, 0.10)),
    "paw_l": ("elbow_l", (0.118, 0.05, 0.125)),
    "shoulder_r": ("chest", (-0.105, 0.30, 0.125)),
    "elbow_r": ("shoulder_r", (-0.118, 0.165, 0.10)),
    "paw_r": ("elbow_r", (-0.118, 0.05, 0.125)),
    "thigh_l": ("hips", (0.105, 0.295, -0.165)),
    "knee_l": ("thigh_l", (0.12, 0.175, -0.12)),
    "foot_l": ("knee_l", (0.12, 0.05, -0.165)),
    "thigh_r": ("hips", (-0.105, 0.295, -0.165)),
    "knee_r": ("thigh_r", (-0.12, 0.175, -0.12)),
    "foot_r": ("knee_r", (-0.12, 0.05, -0.165)),
}
"""Name -> (parent, rest position). All axes are those of the world in the rest pose."""


@dataclass(frozen=True)
class Part:
    """A round cone from `start` to `end`, or an ellipsoid around `start` if `radii` has three numbers."""

    joint: str
    """Joint of the part."""
    kind: str
    """Paint of the part."""
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radii: tuple[float, ...]
    blend: float
    """Length over which it is blended with the previous parts [m]."""
    pitch: float = 0.0
    """Rotation of an ellipsoid about x [rad]."""

    def distances(self, points: Array) -> Array:
        """Signed distances, negative inside; near the surface for ellipsoids."""
        start = np.array(self.start)
        if len(self.radii) == 3:
            c, s = np.cos(self.pitch), np.sin(self.pitch)
            local = (points - start) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
            scaled = local / np.array(self.radii)
            length = np.linalg.norm(scaled, axis=-1)
            return length * (length - 1) / np.maximum(np.linalg.norm(scaled / np.array(self.radii), axis=-1), 1e-9)
        along = np.array(self.end) - start
        share = np.clip((points - start) @ along / (along @ along), 0, 1)
        radius = self.radii[0] + share * (self.radii[1] - self.radii[0])
        return np.linalg.norm(points - start - share[:, None] * along, axis=-1) - radius


def parts() -> list[Part]:
    """All parts, larger ones first."""
    place = {name: at for name, (_, at) in JOINTS.items()}
    found = [
        Part("spine", "body", (0, 0.335, -0.02), (0, 0, 0), (0.135, 0.132, 0.20), 0.0),
        Part("hips", "body", (0, 0.335, -0.15), (0, 0, 0), (0.13, 0.128, 0.135), 0.06),
        Part("chest", "body", (0, 0.345, 0.10), (0, 0, 0), (0.128, 0.135, 0.12), 0.06),
        Part("neck", "body", (0, 0.40, 0.16), (0, 0.53, 0.26), (0.095, 0.085), 0.07),
        Part("head", "body", (0, 0.565, 0.28), (0, 0, 0), (0.125, 0.112, 0.125), 0.05, 0.15),
        Part("head", "body", (0, 0.525, 0.375), (0, 0.52, 0.425), (0.082, 0.068), 0.06),
        Part("tail_1", "body", (0, 0.33, -0.24), place["tail_2"], (0.098, 0.074), 0.07),
        Part("tail_2", "body", place["tail_2"], place["tail_3"], (0.074, 0.055), 0.03),
        Part("tail_3", "body", place["tail_3"], place["tail_4"], (0.055, 0.042), 0.03),
        Part("tail_4", "body", place["tail_4"], (0, 0.35, -0.60), (0.042, 0.034), 0.03),
        Part("tail_4", "horn", (0, 0.395, -0.625), (0, 0, 0), (0.026, 0.078, 0.052), 0.035, -0.45),
    ]
    for side, x in (("l", 1.0), ("r", -1.0)):
        for top, middle, low, radii in (
            ("shoulder", "elbow", "paw", (0.072, 0.053, 0.048)),
            ("thigh", "knee", "foot", (0.088, 0.055, 0.047)),
        ):
            a, b, c = (place[f"{name}_{side}"] for name in (top, middle, low))
            found += [
                Part(f"{top}_{side}", "body", a, b, radii[:2], 0.05),
                Part(f"{middle}_{side}", "body", b, c, radii[1:], 0.025),
                Part(f"{low}_{side}", "foot", (c[0], 0.036, c[2] + 0.032), (0, 0, 0), (0.056, 0.036, 0.075), 0.03),
            ]
        found += [
            Part("head", "body", (x * 0.072, 0.605, 0.335), (0, 0, 0), (0.058, 0.062, 0.058), 0.025),
            Part("head", "horn", (x * 0.062, 0.655, 0.245), (x * 0.085, 0.725, 0.185), (0.034, 0.024), 0.022),
            Part("head", "horn", (x * 0.085, 0.725, 0.185), (x * 0.088, 0.775, 0.165), (0.024, 0.011), 0.01),
            Part("head", "horn", (x * 0.118, 0.535, 0.24), (x * 0.185, 0.555, 0.185), (0.036, 0.018), 0.025),
        ]
    plates = (
        ("head", 0.675, 0.225, 0.040), ("neck", 0.575, 0.135, 0.047), ("chest", 0.492, 0.055, 0.055),
        ("spine", 0.476, -0.045, 0.060), ("hips", 0.468, -0.145, 0.055), ("tail_1", 0.425, -0.245, 0.047),
        ("tail_2", 0.368, -0.340, 0.038), ("tail_3", 0.325, -0.425, 0.030),
    )  # fmt: skip
    for joint, y, z, size in plates:
        found.append(Part(joint, "horn", (0, y, z), (0, 0, 0), (0.022, size, 0.62 * size), 0.016, -0.35))
    return found


PARTS = parts()


def distance(points: Array) -> Array:
    """Signed distance of the whole creature, smooth where parts meet (polynomial smooth minimum)."""
    total = PARTS[0].distances(points)
    for part in PARTS[1:]:
        near = part.distances(points)
        if part.blend > 0:
            h = np.clip(0.5 + 0.5 * (total - near) / part.blend, 0, 1)
            total = total * (1 - h) + near * h - part.blend * h * (1 - h)
        else:
            total = np.minimum(total, near)
    return total


def gradient(points: Array, step: float = 1e-4) -> Array:
    """Gradient of the distance, by central differences."""
    shifts = step * np.eye(3)
    return np.stack([(distance(points + s) - distance(points - s)) / (2 * step) for s in shifts], -1)


def projected(points: Array, rounds: int = 4) -> Array:
    """The points moved onto the surface along the gradient."""
    for _ in range(rounds):
        slope = gradient(points)
        points = points - (distance(points) / np.maximum((slope**2).sum(-1), 0.05))[:, None] * slope
    return points


def surface(cell: float = 0.009) -> tuple[Array, Ints]:
    """Vertices and outward faces of the whole surface: dual contouring by mean crossings (surface nets).

    Args:
        cell: Side of the lattice's cells [m].
    """
    low = np.array([-0.24, -0.02, -0.72])
    counts = np.ceil((np.array([0.24, 0.82, 0.55]) - low) / cell).astype(int) + 1
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in counts], indexing="ij"), -1)
    values = np.concatenate([distance(low + cell * slab.reshape(-1, 3)) for slab in grid]).reshape(counts)
    corners = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    total, crossings = np.zeros((*(counts - 1), 3)), np.zeros(counts - 1)

    def at(corner: tuple[int, int, int]) -> Array:
        return values[tuple(slice(c, n - 1 + c) for c, n in zip(corner, counts))]

    for a in corners:
        for b in corners:
            if a < b and sum(p != q for p, q in zip(a, b)) == 1:
                first, second = at(a), at(b)
                is_cut = (first < 0) != (second < 0)
                share = np.where(is_cut, first / np.where(is_cut, first - second, 1), 0)[..., None]
                total += np.where(is_cut[..., None], np.array(a) + share * (np.array(b) - np.array(a)), 0)
                crossings += is_cut
    used = crossings > 0
    number = np.full(used.shape, -1)
    number[used] = np.arange(used.sum())
    vertices = low + cell * (np.argwhere(used) + total[used] / crossings[used][:, None])
    quads = []  # one around each lattice edge that the surface crosses
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        inside = values < 0
        before, after = (np.take(inside, range(k, counts[axis] - 1 + k), axis) for k in (0, 1))
        for flip in (False, True):
            at_edge = np.argwhere((before & ~after) if not flip else (~before & after))
            at_edge = at_edge[(at_edge[:, u] > 0) & (at_edge[:, v] > 0)]
            ring = []
            for du, dv in ((1, 1), (0, 1), (0, 0), (1, 0)):
                cells = at_edge.copy()
                cells[:, u] -= 1 - du
                cells[:, v] -= 1 - dv
                ring.append(number[tuple(cells.T)])
            quads.append(np.stack(ring[::-1] if flip else ring, -1))
    quad = np.concatenate(quads)
    return vertices, np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
