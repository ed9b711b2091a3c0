"""What stands along streets and belongs to no class: facades, trees, hedges, poles, signs, fences, bins and other clutter.

Shapes stand on z = 0 around the origin; long ones run along x with their street side towards -y.
"""

import math

import numpy as np

from vision3d.render.lidar.casting import Shape
from vision3d.render.lidar.materials import INDEX
from vision3d.stages.detect.synth.parts import Part, box, cards, ellipsoid, quad, shape, tube


def facade(rng: np.random.Generator) -> Shape:
    """A building front of 6 to 22 m with windows, doors, sometimes balconies, and its side walls."""
    width, floors, storey = rng.uniform(6, 22), int(rng.integers(1, 6)), rng.uniform(2.8, 3.6)
    base, recess = rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.25)
    pitch = rng.uniform(2.0, 3.6)
    window = (rng.uniform(0.9, 1.8), rng.uniform(1.2, 2.0))
    sill = rng.uniform(0.6, 1.0)
    columns = max(int(width / pitch), 1)
    pitch = width / columns
    window = (min(window[0], pitch - 0.4), min(window[1], storey - sill - 0.3))
    height = base + floors * storey
    parts: list[Part] = []
    xs = np.sort(
        np.concatenate(
            [
                [-width / 2, width / 2],
                *[(-width / 2 + (c + 0.5) * pitch + np.array([-0.5, 0.5]) * window[0]) for c in range(columns)],
            ]
        )
    )
    zs = np.sort(np.concatenate([[0, height], *[base + f * storey + sill + np.array([0, window[1]]) for f in range(floors)]]))
    has_shop = rng.random() < 0.25
    doors = set(rng.choice(columns, size=min(columns, int(rng.integers(1, 3))), replace=False).tolist())
    for i in range(len(xs) - 1):
        for j in range(len(zs) - 1):
            low, high = (xs[i], zs[j]), (xs[i + 1], zs[j + 1])
            is_window = i % 2 == 1 and j % 2 == 1
            if is_window and j == 1 and (i // 2 in doors or has_shop):
                low = (low[0], base * 0.3)
            if is_window:
                parts += _window(low, high, recess, "wood" if j == 1 and i // 2 in doors else "window")
            else:
                parts.append(_upright(low, high, 0.0, "wall"))
    depth = rng.uniform(6, 12)
    for x in (-width / 2, width / 2):
        parts.append(quad([[x, 0, 0], [x, depth, 0], [x, depth, height], [x, 0, height]], "wall"))
    parts.append(
        quad([[-width / 2, depth, 0], [width / 2, depth, 0], [width / 2, depth, height], [-width / 2, depth, height]], "wall")
    )
    if floors <= 2:
        eaves, ridge = 0.4, rng.uniform(1.5, 3.5)
        parts.append(
            quad(
                [
                    [-width / 2, -eaves, height],
                    [width / 2, -eaves, height],
                    [width / 2, depth / 2, height + ridge],
                    [-width / 2, depth / 2, height + ridge],
                ],
                "roof",
            )
        )
        parts.append(
            quad(
                [
                    [-width / 2, depth + eaves, height],
                    [width / 2, depth + eaves, height],
                    [width / 2, depth / 2, height + ridge],
                    [-width / 2, depth / 2, height + ridge],
                ],
                "roof",
            )
        )
    if floors > 1 and rng.random() < 0.35:
        for column in range(columns):
            if rng.random() < 0.5:
                x = -width / 2 + (column + 0.5) * pitch
                for floor in range(1, floors):
                    z = base + floor * storey
                    parts.append(box((window[0] + 0.8, 1.0, 0.15), (x, -0.5, z), "wall"))
                    parts.append(box((window[0] + 0.8, 0.04, 0.9), (x, -1.0, z + 0.5), str(rng.choice(["metal", "wall"]))))
    for column in range(columns):  # bays, porches, shop awnings
        if rng.random() < 0.12:
            x, out = -width / 2 + (column + 0.5) * pitch, rng.uniform(0.3, 1.6)
            low, high = (0.0, rng.uniform(2.2, height)) if rng.random() < 0.7 else (2.2, 2.5)
            parts.append(box((pitch * rng.uniform(0.7, 1.0), out, high - low), (x, -out / 2, (low + high) / 2), "wall"))
    if rng.random() < 0.5:
        parts.append(tube([[width / 2 - 0.2, -0.08, 0], [width / 2 - 0.2, -0.08, height]], 0.05, "metal", 6))
    if rng.random() < 0.3:  # steps before a door
        x = -width / 2 + (next(iter(doors)) + 0.5) * pitch
        parts += [box((1.6, 0.3 * (3 - s), 0.17), (x, -0.15 * (3 - s), 0.085 + 0.17 * s), "pavement") for s in range(3)]
    return shape(parts, family="facade", size=(width, depth, height))


def _upright(low: tuple[float, float], high: tuple[float, float], y: float, material: str) -> Part:
    return quad([[low[0], y, low[1]], [high[0], y, low[1]], [high[0], y, high[1]], [low[0], y, high[1]]], material)


def _window(low: tuple[float, float], high: tuple[float, float], recess: float, material: str) -> list[Part]:
    parts = [_upright(low, high, recess, material)]
    for x in (low[0], high[0]):
        parts.append(quad([[x, 0, low[1]], [x, recess, low[1]], [x, recess, high[1]], [x, 0, high[1]]], "wall"))
    for z in (low[1], high[1]):
        parts.append(quad([[low[0], 0, z], [high[0], 0, z], [high[0], recess, z], [low[0], recess, z]], "wall"))
    if high[0] - low[0] > 1.0 and material == "window":
        middle = (low[0] + high[0]) / 2
        parts.append(box((0.07, 0.04, high[1] - low[1]), (middle, recess - 0.02, (low[1] + high[1]) / 2), "wood"))
    return parts


def tree(rng: np.random.Generator) -> Shape:
    """A street tree or a conifer."""
    height = rng.uniform(3.5, 12)
    girth = rng.uniform(0.06, 0.10) + 0.012 * height
    bend = rng.normal(0, 0.03, (4, 2)).cumsum(0) * height / 4
    levels = np.array([0, 0.25, 0.5, 0.85]) * height
    trunk = np.concatenate([bend - bend[0], levels[:, None]], 1)
    parts = [tube(trunk, girth * np.array([1.2, 0.9, 0.6, 0.15]), "bark", 8)]
    if rng.random() < 0.2:  # conifer
        count = int(160 * height)
        z = rng.uniform(0.08, 1, count)
        radius = (1 - z) * height * 0.28 * np.sqrt(rng.random(count))
        angle = rng.uniform(0, 2 * math.pi, count)
        leaves = np.stack([radius * np.cos(angle), radius * np.sin(angle), z * height], 1)
        parts.append(cards(leaves, 0.13, "leaf", rng))
        return shape(parts, family="tree", radius=0.28 * height)
    crown = rng.uniform(0.22, 0.38) * height
    low = rng.uniform(0.22, 0.45) * height
    blobs = int(rng.integers(5, 12))
    centers = (
        trunk[2] + rng.normal(0, 1, (blobs, 3)) * [crown * 0.5, crown * 0.5, crown * 0.35] + [0, 0, low * 0.3 + 0.1 * height]
    )
    centers[:, 2] = np.maximum(centers[:, 2], low + 0.2 * crown)
    leaves = []
    for center in centers:
        count = int(rng.integers(150, 330))
        way = rng.standard_normal((count, 3))
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        leaves.append(center + way * (rng.random(count) ** 0.4 * crown * rng.uniform(0.4, 0.7))[:, None] * [1, 1, 0.8])
        parts.append(tube([trunk[2], center], [girth * 0.4, girth * 0.1], "bark", 4))
    parts.append(cards(np.concatenate(leaves), rng.uniform(0.10, 0.16), "leaf", rng))
    return shape(parts, family="tree", radius=crown)


def bush(rng: np.random.Generator) -> Shape:
    """A shrub, from knee height to more than that of a person."""
    height, wide = rng.uniform(0.5, 2.4), rng.uniform(0.4, 1.4)
    count = int(rng.integers(250, 700))
    way = rng.standard_normal((count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    way *= (rng.random(count) ** 0.35)[:, None]
    leaves = way * [wide, wide * rng.uniform(0.6, 1.2), height / 2] + [0, 0, height / 2]
    return shape([cards(leaves, rng.uniform(0.06, 0.12), "leaf", rng)], family="bush", radius=wide)


def shrub(rng: np.random.Generator) -> Shape:
    """A cut or slim plant of a front yard, about as large as a person: a column, a cone, or a ball on a stem."""
    kind, height, wide = str(rng.choice(["column", "cone", "ball"])), rng.uniform(0.8, 2.4), rng.uniform(0.15, 0.5)
    count = int(rng.integers(200, 500))
    angle, level = rng.uniform(0, 2 * math.pi, count), rng.random(count)
    if kind == "ball":
        low = min(height * rng.uniform(0.3, 0.6), height - 0.3)
        middle, tall = (low + height) / 2, (height - low) / 2
        parts = [tube([[0, 0, 0], [0, 0, middle]], rng.uniform(0.02, 0.06), "bark", 5)]
        z = middle + tall * (2 * level - 1)
        radius = wide * np.sqrt(np.maximum(1 - ((z - middle) / tall) ** 2, 0))
    else:
        parts, z = [], height * level
        radius = wide * (1 - level if kind == "cone" else np.minimum(1, 4 * (1 - level)))
    radius = radius * rng.random(count) ** 0.25
    leaves = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.maximum(z, 0.03)], 1)
    parts.append(cards(leaves, rng.uniform(0.04, 0.09), "leaf", rng))
    return shape(parts, family="shrub", radius=wide)


def thicket(rng: np.random.Generator) -> Shape:
    """The edge of a wood, or unkempt growth along a road, of 6 to 14 m: rays pass some metres into it."""
    length, depth, height = rng.uniform(6, 14), rng.uniform(2, 6), rng.uniform(2, 8)
    count = int(min(32 * length * depth * height, 7000))
    leaves = (rng.random((count, 3)) - [0.5, 0.0, 0.0]) * [length, depth, 1.0]
    wave = lambda scale: sum(rng.uniform(0.2, 0.5) * np.sin(k * leaves[:, 0] + rng.uniform(0, 6.3)) for k in scale)  # noqa: E731
    top = height * np.clip(0.7 + 0.35 * wave((0.5, 1.1, 2.3)), 0.2, 1.0)
    leaves[:, 1] += 0.8 * wave((0.7, 1.7, 3.1)) + 0.6 * leaves[:, 2]
    leaves[:, 2] *= top
    parts = [cards(leaves, rng.uniform(0.12, 0.2), "leaf", rng)]
    for _ in range(int(length / 3)):
        x, y = rng.uniform(-length / 2, length / 2), rng.uniform(0.5, depth)
        parts.append(tube([[x, y, 0], [x + rng.normal(0, 0.3), y, height]], [0.12, 0.04], "bark", 5))
    return shape(parts, family="thicket", size=(length, depth, height))


def hedge(rng: np.random.Generator) -> Shape:
    """A cut hedge of 1 to 12 m."""
    length, depth, height = 12 ** rng.random(), rng.uniform(0.4, 1.1), rng.uniform(0.7, 2.2)
    count = int(90 * length * height)
    leaves = (rng.random((count, 3)) - [0.5, 0.5, 0]) * [length, depth, height]
    leaves[:, 1] = np.sign(leaves[:, 1]) * (depth / 2) * (1 - (1 - np.abs(leaves[:, 1]) / (depth / 2)) ** 2)
    leaves += rng.normal(0, 0.04, leaves.shape)
    inside = box((length * 0.98, depth * 0.45, height * 0.9), (0, 0, height * 0.45), "leaf")
    return shape([cards(leaves, 0.09, "leaf", rng), inside], family="hedge", size=(length, depth, height))


def wall(rng: np.random.Generator) -> Shape:
    """A garden wall of 2 to 10 m, sometimes with pillars."""
    length, depth, height = rng.uniform(2, 10), rng.uniform(0.15, 0.4), rng.uniform(0.4, 2.2)
    parts = [box((length, depth, height), (0, 0, height / 2), "wall")]
    if rng.random() < 0.5:
        for x in (-length / 2, length / 2):
            parts.append(box((0.45, 0.45, height + 0.2), (x, 0, height / 2 + 0.1), "wall"))
    return shape(parts, family="wall", size=(length, max(depth, 0.45), height))


def fence(rng: np.random.Generator) -> Shape:
    """A fence of posts and bars or boards, which rays pass in part."""
    length, height = rng.uniform(3, 10), rng.uniform(0.8, 1.9)
    parts = [
        tube([[x, 0, 0], [x, 0, height]], 0.04, "metal", 5) for x in np.linspace(-length / 2, length / 2, int(length / 2) + 1)
    ]
    material = str(rng.choice(["wood", "metal"]))
    if rng.random() < 0.6:
        gap, wide = rng.uniform(0.1, 0.2), rng.uniform(0.015, 0.09)
        for x in np.arange(-length / 2, length / 2, gap):
            parts.append(quad([[x, 0, 0.08], [x + wide, 0, 0.08], [x + wide, 0, height], [x, 0, height]], material))
    for z in np.linspace(0.2, height - 0.1, int(rng.integers(2, 5))):
        parts.append(
            quad([[-length / 2, 0, z], [length / 2, 0, z], [length / 2, 0, z + 0.07], [-length / 2, 0, z + 0.07]], material)
        )
    return shape(parts, family="fence", size=(length, 0.15, height))


def pole(rng: np.random.Generator) -> Shape:
    """A lamp post, a sign post, a traffic light, a bollard or a plain pole of about the height of a person."""
    kind = str(rng.choice(["lamp", "sign", "light", "bollard", "post"], p=[0.25, 0.3, 0.15, 0.15, 0.15]))
    thick = rng.uniform(0.03, 0.09)
    if kind == "lamp":
        height = rng.uniform(4, 9)
        parts = [tube([[0, 0, 0], [0, 0, height]], [thick * 1.6, thick], "metal", 8)]
        parts.append(tube([[0, 0, height], [0, -1.2, height + 0.3]], 0.04, "metal", 5))
        parts.append(box((0.25, 0.7, 0.12), (0, -1.3, height + 0.3), "metal"))
        parts.append(
            box((0.25, 0.25, 0.9), (0, 0, 0.45), "metal")
            if rng.random() < 0.3
            else tube([[0, 0, 0], [0, 0, 1.0]], thick * 1.9, "metal", 8)
        )
    elif kind == "sign":
        height = rng.uniform(2.2, 3.2)
        size = rng.uniform(0.3, 0.45)
        parts = [tube([[0, 0, 0], [0, 0, height]], 0.035, "metal", 6)]
        angle = np.linspace(0, 2 * math.pi, int(rng.choice([4, 5, 13])))[:-1] + rng.uniform(0, 2)
        rim = np.stack([np.full(len(angle), 0.04), size * np.cos(angle), height - size + size * np.sin(angle)], 1)
        ring = np.concatenate([rim, rim[::-1] + np.array([0.01, 0, 0])])
        parts.append(
            (
                ring.astype(np.float32),
                np.array([[0, i, i + 1] for i in range(1, len(rim) - 1)], np.int32),
                np.full(len(rim) - 2, INDEX["sign"], np.uint8),
            )
        )
    elif kind == "light":
        height = rng.uniform(3, 3.6)
        parts = [tube([[0, 0, 0], [0, 0, height]], 0.07, "metal", 8), box((0.25, 0.3, 0.9), (0.15, 0, height - 0.6), "plastic")]
    elif kind == "bollard":
        height = rng.uniform(0.6, 1.2)
        parts = [tube([[0, 0, 0], [0, 0, height]], rng.uniform(0.05, 0.14), "metal", 8)]
    else:
        height = rng.uniform(1.2, 2.4)
        parts = [tube([[0, 0, 0], [0, 0, height]], rng.uniform(0.06, 0.22), str(rng.choice(["metal", "wood", "wall"])), 9)]
    return shape(parts, family="pole", radius=0.25)


def clutter(rng: np.random.Generator) -> Shape:
    """Things of the size of people or smaller: bins, cabinets, benches, stacks, planters, barriers, advertising pillars."""
    kind = str(rng.choice(["bin", "cabinet", "bench", "stack", "planter", "barrier", "pillar", "bags", "statue"]))
    if kind == "bin":
        size = rng.uniform(0.45, 1.3), rng.uniform(0.5, 0.8), rng.uniform(0.9, 1.3)
        parts = [
            box(size, (0, 0, size[2] / 2 + 0.05), "plastic"),
            box((size[0] * 1.05, size[1] * 1.1, 0.08), (0, -0.03, size[2] + 0.08), "plastic"),
        ]
    elif kind == "cabinet":
        size = rng.uniform(0.4, 1.6), rng.uniform(0.3, 0.6), rng.uniform(0.8, 1.9)
        parts = [box(size, (0, 0, size[2] / 2), str(rng.choice(["metal", "plastic", "wall"])))]
    elif kind == "bench":
        parts = [box((1.7, 0.45, 0.06), (0, 0, 0.45), "wood"), box((1.7, 0.05, 0.4), (0, 0.22, 0.7), "wood")]
        parts += [box((0.08, 0.4, 0.45), (x, 0, 0.22), "metal") for x in (-0.7, 0.7)]
    elif kind == "stack":
        parts, level = [], 0.0
        wide = rng.uniform(0.4, 1.0)
        while level < rng.uniform(0.8, 1.9):
            tall = rng.uniform(0.2, 0.5)
            size = wide * rng.uniform(0.7, 1.1), wide * rng.uniform(0.6, 1.0), tall
            parts.append(box(size, (*rng.normal(0, 0.04, 2), level + tall / 2), str(rng.choice(["wood", "plastic", "bag"]))))
            level += tall
    elif kind == "planter":
        radius, tall = rng.uniform(0.25, 0.7), rng.uniform(0.4, 0.8)
        parts = [tube([[0, 0, 0], [0, 0, tall]], [radius * 0.8, radius], "wall", 10)]
        leaves = rng.standard_normal((220, 3)) * [radius * 0.5, radius * 0.5, 0.25] + [0, 0, tall + rng.uniform(0.2, 0.6)]
        parts.append(cards(leaves, 0.07, "leaf", rng))
    elif kind == "barrier":
        parts = [box((2.0, 0.06, 0.2), (0, 0, z), "sign" if rng.random() < 0.3 else "plastic") for z in (0.5, 0.95)]
        parts += [box((0.08, 0.5, 1.05), (x, 0, 0.52), "plastic") for x in (-0.9, 0.9)]
    elif kind == "pillar":
        parts = [
            tube([[0, 0, 0], [0, 0, rng.uniform(1.4, 3.2)]], rng.uniform(0.2, 0.6), str(rng.choice(["wall", "metal"])), 12)
        ]
    elif kind == "bags":
        parts = [
            ellipsoid(rng.uniform(0.2, 0.4, 3), (*rng.normal(0, 0.3, 2), 0.25), "bag", 7, 4)
            for _ in range(int(rng.integers(2, 6)))
        ]
    else:  # a slim block on a foot, as tall as a person
        tall = rng.uniform(1.3, 1.9)
        parts = [
            box((0.5, 0.5, 0.3), (0, 0, 0.15), "wall"),
            ellipsoid((0.22, 0.25, tall / 2), (0, 0, tall / 2 + 0.1), "wall", 8, 5),
        ]
    built = shape(parts, family=kind)
    built.info["radius"] = float(np.abs(built.corners[:, :2]).max())
    return built
