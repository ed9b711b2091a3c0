"""Streets: their layout, their ground, and what stands where."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vision3d.render.lidar.casting import Shape
from vision3d.render.lidar.materials import INDEX
from vision3d.stages.detect.synth.parts import grid_faces

LAYOUTS = ("residential", "suburb", "boulevard", "country", "junction")
VALIDATION_LAYOUTS = ("square",)
"""Layouts that are never trained on."""
EXTENT = 90.0
"""The ground reaches this far [m]."""


@dataclass(frozen=True)
class Street:
    """Measures of a street; `s` runs along its centre line, `d` to the left of it [m]. The sensor is at s = 0."""

    family: str
    road: float
    """Half width of the carriageway."""
    pavement: tuple[float, float]
    """Width of the pavement to the right and to the left."""
    front: tuple[float, float]
    """Distance of the facades from the centre line, right and left."""
    parking: tuple[float, float]
    """Share of the kerb that parked cars occupy, right and left."""
    across: tuple[bool, bool]
    """Whether they park across instead of along the kerb."""
    built: tuple[float, float]
    """Share of the front that is built, right and left."""
    greenery: float
    """Trees and bushes per 10 m of each side."""
    wild: float
    """Share of the front with thickets where it is not built."""
    yards: float
    """Share of the pavement's outer edge with hedges, walls or fences."""
    kerb: float
    beyond: str
    """Material of the ground beyond the pavement."""
    curvature: float
    heading: float
    """Of the road at s = 0, seen from the sensor [rad]."""
    offset: float
    """d of the sensor."""
    side_road: float | None
    """s of a crossing road."""
    slope: np.ndarray
    """(2,) gradient of the ground along and across."""
    waves: np.ndarray
    """(4, 4) amplitude, wave numbers along and across, phase."""
    camber: float

    def room(self, side: int) -> float:
        """Distance from the centre line to the facades on a side (-1 right, 1 left) [m]."""
        return self.front[(side + 1) // 2]

    def place(self, s: ArrayLike, d: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y and the heading of the road at (s, d) in the frame below the sensor."""
        s, d = np.asarray(s, float), np.asarray(d, float)
        turn = self.curvature * s
        x = s * np.sinc(turn / (2 * np.pi)) * np.cos(turn / 2)
        y = s * np.sinc(turn / (2 * np.pi)) * np.sin(turn / 2) - 0.0
        shift = d - self.offset
        x, y = x - shift * np.sin(turn), y + shift * np.cos(turn)
        cosine, sine = math.cos(self.heading), math.sin(self.heading)
        return cosine * x - sine * y, sine * x + cosine * y, turn + self.heading

    def level(self, s: ArrayLike, d: ArrayLike) -> np.ndarray:
        """Height of the ground at (s, d) [m]."""
        s, d = np.broadcast_arrays(np.asarray(s, float), np.asarray(d, float))
        z = self.slope[0] * s + self.slope[1] * d
        amplitude, along, across, phase = self.waves.T
        z = z + np.sin(s[..., None] * along + d[..., None] * across + phase) @ amplitude
        z = z - self.camber * np.minimum(np.abs(d), self.road)
        is_up = (np.abs(d) > self.road) & (self.side_road is None or np.abs(s - (self.side_road or 0)) > self.road)
        return z + self.kerb * is_up


def street(family: str, rng: np.random.Generator) -> Street:
    """A random street of a layout family."""

    def pair(low: float, high: float) -> tuple[float, float]:
        return float(rng.uniform(low, high)), float(rng.uniform(low, high))

    def either(chance: float) -> tuple[bool, bool]:
        return bool(rng.random() < chance), bool(rng.random() < chance)

    values: dict[str, Any] = {
        "road": rng.uniform(2.8, 4.5), "pavement": pair(1.2, 3.2), "parking": pair(0.2, 0.95), "across": either(0.15),
        "built": pair(0.6, 1.0), "greenery": 0.8, "wild": 0.4, "yards": 0.15, "beyond": "pavement",
    }  # fmt: skip
    yard, curve = pair(0, 1.5), 0.004
    if family == "suburb":
        yard, curve = pair(3, 11), 0.012
        values |= {"pavement": pair(0.8, 2.2), "parking": pair(0.05, 0.6), "across": (False, False)}
        values |= {"built": pair(0.35, 0.7), "greenery": 2.8, "yards": 0.65, "beyond": "grass"}
    elif family == "boulevard":
        yard = pair(0, 4)
        values |= {"road": rng.uniform(6, 10), "pavement": pair(2.5, 6), "parking": pair(0.1, 0.7), "greenery": 1.8}
    elif family == "country":
        yard, curve = pair(2, 15), 0.010
        values |= {"pavement": pair(0.3, 2.0), "parking": pair(0.0, 0.15), "across": (False, False), "built": pair(0.0, 0.2)}
        values |= {"greenery": 3.0, "wild": float(rng.uniform(0.2, 1.0)), "beyond": str(rng.choice(["grass", "soil"]))}
    elif family == "square":
        yard = pair(2, 15)
        values |= {"road": rng.uniform(8, 14), "pavement": pair(2, 5), "parking": pair(0.5, 0.95), "across": either(0.7)}
        values |= {"built": pair(0.5, 0.9), "greenery": 1.0, "yards": 0.2}
    road = values["road"]
    right, left = (road + values["pavement"][i] + yard[i] + (5.2 if values["across"][i] else 0.0) for i in (0, 1))
    bumps = 0.08 if family == "country" else 0.04
    waves = [rng.normal(0, bumps, 4), rng.normal(0, 0.07, 4), rng.normal(0, 0.12, 4), rng.uniform(0, 6.3, 4)]
    has_side = family == "junction" or rng.random() < 0.2
    return Street(
        family=family,
        front=(right, left),
        kerb=0.0 if family == "country" else rng.uniform(0.04, 0.16),
        curvature=float(rng.normal(0, curve)),
        heading=float(rng.normal(0, 0.03)) if rng.random() < 0.85 else float(rng.normal(0, 0.35)),
        offset=float(-rng.uniform(0.25, 0.6) * road if rng.random() < 0.85 else rng.uniform(-0.7, 0.7) * road),
        side_road=float(rng.uniform(6, 45) * rng.choice([1, 1, -1])) if has_side else None,
        slope=rng.normal(0, [0.008, 0.006]),
        waves=np.stack(waves, 1),
        camber=rng.uniform(0.0, 0.025),
        **values,
    )


def ground(street: Street, rng: np.random.Generator) -> Shape:
    """The ground as one mesh, in the frame below the sensor at height 0."""
    lines = np.concatenate([np.arange(-EXTENT, -24, 6), np.arange(-24, 24, 2.0), np.arange(24, EXTENT + 1, 6)])
    if street.side_road is not None:
        edges = street.side_road + street.road * np.array([-1, 1])
        lines = np.sort(np.concatenate([lines, edges - 1e-3, edges + 1e-3]))
    outer = [street.road + width for width in street.pavement]
    right = [-EXTENT, -35, -max(street.front[0], outer[0] + 0.5), -outer[0], -street.road - 0.03, -street.road + 1e-3]
    left = [street.road - 1e-3, street.road + 0.03, outer[1], max(street.front[1], outer[1] + 0.5), 35, EXTENT]
    across = np.sort(np.array([*right, -street.road / 2, 0, street.road / 2, *left]))
    # a curved street must not fold over itself
    limit = 0.9 / max(abs(street.curvature), 1e-6)
    across = np.clip(across, -limit, limit)
    s, d = np.meshgrid(lines, across, indexing="ij")
    x, y, _ = street.place(s, d)
    z = street.level(s, d) - street.level(0.0, street.offset)
    faces = grid_faces(*s.shape).astype(np.int32)
    middle = s.reshape(-1)[faces].mean(1), d.reshape(-1)[faces].mean(1)
    materials = np.full(len(faces), INDEX[street.beyond], np.uint8)
    side = np.where(middle[1] < 0, outer[0], outer[1])
    materials[np.abs(middle[1]) < side] = INDEX["pavement" if street.kerb > 0 else "grass"]
    is_road = np.abs(middle[1]) < street.road
    if street.side_road is not None:
        is_road |= np.abs(middle[0] - street.side_road) < street.road
    materials[is_road] = INDEX["asphalt"]
    vertices = [np.stack([x, y, z], -1).reshape(-1, 3)]
    marks = _markings(street, rng)
    if len(marks):
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        at = marks[:, None, :2] + corners[None] * marks[:, None, 2:]
        mx, my, _ = street.place(at[..., 0], at[..., 1])
        mz = street.level(at[..., 0], at[..., 1]) - street.level(0.0, street.offset) + 0.012
        start = len(vertices[0])
        vertices.append(np.stack([mx, my, mz], -1).reshape(-1, 3))
        quads = np.arange(len(marks) * 4).reshape(-1, 4) + start
        faces = np.concatenate([faces, quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
        materials = np.concatenate([materials, np.full(2 * len(marks), INDEX["marking"], np.uint8)])
    return Shape.of(np.concatenate(vertices), faces, materials, family="ground")


def _markings(street: Street, rng: np.random.Generator) -> np.ndarray:
    """Rectangles (s, d, length, width) of lane markings and a crossing."""
    marks = []
    if rng.random() < 0.7:
        marks += [(s, -0.06, 3.0, 0.12) for s in np.arange(-40, 40, 9.0)]
    if rng.random() < 0.4:
        start = rng.uniform(5, 30)
        marks += [(start, d, 3.0, 0.45) for d in np.arange(-street.road + 0.3, street.road - 0.5, 0.95)]
    return np.array(marks, float).reshape(-1, 4)
