"""What stands on a street: labelled objects first, then scenery wherever there is room."""

import math
from dataclasses import dataclass, field

import numpy as np

from vision3d.render.lidar.casting import Shape
from vision3d.stages.detect.synth.config import FrameConfig
from vision3d.stages.detect.synth.library import Library
from vision3d.stages.detect.synth.streets import Street

LABELLED = ("Car", "Van", "Truck", "Pedestrian", "Cyclist", "trailer")
_REACH = 70.0
"""Objects stand within this distance along the street [m]."""


@dataclass(frozen=True, eq=False)
class Placement:
    """A shape that stands on the ground, in the frame below the sensor."""

    shape: Shape
    matrix: np.ndarray
    """(4, 4) shape to the frame below the sensor."""
    kind: str
    yaw: float
    across: float
    """Distance of its origin from the centre line of the street, to the left [m]."""
    scale: np.ndarray
    """(3,) along the axes of the shape."""


@dataclass(eq=False)
class Crowd:
    """Objects placed so far; each occupies circles on the ground."""

    street: Street
    library: Library
    rng: np.random.Generator
    placed: list[Placement] = field(default_factory=list)
    circles: np.ndarray = field(default_factory=lambda: np.array([[0.0, 0.0, 1.6], [1.4, 0, 1.3], [-1.4, 0, 1.3]]))
    """(K, 3) x, y and radius; the car that carries the sensor comes first."""

    def put(
        self, kind: str, s: float, d: float, turn: float, *, spread: float = 0.0, force: bool = False, margin: float = 0.15
    ) -> bool:
        """Place a shape of a kind at (s, d) with a yaw relative to the street, unless something is there.

        Args:
            kind: Of the library.
            s: Along the street [m].
            d: Across [m].
            turn: [rad].
            spread: Standard deviation of the logarithm of its size; along each axis less.
            force: Whether it may overlap others.
            margin: Free space around it [m].
        """
        shape = self.library.pick(kind, self.rng)
        scale = np.exp(self.rng.normal(0, spread) + self.rng.normal(0, spread / 3, 3)) if spread else np.ones(3)
        scale = np.clip(scale, 0.85, 1.15)
        x, y, heading = (float(value) for value in self.street.place(s, d))
        yaw = heading + turn
        low, high = shape.corners[0] * scale, shape.corners[-1] * scale
        if not force:
            rings = _rings(low, high, x, y, yaw)
            gaps = np.hypot(rings[:, None, 0] - self.circles[None, :, 0], rings[:, None, 1] - self.circles[None, :, 1])
            if (gaps < rings[:, None, 2] + self.circles[None, :, 2] + margin).any():
                return False
            self.circles = np.concatenate([self.circles, rings])
        self.placed.append(Placement(shape, self._standing(s, d, x, y, yaw, scale, kind, high - low), kind, yaw, d, scale))
        return True

    def _standing(
        self, s: float, d: float, x: float, y: float, yaw: float, scale: np.ndarray, kind: str, size: np.ndarray
    ) -> np.ndarray:
        """The pose of an object on the ground; vehicles lean with it."""
        base = self.street.level(0.0, self.street.offset)
        axes = np.eye(3)
        cosine, sine = math.cos(yaw), math.sin(yaw)
        forward, side = np.array([cosine, sine]), np.array([-sine, cosine])
        z = float(self.street.level(s, d) - base)
        if kind in ("Car", "Van", "Truck", "trailer"):
            turn = yaw - float(self.street.place(s, d)[2])
            step = size[0] * 0.3 * np.array([math.cos(turn), math.sin(turn)])
            wide = size[1] * 0.4 * np.array([-math.sin(turn), math.cos(turn)])
            corners = (
                self.street.level(
                    s + np.array([step[0], -step[0], wide[0], -wide[0]]), d + np.array([step[1], -step[1], wide[1], -wide[1]])
                )
                - base
            )
            pitch, roll = (corners[0] - corners[1]) / (0.6 * size[0]), (corners[2] - corners[3]) / (0.8 * size[1])
            z = float(corners.mean())
            first = np.array([*forward, pitch])
            second = np.array([*side, roll])
            first /= np.linalg.norm(first)
            third = np.cross(first, second)
            third /= np.linalg.norm(third)
            axes = np.stack([first, np.cross(third, first), third], 1)
        else:
            axes[:2, 0], axes[:2, 1] = forward, side
        matrix = np.eye(4)
        matrix[:3, :3] = axes * scale
        matrix[:3, 3] = x, y, z
        return matrix


