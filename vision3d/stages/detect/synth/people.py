"""People on foot and on bicycles: bodies of tubes and ellipsoids around a posed skeleton. Front is +x, the ground z = 0."""

import math
from typing import Any

import numpy as np

from vision3d.render.lidar.casting import Shape
from vision3d.stages.detect.synth.parts import Part, box, ellipsoid, moved, quad, shape, tube
from vision3d.stages.detect.synth.walker import walker

OUTFITS = ("trousers", "coat", "skirt", "shorts", "dress")
BAGS = ("none", "backpack", "handbag", "shoulder")


def _turn(vector: np.ndarray, angle: float) -> np.ndarray:
    """Rotated about y, so that a positive angle moves a downward limb forward."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([cosine * vector[0] - sine * vector[2], vector[1], sine * vector[0] + cosine * vector[2]])


def _limb(start: np.ndarray, upper: float, lower: float, swing: float, bend: float, spread: float = 0.0) -> list[np.ndarray]:
    """Joints of an arm or a leg that hangs down: swing forward, bend of the elbow (positive) or the knee (negative) [rad]."""
    down = np.array([0.0, math.sin(spread), -math.cos(spread)])
    middle = start + upper * _turn(down, swing)
    return [start, middle, middle + lower * _turn(down, swing + bend)]


def pedestrian(
    rng: np.random.Generator, *, outfit: str | None = None, bag: str | None = None, child: bool | None = None
) -> Shape:
    """A person who walks or stands: the rigged mesh, or a body of simple parts; `info` has its box."""
    is_child = rng.random() < 0.10 if child is None else child
    height = rng.uniform(1.0, 1.45) if is_child else float(np.clip(rng.normal(1.72, 0.10), 1.45, 2.0))
    girth = rng.uniform(0.85, 1.2) * (1.05 if is_child else 1.0)
    outfit = outfit or str(rng.choice(OUTFITS, p=[0.5, 0.25, 0.08, 0.1, 0.07]))
    bag = bag or str(rng.choice(BAGS, p=[0.5, 0.2, 0.15, 0.15]))
    if rng.random() < 0.6:
        return _boxed(walker(height, girth, outfit, bag, rng), "pedestrian", outfit=outfit)
    is_walking = rng.random() < 0.7
    phase = rng.uniform(0, 2 * math.pi)
    stride = rng.uniform(0.25, 0.55) if is_walking else rng.uniform(0, 0.08)
    hip = 0.525 * height
    parts: list[Part] = []
    legs = []
    for side, offset in ((1, 0.0), (-1, math.pi)):
        swing = stride * math.sin(phase + offset)
        bend = -(0.12 + 0.8 * stride * max(0.0, math.cos(phase + offset))) if is_walking else -0.03
        legs.append(_limb(np.array([0, side * 0.055 * height * girth, hip]), 0.245 * height, 0.235 * height, swing, bend))
    ground = min(leg[2][2] for leg in legs) - 0.045 * height
    for leg in legs:
        for joint in leg:
            joint[2] -= ground
        skin = "skin" if outfit in ("shorts", "dress", "skirt") else "trousers"
        parts.append(tube(leg[:2], [0.052 * height * girth, 0.036 * height * girth], "trousers", 7))
        parts.append(tube(leg[1:], [0.036 * height * girth, 0.024 * height], skin, 7))
        foot = leg[2] + [0.045 * height, 0, -0.022 * height]
        parts.append(ellipsoid((0.075 * height, 0.028 * height, 0.024 * height), foot, "shoes", 7, 4))
    hip -= ground
    lean = rng.normal(0.05 if is_walking else 0.0, 0.04)

    def spine(share: float, ahead: float = 0.0) -> np.ndarray:
        return np.array([math.sin(lean) * share + ahead, 0, hip + math.cos(lean) * share])

    trunk = 0.30 * height
    bulk = 1.15 if outfit == "coat" else 1.0
    widths = np.array([0.082, 0.083, 0.072, 0.088, 0.096, 0.060]) * height * girth * bulk
    depths = np.array([0.060, 0.062, 0.055, 0.066, 0.062, 0.040]) * height * girth * bulk
    parts.append(_torso([spine(share * trunk) for share in (-0.12, 0.05, 0.35, 0.68, 0.9, 1.0)], widths, depths))
    skirt = {"coat": 0.30 * height, "skirt": 0.26 * height, "dress": 0.36 * height}.get(outfit, 0.0) * rng.uniform(0.8, 1.2)
    if skirt:
        wide = (1.25 if outfit != "coat" else 1.1) + stride * 0.5
        below = [spine(0.1 * trunk), spine(-0.5 * skirt), spine(-skirt)]
        parts.append(_torso(below, widths[0] * np.array([1, 1.1, wide]), depths[0] * np.array([1.05, 1.25, wide * 1.25])))
    for side, offset in ((1, math.pi), (-1, 0.0)):
        swing = (0.8 * stride * math.sin(phase + offset) if is_walking else rng.normal(0, 0.08)) - lean
        bend = rng.uniform(0.1, 0.5) if rng.random() < 0.8 else rng.uniform(1.2, 2.0)  # the latter: a phone, a bag
        shoulder = spine(0.93 * trunk) + np.array([0, side * 0.105 * height * girth * bulk, 0])
        arm = _limb(shoulder, 0.17 * height, 0.15 * height, swing, bend, side * rng.uniform(0.06, 0.2))
        parts.append(tube(arm[:2], [0.033 * height * girth * bulk, 0.027 * height], "cloth", 6))
        parts.append(tube(arm[1:], [0.027 * height, 0.018 * height], "cloth", 6))
        hand = arm[2] + 0.03 * height * (arm[2] - arm[1]) / np.linalg.norm(arm[2] - arm[1])
        parts.append(ellipsoid((0.028 * height, 0.018 * height, 0.04 * height), hand, "skin", 6, 4))
        if bag == "handbag" and side == 1:
            size = (rng.uniform(0.25, 0.4), rng.uniform(0.08, 0.15), rng.uniform(0.25, 0.4))
            parts.append(box(size, hand + np.array([0, 0, -0.05 - size[2] / 2]), "bag"))
    parts += _head(spine, trunk, height, rng)
    if bag == "backpack":
        parts.append(
            ellipsoid(
                (0.09 * height, 0.085 * height, 0.14 * height), spine(0.6 * trunk, -depths[3] - 0.05 * height), "bag", 8, 5
            )
        )
    elif bag == "shoulder":
        side = rng.choice([-1, 1])
        parts.append(box((0.32, 0.12, 0.28), spine(-0.1 * trunk) + np.array([0, side * (widths[0] + 0.08), 0]), "bag"))
    return _boxed(parts, "pedestrian", outfit=outfit)


def _torso(centers: list[np.ndarray], widths: np.ndarray, depths: np.ndarray) -> Part:
    """A trunk of elliptic sections."""
    unit = tube([[0, 0, i] for i in range(len(centers))], 1.0, "cloth", 10)
    vertices = unit[0].copy()
    level = np.clip(np.round(vertices[:, 2]).astype(int), 0, len(centers) - 1)
    flat = vertices[:, :2] * np.stack([depths, widths], 1)[level]
    return np.concatenate([flat, np.zeros((len(flat), 1))], 1).astype(np.float32) + np.array(centers, np.float32)[level], *unit[
        1:
    ]


def _head(spine: Any, trunk: float, height: float, rng: np.random.Generator) -> list[Part]:
    neck, head = spine(1.0 * trunk), spine(trunk + 0.105 * height, 0.012 * height)
    parts = [tube([neck, head], 0.035 * height, "skin", 7)]
    parts.append(ellipsoid((0.060 * height, 0.046 * height, 0.070 * height), head, "skin", 9, 6))
    crown = head + np.array([-0.012 * height, 0, 0.018 * height])
    parts.append(
        ellipsoid((0.058 * height, 0.051 * height, 0.060 * height), crown, str(rng.choice(["hair", "hair", "cloth"])), 9, 6)
    )
    if rng.random() < 0.3:  # long hair or a hood
        parts.append(
            ellipsoid(
                (0.04 * height, 0.05 * height, 0.10 * height),
                head + np.array([-0.04 * height, 0, -0.06 * height]),
                "hair",
                7,
                4,
            )
        )
    return parts


def _boxed(parts: list[Part], family: str, **info: Any) -> Shape:
    """A shape whose origin is the centre of its box on the ground."""
    vertices = np.concatenate([piece[0] for piece in parts])
    low, high = vertices.min(0), vertices.max(0)
    parts = [moved(piece, (-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, -low[2])) for piece in parts]
    size = tuple(float(value) for value in high - low)
    return shape(parts, family=family, size=size, center=(0.0, 0.0, size[2] / 2), **info)


def cyclist(rng: np.random.Generator, *, style: str | None = None) -> Shape:
    """A rider on a bicycle; `info` has the box of both. `style`: city, sport or cargo."""
    style = style or str(rng.choice(["city", "sport"], p=[0.65, 0.35]))
    parts, seat, bar, pedal = bicycle_parts(rng, style)
    height = float(np.clip(rng.normal(1.72, 0.10), 1.5, 1.98))
    girth = rng.uniform(0.9, 1.15)
    lean = rng.uniform(0.12, 0.45) if style != "sport" else rng.uniform(0.6, 1.0)
    hip = seat + np.array([0.02, 0, 0.07])
    trunk = 0.30 * height

    def spine(share: float, ahead: float = 0.0) -> np.ndarray:
        way = (math.sin(lean) * share + math.cos(lean) * ahead, 0, math.cos(lean) * share - math.sin(lean) * ahead)
        return hip + np.array(way)

    widths = np.array([0.090, 0.083, 0.075, 0.090, 0.092, 0.06]) * height * girth
    depths = np.array([0.075, 0.066, 0.060, 0.068, 0.062, 0.04]) * height * girth
    parts.append(_torso([spine(share * trunk) for share in (-0.1, 0.05, 0.35, 0.68, 0.9, 1.0)], widths, depths))
    phase = rng.uniform(0, 2 * math.pi)
    for side, offset in ((1, 0.0), (-1, math.pi)):
        ankle = pedal + np.array(
            [0.165 * math.cos(phase + offset) - 0.06, side * 0.11, 0.165 * math.sin(phase + offset) + 0.08]
        )
        start = hip + np.array([0, side * 0.07, -0.02])
        knee = _joint(start, ankle, 0.245 * height, 0.24 * height, np.array([1.0, 0, 0.35]))
        parts.append(tube([start, knee], [0.055 * height * girth, 0.037 * height], "trousers", 7))
        parts.append(tube([knee, ankle], [0.037 * height, 0.024 * height], str(rng.choice(["trousers", "skin"])), 7))
        parts.append(ellipsoid((0.12, 0.045, 0.04), ankle + np.array([0.06, 0, -0.05]), "shoes", 7, 4))
        shoulder = spine(0.93 * trunk) + np.array([0, side * 0.105 * height, 0])
        hand = bar + np.array([0, side * rng.uniform(0.18, 0.28), 0.02])
        elbow = _joint(shoulder, hand, 0.17 * height, 0.16 * height, np.array([-0.3, side * 0.6, -1.0]))
        parts.append(tube([shoulder, elbow], [0.034 * height * girth, 0.027 * height], "cloth", 6))
        parts.append(tube([elbow, hand], [0.027 * height, 0.018 * height], "cloth", 6))

    def upright(share: float, ahead: float = 0.0) -> np.ndarray:
        return spine(trunk) + np.array([0.4 * (share - trunk) * math.sin(lean) + ahead, 0, share - trunk])

    parts += _head(upright, trunk, height, rng)
    if rng.random() < 0.4:
        parts.append(ellipsoid((0.13, 0.10, 0.08), upright(trunk + 0.16 * height), "plastic", 9, 4))  # helmet
    if rng.random() < 0.3:
        parts.append(ellipsoid((0.13, 0.15, 0.24), spine(0.6 * trunk, -0.22), "bag", 8, 5))
    return _boxed(parts, "cyclist", style=style)


def bicycle(rng: np.random.Generator) -> Shape:
    """A parked bicycle without a rider: none of the classes."""
    return _boxed(bicycle_parts(rng, str(rng.choice(["city", "sport"])))[0], "bicycle")


def bicycle_parts(rng: np.random.Generator, style: str) -> tuple[list[Part], np.ndarray, np.ndarray, np.ndarray]:
    """Parts of a bicycle, and the places of its saddle, handlebar and pedal axle."""
    base, radius = rng.uniform(1.0, 1.12), rng.uniform(0.31, 0.35)
    if style == "cargo":
        base += 0.55
    parts: list[Part] = []
    for x in (-base / 2, base / 2):
        angle = np.linspace(0, 2 * math.pi, 19)
        rim = np.stack([x + radius * np.cos(angle), np.zeros(19), radius + radius * np.sin(angle)], 1)
        parts.append(tube(rim, 0.022, "tyre", 5, ends=False))
        for turn in np.linspace(0, math.pi, 9)[:-1] + rng.uniform(0, 0.3):  # thin: most rays pass between them
            end = radius * np.array([math.cos(turn), 0, math.sin(turn)])
            across = 0.0025 * np.array([-math.sin(turn), 0, math.cos(turn)])
            hub = np.array([x, 0, radius])
            parts.append(quad([hub - end - across, hub - end + across, hub + end + across, hub + end - across], "metal"))
    if style == "city" and rng.random() < 0.8:  # mudguard
        angle = np.linspace(0.3, 2.6, 8)
        parts.append(
            tube(
                np.stack(
                    [-base / 2 + (radius + 0.03) * np.cos(angle), np.zeros(8), radius + (radius + 0.03) * np.sin(angle)], 1
                ),
                0.025,
                "trim",
                4,
            )
        )
    pedal = np.array([-0.10 if style != "cargo" else -0.35, 0, 0.29])
    seat = pedal + np.array([-0.20, 0, rng.uniform(0.55, 0.72)])
    bar_height = seat[2] + (rng.uniform(0.05, 0.22) if style != "sport" else rng.uniform(-0.06, 0.03))
    front = base / 2 if style != "cargo" else base / 2 - 0.55
    bar = np.array([front - 0.22, 0, bar_height])
    head, rear = np.array([front - 0.17, 0, 0.72]), np.array([-base / 2, 0, radius])
    axle = np.array([base / 2, 0, radius])
    for path, width in (
        ([pedal, seat], 0.018),
        ([pedal, head], 0.022),
        ([seat + np.array([0.04, 0, -0.15]), head], 0.018),
        ([pedal, rear], 0.014),
        ([rear, seat + np.array([0.05, 0, -0.18])], 0.012),
        ([axle, head, bar], 0.018),
    ):
        parts.append(tube(path, width, "paint", 5))
    parts.append(tube([bar + np.array([0, -0.29, 0]), bar + np.array([0, 0.29, 0])], 0.016, "trim", 5))
    parts.append(ellipsoid((0.13, 0.07, 0.035), seat, "trim", 7, 4))
    parts.append(tube([pedal + np.array([0, -0.17, 0]), pedal + np.array([0, 0.17, 0])], 0.012, "metal", 5))
    if style == "city" and rng.random() < 0.5:
        parts.append(
            box((0.35, 0.26, 0.24), seat + np.array([-0.28, 0, -0.05]), "bag")
            if rng.random() < 0.5
            else box((0.3, 0.32, 0.24), bar + np.array([0.22, 0, -0.02]), "bag")
        )
    if style == "cargo":
        parts.append(box((0.65, 0.55, 0.45), (base / 2 - 0.55, 0, 0.62), "wood"))
    return parts, seat, bar, pedal


def _joint(start: np.ndarray, end: np.ndarray, upper: float, lower: float, towards: np.ndarray) -> np.ndarray:
    """Knee or elbow between two ends, bent towards a direction."""
    way = end - start
    span = float(np.linalg.norm(way))
    way = way / max(span, 1e-9)
    reach = min(span, (upper + lower) * 0.999)
    along = (upper**2 - lower**2 + reach**2) / (2 * max(reach, 1e-9))
    out = towards - way * float(towards @ way)
    out /= max(float(np.linalg.norm(out)), 1e-9)
    return start + way * along * (span / max(reach, 1e-9)) + out * math.sqrt(max(upper**2 - along**2, 0.0))
