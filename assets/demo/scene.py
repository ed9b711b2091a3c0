"""The still life: shapes and their positions, and exact ray casts against them.

The world is right-handed with z up, in meters; the table top is z = 0 and the z axis is the table's axis.
`trace` gives the exact distance, normal and material along any ray, which tests use as ground truth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapes import MIN_DISTANCE, Box, Disc, Ellipsoid, Frustum, Shape, Torus, rotation_about_z, rotation_to

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

DOME_RADIUS = 5.0
FLOOR_HEIGHT = -0.08
TABLE_RADIUS = 1.0


@dataclass(frozen=True)
class Material:
    """Reflection properties of a surface.

    Attributes:
        texture: name of the method of `textures.Textures` that colors it.
        roughness: width of the sun's highlight, 0..1; only matters where reflectance > 0.
        reflectance: specular reflectance at normal incidence; 0 means perfectly matte.
        mirror: fraction of the specular reflectance that also mirrors the surroundings.
        metal: whether the highlight has the surface's own color.
    """

    texture: str
    roughness: float = 0.5
    reflectance: float = 0.0
    mirror: float = 0.0
    metal: bool = False


MATERIALS = (
    Material("dome"),
    Material("floor"),
    Material("table", 0.42, 0.02),
    Material("glaze", 0.16, 0.06, 1.0),
    Material("terrazzo", 0.35, 0.03),
    Material("ring", 0.22, 0.05),
    Material("vase", 0.22, 0.05),
    Material("neck", 0.22, 0.05),
    Material("stem"),
    Material("leaf", 0.45, 0.03),
    Material("berry", 0.25, 0.05),
    Material("brass", 0.35, 0.5, 0.0, True),
    Material("pendant", 0.22, 0.06),
    Material("book"),
    Material("red_book"),
    Material("citrus", 0.4, 0.04),
    Material("lemon", 0.4, 0.04),
    Material("jar", 0.2, 0.05),
    Material("cork"),
)
NUMBER = {material.texture: number for number, material in enumerate(MATERIALS)}


def _rod(start: Array, end: Array, radius: float, material: str) -> Frustum:
    """A round rod between two world points, each of shape (3,)."""
    start, end = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    half = 0.5 * float(np.linalg.norm(end - start))
    turn = rotation_to(end - start)
    return Frustum(0.5 * (start + end), NUMBER[material], half, radius, radius, rotation=turn)


def _ball(centre: tuple[float, float, float] | Array, radius: float, material: str) -> Ellipsoid:
    """A ball at a world point."""
    return Ellipsoid(centre, NUMBER[material], (radius, radius, radius))


def _bouquet(x: float, y: float) -> list[Shape]:
    """The vase at (x, y) with five twigs, their leaves and berries."""
    parts: list[Shape] = [
        Frustum((x, y, 0.02), NUMBER["neck"], 0.02, 0.12, 0.11),
        Ellipsoid((x, y, 0.24), NUMBER["vase"], (0.21, 0.21, 0.22)),
        Frustum((x, y, 0.51), NUMBER["neck"], 0.075, 0.072, 0.092),
        Torus((x, y, 0.585), NUMBER["neck"], ring=0.09, tube=0.013),
    ]
    root = np.array([x, y, 0.5])
    tips = ((0.26, 0.10, 0.50), (-0.24, 0.16, 0.46), (-0.14, -0.24, 0.47), (0.13, -0.20, 0.58), (0.0, 0.15, 0.62))
    for twig, tip in enumerate(tips):
        reach = np.array(tip)
        parts.append(_rod(root, root + reach, 0.0065, "stem"))
        for leaf, along in enumerate((0.52, 0.74, 0.97)):
            turn = 2.4 * leaf + 1.3 * twig
            sideways = np.array([np.cos(turn), np.sin(turn), 0.35 - 0.15 * leaf])
            sideways /= np.linalg.norm(sideways)
            face = np.cross(np.cross(sideways, [0.0, 0.0, 1.0]), sideways) + 0.35 * np.array([np.sin(turn), 0.3, 0.0])
            face -= sideways * (face @ sideways)
            face /= np.linalg.norm(face)
            size = 0.095 - 0.012 * leaf
            axes = np.stack([sideways, np.cross(face, sideways), face], axis=1)
            centre = root + along * reach + sideways * size
            parts.append(Disc(centre, NUMBER["leaf"], (size, 0.5 * size), rotation=axes))
        if twig % 2 == 0:
            parts.append(_ball(root + 1.05 * reach, 0.032, "berry"))
            parts.append(_ball(root + 0.86 * reach + np.array([0.03, -0.03, 0.02]), 0.027, "berry"))
    return parts


def _stand(x: float, y: float) -> list[Shape]:
    """A tripod of thin rods at (x, y) with a ball that hangs from its top."""
    top = np.array([x, y, 0.74])
    parts: list[Shape] = [_ball(top, 0.022, "brass"), _ball((x, y, 0.34), 0.085, "pendant")]
    parts.append(_rod(np.array([x, y, 0.42]), top, 0.0045, "brass"))
    angles = np.radians([20.0, 140.0, 260.0])
    feet = [np.array([x + 0.25 * np.cos(a), y + 0.25 * np.sin(a), 0.0]) for a in angles]
    braces = [foot + 0.22 * (top - foot) for foot in feet]
    for leg in range(3):
        parts.append(_rod(feet[leg], top, 0.0075, "brass"))
        parts.append(_rod(braces[leg], braces[(leg + 1) % 3], 0.006, "brass"))
    return parts


def build_shapes() -> list[Shape]:
    """Lists every shape but the dome and the floor, which are handled separately, since each ray may hit them."""
    block, turn = np.array([-0.50, -0.16, 0.2]), 28.0
    outward = rotation_about_z(turn) @ np.array([0.0, -1.0, 0.0])
    # The ring leans on the block at 62 degrees: its tube touches the table below and the block above.
    lean, ring, tube = np.radians(62.0), 0.15, 0.05
    ring_centre = block * [1, 1, 0] + outward * (0.17 + tube + ring * np.cos(lean))
    ring_centre[2] = tube + ring * np.sin(lean)
    ring_axis = outward * np.sin(lean) + np.array([0.0, 0.0, np.cos(lean)])
    return [
        Frustum((0.0, 0.0, -0.04), NUMBER["table"], 0.04, TABLE_RADIUS, TABLE_RADIUS),
        _ball((0.16, -0.10, 0.23), 0.23, "glaze"),
        Box(block, NUMBER["terrazzo"], (0.17, 0.17, 0.2), rotation=rotation_about_z(turn)),
        Torus(ring_centre, NUMBER["ring"], rotation=rotation_to(ring_axis), ring=ring, tube=tube),
        *_bouquet(-0.18, 0.42),
        *_stand(0.50, 0.36),
        Box((0.50, -0.42, 0.032), NUMBER["book"], (0.17, 0.12, 0.032), rotation=rotation_about_z(-25.0)),
        Box((0.49, -0.42, 0.086), NUMBER["red_book"], (0.138, 0.095, 0.022), rotation=rotation_about_z(8.0)),
        _ball((0.50, -0.43, 0.184), 0.076, "citrus"),
        Ellipsoid((0.17, -0.62, 0.062), NUMBER["lemon"], (0.088, 0.064, 0.062), rotation=rotation_about_z(35.0)),
        Frustum((-0.10, -0.58, 0.09), NUMBER["jar"], 0.09, 0.095, 0.105),
        Frustum((-0.10, -0.58, 0.2), NUMBER["cork"], 0.02, 0.085, 0.09),
    ]


SHAPES = build_shapes()
_CENTRES = np.stack([shape.centre for shape in SHAPES]).astype(np.float32)
# A small margin, so that rounding in the culling never changes the surface that is hit.
_REACH = np.array([[(shape.bound + 3e-3) ** 2] for shape in SHAPES], dtype=np.float32)
_CENTRE_SQUARES = (_CENTRES**2).sum(axis=1, keepdims=True)


def _candidates(origins: Array, directions: Array) -> NDArray[np.bool_]:
    """Marks (M, N) which of M shapes' bounding spheres each of N rays passes through; single precision for speed."""
    o, d = np.ascontiguousarray(origins.T, dtype=np.float32), np.ascontiguousarray(directions.T, dtype=np.float32)
    along = _CENTRES @ d
    along -= (o * d).sum(axis=0)
    apart = _CENTRES @ o
    apart *= -2.0
    apart += _CENTRE_SQUARES
    apart += (o * o).sum(axis=0)
    ahead = (along > 0.0) | (apart < _REACH)
    along *= along
    apart -= along
    return ahead & (apart < _REACH)