def _rings(low: np.ndarray, high: np.ndarray, x: float, y: float, yaw: float) -> np.ndarray:
    """Circles that cover the footprint of a box, (K, 3)."""
    size = high[:2] - low[:2]
    long = int(size[1] > size[0])
    short = max(float(size[1 - long]), 0.2)
    count = max(1, math.ceil(size[long] / short))
    at = ((np.arange(count) + 0.5) / count - 0.5) * size[long]
    local = np.zeros((count, 2))
    local[:, long] = at
    local += (low[:2] + high[:2]) / 2
    cosine, sine = math.cos(yaw), math.sin(yaw)
    radius = math.hypot(size[long] / count, short) / 2
    return np.stack(
        [x + cosine * local[:, 0] - sine * local[:, 1], y + sine * local[:, 0] + cosine * local[:, 1], np.full(count, radius)],
        1,
    )


def populate(street: Street, config: FrameConfig, library: Library, rng: np.random.Generator) -> list[Placement]:
    """Everything that stands on a street."""
    crowd = Crowd(street, library, rng)
    number = {
        name: int(rng.integers(low, high + 1))
        for name, (low, high) in (("cars", config.cars), ("people", config.people), ("cyclists", config.cyclists))
    }
    back = -_REACH if config.azimuth > 200 else -4.0
    traffic = round(number["cars"] * rng.uniform(0.15, 0.5))
    _traffic(crowd, traffic, back)
    _cyclists(crowd, number["cyclists"], back)
    _people(crowd, number["people"], back)
    _parked(crowd, number["cars"] - traffic, back)
    _distractors(crowd, back)
    _furniture(crowd, back)
    _yards(crowd, back)
    _fronts(crowd)
    _greenery(crowd)
    return crowd.placed


def _along(rng: np.random.Generator, back: float, reach: float = _REACH) -> float:
    """A place along the street, denser near the sensor."""
    far = 2.5 + (reach - 2.5) * rng.random() ** 1.5
    return float(far if back > -10 or rng.random() < 0.5 else -far)


def _traffic(crowd: Crowd, count: int, back: float) -> None:
    """Vehicles that drive: to the right of the centre line ahead, to the left towards us."""
    rng, road = crowd.rng, crowd.street.road
    for _ in range(count):
        kind = str(rng.choice(["Car", "Van", "Truck"], p=[0.78, 0.14, 0.08]))
        side = rng.choice([-1, 1])
        lane = side * rng.uniform(0.25, 0.65) * road
        crowd.put(kind, _along(rng, back), lane, (0.0 if side < 0 else math.pi) + rng.normal(0, 0.04), spread=0.05, margin=0.5)
    cross = crowd.street.side_road
    if cross is not None and count:
        for _ in range(int(rng.integers(0, 4))):
            side = rng.choice([-1, 1])
            d = rng.choice([-1, 1]) * rng.uniform(3, 30)
            turn = side * math.pi / 2 + rng.normal(0, 0.1)
            crowd.put("Car", cross + side * 0.45 * road, d, turn, spread=0.05, margin=0.5)


