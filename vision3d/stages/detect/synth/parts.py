"""Building blocks of shapes: boxes, tubes, ellipsoids, lofted bodies and clouds of leaves, each with a material per face."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from vision3d.render.lidar.casting import Shape
from vision3d.render.lidar.materials import INDEX

Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Vertices (V, 3), faces (F, 3) and materials (F,)."""


def part(vertices: np.ndarray, faces: np.ndarray, material: str) -> Part:
    faces = np.asarray(faces, np.int32).reshape(-1, 3)
    return np.asarray(vertices, np.float32).reshape(-1, 3), faces, np.full(len(faces), INDEX[material], np.uint8)


def joined(parts: Sequence[Part]) -> Part:
    """All parts as one."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _, _ in parts)])
    return (
        np.concatenate([vertices for vertices, _, _ in parts]),
        np.concatenate([faces + start for (_, faces, _), start in zip(parts, starts)]).astype(np.int32),
        np.concatenate([materials for _, _, materials in parts]),
    )


def shape(parts: Sequence[Part], **info: object) -> Shape:
    """The parts as a shape to cast rays at."""
    return Shape.of(*joined(parts), **info)


def moved(piece: Part, offset: ArrayLike = (0, 0, 0), yaw: float = 0.0, scale: ArrayLike = 1.0) -> Part:
    """Scaled, rotated about z [rad] and then shifted."""
    vertices, faces, materials = piece
    cosine, sine = math.cos(yaw), math.sin(yaw)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return ((vertices * np.asarray(scale)) @ turn.T + np.asarray(offset)).astype(np.float32), faces, materials


def box(size: ArrayLike, center: ArrayLike, material: str) -> Part:
    """A cuboid."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return part(corners * np.asarray(size) + np.asarray(center), triangles(quads), material)


def quad(corners: ArrayLike, material: str) -> Part:
    """Two triangles through four corners."""
    return part(np.array(corners), np.array([[0, 1, 2], [0, 2, 3]]), material)


def triangles(quads: np.ndarray) -> np.ndarray:
    """Quads (Q, 4) as triangles (2Q, 3)."""
    quads = np.asarray(quads)
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def grid_faces(rows: int, columns: int, *, closed: bool = False) -> np.ndarray:
    """Triangles between neighbouring points of a (rows, columns) grid, both of a cell adjacent; closed joins the last column
    to the first."""
    wide = columns if closed else columns - 1
    row, column = np.divmod(np.arange((rows - 1) * wide), wide)
    after = (column + 1) % columns
    quads = np.stack(
        [row * columns + column, row * columns + after, (row + 1) * columns + after, (row + 1) * columns + column], 1
    )
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3)


def tube(path: ArrayLike, radii: ArrayLike, material: str, sides: int = 6, *, ends: bool = True) -> Part:
    """A tube of circular sections along a path.

    Args:
        path: (P, 3) points.
        radii: At each point, or one for all [m].
        material: Name.
        sides: Corners of a section.
        ends: Whether the ends are closed.
    """
    points = np.asarray(path, float)
    sizes = np.broadcast_to(np.asarray(radii, float), len(points))
    ahead = np.gradient(points, axis=0)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(ahead[:, 2:]) < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]])
    side = np.cross(ahead, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, ahead)
    angle = np.arange(sides) * 2 * math.pi / sides
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * up[:, None]
    vertices = (points[:, None] + ring * sizes[:, None, None]).reshape(-1, 3)
    faces = [grid_faces(len(points), sides, closed=True)]
    if ends:
        vertices = np.concatenate([vertices, points[[0, -1]]])
        first, last = np.arange(sides), np.arange(sides) + sides * (len(points) - 1)
        hub = sides * len(points)
        faces += [np.stack([np.roll(first, -1), first, np.full(sides, hub)], 1)]
        faces += [np.stack([last, np.roll(last, -1), np.full(sides, hub + 1)], 1)]
    return part(vertices, np.concatenate(faces), material)


def ellipsoid(radii: ArrayLike, center: ArrayLike, material: str, sides: int = 8, rows: int = 5) -> Part:
    """An ellipsoid with its axes along x, y and z."""
    polar = np.linspace(0, math.pi, rows + 1)
    angle = np.arange(sides) * 2 * math.pi / sides
    unit = np.stack(
        [
            np.outer(np.sin(polar), np.cos(angle)),
            np.outer(np.sin(polar), np.sin(angle)),
            np.outer(np.cos(polar), np.ones(sides)),
        ],
        -1,
    )
    return part(
        unit.reshape(-1, 3) * np.asarray(radii) + np.asarray(center), grid_faces(rows + 1, sides, closed=True), material
    )


def loft(sections: np.ndarray, materials: np.ndarray, *, closed: bool = False) -> Part:
    """The surface through sections (S, P, 3); materials (S - 1, P - 1) (or P if closed) uint8 per cell."""
    count, corners = sections.shape[:2]
    faces = grid_faces(count, corners, closed=closed)
    return (
        sections.reshape(-1, 3).astype(np.float32),
        faces.astype(np.int32),
        np.repeat(materials.reshape(-1), 2).astype(np.uint8),
    )


def cards(centers: np.ndarray, size: float, material: str, rng: np.random.Generator) -> Part:
    """A triangle of random direction and of about `size` [m] at each center (N, 3): foliage."""
    offsets = rng.standard_normal((len(centers), 3, 3)) * size
    offsets -= offsets.mean(1, keepdims=True)
    vertices = centers[:, None] + offsets
    return part(vertices, np.arange(len(centers) * 3).reshape(-1, 3), material)


def disc(center: ArrayLike, radius: float, material: str, sides: int = 12, *, axis: int = 1) -> Part:
    """A flat disc whose normal is one of the axes."""
    angle = np.arange(sides) * 2 * math.pi / sides
    ring = np.zeros((sides + 1, 3))
    first, second = (i for i in range(3) if i != axis)
    ring[:sides, first], ring[:sides, second] = radius * np.cos(angle), radius * np.sin(angle)
    index = np.arange(sides)
    return part(ring + np.asarray(center), np.stack([index, np.roll(index, -1), np.full(sides, sides)], 1), material)