def intersect(origins: Array, directions: Array) -> tuple[Array, Labels]:
    """Finds the nearest shape along each ray, except for the dome and the floor.

    Args:
        origins: ray starts in the world, shape (N, 3), meters.
        directions: unit directions, shape (N, 3).

    Returns:
        Distances (N,), infinity where nothing is hit, and indices into `SHAPES` (N,), -1 for a miss.
    """
    distance = np.full(len(origins), np.inf)
    index = np.full(len(origins), -1, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for number, near in enumerate(_candidates(origins, directions)):
            rays = np.flatnonzero(near)
            if not len(rays):
                continue
            shape = SHAPES[number]
            t = shape.hit(shape.to_local(origins[rays]), directions[rays] @ shape.rotation)
            closer = t < distance[rays]
            distance[rays[closer]] = t[closer]
            index[rays[closer]] = number
    return distance, index


def blocked(origins: Array, directions: Array) -> NDArray[np.bool_]:
    """Returns (N,) whether any shape blocks rays (N, 3) towards the sky: shadow rays."""
    return np.isfinite(intersect(origins, directions)[0])


@dataclass
class Hits:
    """Hits of N rays with the scene.

    Attributes:
        distance: meters along the ray, (N,).
        point: world positions, (N, 3).
        normal: unit normals that face the ray's origin, (N, 3).
        material: indices of `MATERIALS`, (N,).
        local: positions in the hit object's own frame, (N, 3), for its texture.
        shape: indices of `SHAPES`, -1 for the floor and the dome, (N,).
    """

    distance: Array
    point: Array
    normal: Array
    material: Labels
    local: Array
    shape: Labels


def cast(origins: Array, directions: Array) -> Hits:
    """Casts rays (N, 3) with unit directions from inside the dome; every one of them hits something."""
    distance, index = intersect(origins, directions)
    half_b = np.einsum("ij,ij->i", origins, directions)
    c = np.einsum("ij,ij->i", origins, origins) - DOME_RADIUS**2
    to_dome = -half_b + np.sqrt(np.maximum(half_b * half_b - c, 0.0))
    dz = np.where(np.abs(directions[:, 2]) < 1e-12, 1e-12, directions[:, 2])
    to_floor = (FLOOR_HEIGHT - origins[:, 2]) / dz
    to_floor = np.where(to_floor > MIN_DISTANCE, to_floor, np.inf)
    on_floor = (to_floor < distance) & (to_floor < to_dome)
    on_dome = ~on_floor & ~np.isfinite(distance)
    distance = np.where(on_floor, to_floor, np.where(on_dome, to_dome, distance))
    index[on_floor] = -1
    point = origins + distance[:, None] * directions
    normal = np.where(on_dome[:, None], -point / DOME_RADIUS, np.array([0.0, 0.0, 1.0]))
    material = np.where(on_dome, NUMBER["dome"], NUMBER["floor"])
    local = point.copy()
    for number in np.unique(index[index >= 0]):
        shape, rays = SHAPES[number], np.flatnonzero(index == number)
        local[rays] = shape.to_local(point[rays])
        normal[rays] = shape.normal(local[rays]) @ shape.rotation.T
        material[rays] = shape.material
    away = np.einsum("ij,ij->i", normal, directions) > 0.0
    normal[away] *= -1.0
    return Hits(distance, point, normal, material, local, index)


def trace(origins: Array, directions: Array) -> tuple[Array, Array, Labels]:
    """Returns the exact geometry along rays, for tests and depth or normal maps.

    Args:
        origins: ray starts inside the dome and above the floor, shape (N, 3), meters.
        directions: directions of any length, shape (N, 3).

    Returns:
        Distance along the ray in meters (N,), unit normal facing the origin (N, 3), and material number (N,),
        an index of `MATERIALS`.
    """
    origins = np.asarray(origins, dtype=np.float64)
    directions = np.asarray(directions, dtype=np.float64)
    hits = cast(origins, directions / np.linalg.norm(directions, axis=1, keepdims=True))
    return hits.distance, hits.normal, hits.material