def _parked(crowd: Crowd, count: int, back: float) -> None:
    """Rows of parked cars: slots along the kerbs, of which those near the sensor are filled first."""
    rng, street = crowd.rng, crowd.street
    slots = []
    for side, share, is_across in zip((-1, 1), street.parking, street.across):
        pitch = rng.uniform(2.5, 2.9) if is_across else rng.uniform(5.2, 6.5)
        for s in np.arange(max(back, -_REACH), _REACH, pitch) + rng.uniform(0, pitch):
            if street.side_road is not None and abs(s - street.side_road) < street.road + 3:
                continue
            if rng.random() < share:
                slots.append((abs(s) + rng.uniform(0, 25), s, side, is_across))
    front = 0
    half = rng.uniform(0.7, 1.25, 2)  # how far from the kerb they stand, sometimes on the pavement
    for _, s, side, is_across in sorted(slots):
        if front >= count:
            return
        d = side * (street.road + 2.4) if is_across else side * (street.road - half[(side + 1) // 2] + rng.normal(0, 0.12))
        turn = side * math.pi / 2 if is_across else (0.0 if side < 0 or rng.random() < 0.3 else math.pi)
        turn += math.pi * (rng.random() < (0.4 if is_across else 0.08)) + rng.normal(0, 0.035)
        kind = str(rng.choice(["Car", "Van", "Truck", "trailer"], p=[0.85, 0.11, 0.02, 0.02]))
        front += crowd.put(kind, s + rng.normal(0, 0.25), d, turn, spread=0.03, margin=-0.15)
    for _ in range(4 * (count - front)):  # no more slots: in yards and on open ground
        if front >= count:
            return
        side = int(rng.choice([-1, 1]))
        space = street.room(side) - street.road
        if space > 6:
            d = side * (street.road + rng.uniform(3, space - 3))
            front += crowd.put("Car", _along(rng, back), d, rng.uniform(0, 2 * math.pi), spread=0.03)


def _people(crowd: Crowd, count: int, back: float) -> None:
    """People on pavements, on the road, between parked cars, alone and in groups."""
    rng, street = crowd.rng, crowd.street
    done = 0
    for _ in range(6 * count):
        if done >= count:
            return
        side = rng.choice([-1, 1])
        width = street.pavement[(side + 1) // 2]
        where = rng.random()
        s = _along(rng, back, 50.0)
        if where < 0.65:
            d, turn = (
                side * (street.road + rng.uniform(0.2, max(width - 0.2, 0.4))),
                rng.choice([0, math.pi]) + rng.normal(0, 0.3),
            )
        elif where < 0.85:
            d, turn = rng.uniform(-1, 1) * (street.road + 1), rng.choice([-1, 1]) * math.pi / 2 + rng.normal(0, 0.5)
        else:
            d, turn = side * rng.uniform(0, street.room(int(side))), rng.uniform(0, 2 * math.pi)
        size = 1 if rng.random() < 0.65 else int(rng.integers(2, 5))
        for _ in range(min(size, count - done)):
            d = float(np.clip(d, 0.7 - street.room(-1), street.room(1) - 0.7))  # not in a wall
            done += crowd.put("Pedestrian", s, d, turn + rng.normal(0, 0.25), spread=0.04, margin=-0.05)
            s, d = s + rng.normal(0, 0.5), d + rng.choice([-1, 1]) * rng.uniform(0.4, 0.8)


def _cyclists(crowd: Crowd, count: int, back: float) -> None:
    """Riders in the lanes and on the pavements."""
    rng, street = crowd.rng, crowd.street
    done = 0
    for _ in range(6 * count):
        if done >= count:
            return
        side = rng.choice([-1, 1])
        d = side * (street.road * rng.uniform(0.15, 0.9) if rng.random() < 0.75 else street.road + rng.uniform(0.2, 2.5))
        turn = (0.0 if side < 0 else math.pi) + math.pi * (rng.random() < 0.15) + rng.normal(0, 0.12)
        if rng.random() < 0.12:
            turn = rng.uniform(0, 2 * math.pi)
        d = float(np.clip(d, 1.0 - street.room(-1), street.room(1) - 1.0))
        done += crowd.put("Cyclist", _along(rng, back, 50.0), d, turn, spread=0.04, margin=0.1)


def _distractors(crowd: Crowd, back: float) -> None:
    """Two-wheelers without riders, and trailers."""
    rng, street = crowd.rng, crowd.street
    for kind, most in (("bicycle", 5), ("motorcycle", 2), ("trailer", 1)):
        for _ in range(int(rng.integers(0, most + 1))):
            side = rng.choice([-1, 1])
            width = street.pavement[(side + 1) // 2]
            d = side * (street.road + (rng.choice([0.35, max(width - 0.4, 0.5)]) if kind != "trailer" else -0.9))
            crowd.put(kind, _along(rng, back, 40.0), d, rng.choice([0.0, math.pi / 2, 1.0]) + rng.normal(0, 0.2), margin=0.05)


def _furniture(crowd: Crowd, back: float) -> None:
    """Poles and clutter on the pavements."""
    rng, street = crowd.rng, crowd.street
    for side in (-1, 1):
        width = street.pavement[(side + 1) // 2]
        for _ in range(int(rng.integers(4, 12))):
            crowd.put(
                "pole", _along(rng, back), side * (street.road + rng.choice([0.35, width])), side * math.pi / 2 + math.pi / 2
            )
        for _ in range(int(rng.integers(3, 12))):
            d = side * (street.road + (width - 0.3 if rng.random() < 0.6 else rng.uniform(0.3, max(width, 0.5))))
            turn = (math.pi if side < 0 else 0.0) + rng.choice([0.0, 0.0, math.pi / 2])
            crowd.put("clutter", _along(rng, back, 50.0), d, turn, spread=0.06)


def _yards(crowd: Crowd, back: float) -> None:
    """What stands between the pavement and the houses: posts, plants, clutter, hedges that end at the pavement."""
    rng, street = crowd.rng, crowd.street
    for side in (-1, 1):
        index = (side + 1) // 2
        outer = street.road + street.pavement[index]
        deep = max(street.front[index] - outer, 0.0) if street.built[index] > 0.3 else 8.0
        for _ in range(rng.poisson(1.5 * min(deep, 8.0))):
            kind = str(rng.choice(["pole", "shrub", "bush", "clutter", "bicycle"], p=[0.25, 0.4, 0.12, 0.18, 0.05]))
            crowd.put(
                kind, _along(rng, back, 50.0), side * (outer + deep * rng.random()), rng.uniform(0, 2 * math.pi), spread=0.06
            )
        if deep > 2.0:
            for _ in range(rng.poisson(8 * street.yards)):
                kind = str(rng.choice(["hedge", "wall", "fence"], p=[0.6, 0.2, 0.2]))
                turn = side * math.pi / 2 + rng.normal(0, 0.05)
                crowd.put(kind, _along(rng, back, 50.0), side * (outer + deep * rng.random() ** 2), turn, margin=0.0)


def _fronts(crowd: Crowd) -> None:
    """Facades, and the hedges, walls and fences before them."""
    rng, street = crowd.rng, crowd.street
    for side in (-1, 1):
        index = (side + 1) // 2
        turn = math.pi if side < 0 else 0.0
        s = -75.0 + rng.uniform(0, 8)
        while s < 75:
            shape = crowd.library.pick("facade", rng)
            width = shape.info["size"][0]
            middle = s + width / 2
            at_corner = street.side_road is not None and abs(middle - street.side_road) < street.road + 2 + width / 2
            if not at_corner and rng.random() < street.built[index]:
                setback = (
                    rng.uniform(0, 0.4) if street.family in ("residential", "boulevard", "junction") else rng.uniform(0, 4)
                )
                _force(crowd, shape, "facade", middle, side * (street.front[index] + setback), turn)
            elif not at_corner and rng.random() < street.wild:
                for start in np.arange(s, s + width, 8.0):
                    _force(crowd, crowd.library.pick("thicket", rng), "thicket", start, side * street.front[index], turn)
            s += width + (rng.uniform(0, 0.3) if street.built[index] > 0.8 else rng.uniform(2, 12))
        edge = street.road + street.pavement[index] + 0.3
        s = -60.0
        while s < 60:
            if rng.random() < street.yards:
                kind = str(rng.choice(["hedge", "wall", "fence"], p=[0.5, 0.25, 0.25]))
                crowd.put(kind, s, side * edge, turn + rng.normal(0, 0.02), margin=0.0)
            s += rng.uniform(4, 10)


def _force(crowd: Crowd, shape: Shape, kind: str, s: float, d: float, turn: float) -> None:
    x, y, heading = (float(value) for value in crowd.street.place(s, d))
    matrix = crowd._standing(s, d, x, y, heading + turn, np.ones(3), kind, np.ones(3))
    matrix[2, 3] -= 0.1
    crowd.placed.append(Placement(shape, matrix, kind, heading + turn, d, np.ones(3)))


def _greenery(crowd: Crowd) -> None:
    """Trees along the road and in yards, bushes in between."""
    rng, street = crowd.rng, crowd.street
    for side in (-1, 1):
        index = (side + 1) // 2
        count = rng.poisson(street.greenery * 8)
        for _ in range(count):
            s = rng.uniform(-70, 70)
            kind = "tree" if rng.random() < 0.55 else "bush"
            outer = street.road + street.pavement[index]
            if rng.random() < 0.4 and kind == "tree":
                d = street.road + 0.8
            else:
                d = (
                    outer
                    + rng.random() * max(street.front[index] - outer, 1.0)
                    + rng.exponential(4.0) * (street.built[index] < 0.5)
                )
            if street.side_road is None or abs(s - street.side_road) > street.road + 1:
                _stand_tree(crowd, kind, s, side * d)


def _stand_tree(crowd: Crowd, kind: str, s: float, d: float) -> None:
    """Only the trunk of a tree occupies the ground."""
    if kind == "bush":
        crowd.put(kind, s, d, crowd.rng.uniform(0, 2 * math.pi), spread=0.08, margin=-0.1)
        return
    x, y, _ = (float(value) for value in crowd.street.place(s, d))
    if (np.hypot(crowd.circles[:, 0] - x, crowd.circles[:, 1] - y) > crowd.circles[:, 2] + 0.3).all():
        crowd.circles = np.concatenate([crowd.circles, [[x, y, 0.25]]])
        _force(crowd, crowd.library.pick("tree", crowd.rng), "tree", s, d, crowd.rng.uniform(0, 2 * math.pi))
