"""Vehicles: bodies lofted through sections along x, with glass, wheels, arches and mirrors. Front is +x, the ground z = 0."""

import math

import numpy as np

from vision3d.render.lidar.casting import Shape
from vision3d.render.lidar.materials import INDEX
from vision3d.stages.detect.synth.parts import (
    Part,
    box,
    disc,
    ellipsoid,
    grid_faces,
    joined,
    loft,
    moved,
    part,
    quad,
    shape,
    tube,
)
from vision3d.stages.detect.synth.profiles import PROFILES, Profile


def car(family: str, rng: np.random.Generator) -> Shape:
    """A car or van of a family; `info` has its box: size (3,) without mirrors."""
    profile = PROFILES[family]
    length, width, height = (rng.uniform(*span) for span in (profile.length, profile.width, profile.height))
    wheel = profile.wheel * rng.uniform(0.94, 1.08)
    axles = np.array(profile.axles) * length + rng.normal(0, 0.03, 2)
    parts = [_body(profile, length, width, height, axles, wheel, rng)]
    for x in axles:
        for side in (-1, 1):
            parts += _wheel(x, side * (width / 2 - 0.11), wheel, rng)
    parts += _fittings(profile, length, width, height)
    parts += _cabin(profile, length, width, height, rng)
    parts = [moved(piece, (-length / 2, 0, 0)) for piece in parts]
    return shape(parts, family=family, size=(length, width, height), center=(0.0, 0.0, height / 2))


def _body(
    p: Profile, length: float, width: float, height: float, axles: np.ndarray, wheel: float, rng: np.random.Generator
) -> Part:
    jitter = lambda value, spread: value + rng.normal(0, spread)  # noqa: E731
    cowl_x, cowl_z = jitter(p.cowl[0], 0.012) * length, p.cowl[1] * height
    roof_rear, roof_front = jitter(p.roof[0], 0.012) * length, jitter(p.roof[1], 0.012) * length
    deck_x, deck_z = p.deck[0] * length, p.deck[1] * height
    belt = jitter(p.belt, 0.008) * height
    arch = wheel * 1.17
    # the outline from the rear bumper over the roof to the front bumper
    outline = np.array(
        [
            [0.0, p.tail * height * 0.93],
            [0.01 * length, p.tail * height],
            [deck_x, deck_z],
            [roof_rear, 0.97 * height],
            [(roof_rear + roof_front) / 2, height],
            [roof_front, 0.985 * height],
            [cowl_x, cowl_z],
            [0.93 * length, p.nose * height * 1.06],
            [0.985 * length, p.nose * height * 0.93],
            [length, p.nose * height * 0.70],
        ]
    )
    outline[:, 0] = np.maximum.accumulate(outline[:, 0] + np.arange(len(outline)) * 1e-4)
    stations = [np.linspace(x - arch, x + arch, 9) for x in axles]
    stations += [
        outline[:, 0],
        np.linspace(roof_rear, roof_front, 5),
        np.linspace(cowl_x, length, 6),
        np.linspace(0, deck_x, 3),
    ]
    pillar = (roof_front + cowl_x) / 2 - 0.08 * length
    stations += [np.array([pillar, pillar + 0.05, roof_rear + 0.03 * length])]
    x = np.unique(np.clip(np.concatenate(stations), 0, length).round(3))
    top = np.interp(x, outline[:, 0], outline[:, 1])
    u = x / length
    ends = np.clip(np.minimum(u / 0.10, (1 - u) / 0.13), 0, 1)
    half = width / 2 * (0.84 + 0.16 * np.sqrt(1 - (1 - ends) ** 2))
    low = p.clearance + 0.10 * (1 - np.clip(np.minimum(u, 1 - u) / 0.05, 0, 1))
    shoulder = np.minimum(belt, top - 0.02)
    sill = low + 0.10
    for axle in axles:
        near = np.abs(x - axle) < arch
        sill = np.where(near, np.maximum(sill, wheel + np.sqrt(np.maximum(arch**2 - (x - axle) ** 2, 0))), sill)
    sill = np.minimum(sill, shoulder - 0.03)
    middle = np.maximum(sill + 0.01, 0.55 * sill + 0.45 * shoulder)
    lean = half * (1 - p.tumble * np.clip((top - shoulder) / (height - belt), 0, 1))
    edge = np.maximum(top - 0.05, shoulder + 0.6 * (top - shoulder))
    zero = np.zeros_like(x)
    y = np.stack([zero, half * 0.90, half * 0.97, half, half * 0.985, lean, lean * 0.72, zero], 1)
    z = np.stack([low, low, sill, middle, shoulder, edge, np.maximum(top - 0.012, edge), top], 1)
    sections = np.stack([np.repeat(x[:, None], y.shape[1], 1), y, z], -1)
    between = (x[1:] + x[:-1]) / 2
    paint, glass, trim = INDEX["paint"], INDEX["glass"], INDEX["trim"]
    materials = np.full((len(x) - 1, 7), paint, np.uint8)
    materials[:, 0] = trim
    materials[:, 1] = np.where(rng.random() < 0.5, trim, paint)
    tall = (np.interp(between, x, top) - np.interp(between, x, shoulder)) > 0.12
    in_cabin = tall & (between > deck_x + 0.02 * length) & (between < cowl_x - 0.02)
    is_pillar = np.abs(between - (roof_rear + roof_front) / 2 - 0.02 * length) < 0.05
    is_pillar |= (between < roof_rear + 0.035 * length) & (between > roof_rear)
    rear_limit = deck_x if p.has_rear_windows else (roof_rear + roof_front) / 2 + 0.08 * length
    materials[in_cabin & ~is_pillar & (between > rear_limit), 4] = glass
    is_screen = (between > roof_front) & (between < cowl_x)
    materials[is_screen, 5] = materials[is_screen, 6] = glass
    is_back = (between > deck_x) & (between < roof_rear) & p.has_rear_windows
    materials[is_back, 5] = materials[is_back, 6] = glass
    left = loft(sections, materials)
    right = (left[0] * [1, -1, 1], left[1][:, ::-1], left[2])
    caps = []
    for i in (0, -1):
        ring = np.concatenate([sections[i], sections[i, ::-1] * [1, -1, 1]])
        caps.append(_fan(ring, "paint" if rng.random() < 0.6 else "trim"))
    if p.bed:
        caps.append(_bed(x, top, half, roof_rear, deck_z))
    return joined([left, (right[0].astype(np.float32), right[1], right[2]), *caps])


def _fan(ring: np.ndarray, material: str) -> Part:
    index = np.arange(1, len(ring) - 1)
    return part(ring, np.stack([np.zeros_like(index), index, index + 1], 1), material)


def _bed(x: np.ndarray, top: np.ndarray, half: np.ndarray, end: float, height: float) -> Part:
    """Side walls of the cargo bed above its floor."""
    sides = [box((end - 0.1, 0.06, 0.1), (end / 2, s * (half.max() - 0.06), height + 0.03), "paint") for s in (-1, 1)]
    return joined([*sides, box((0.06, 2 * half.max() - 0.1, 0.1), (0.05, 0, height + 0.03), "paint")])


def _wheel(x: float, y: float, radius: float, rng: np.random.Generator) -> list[Part]:
    angle = np.linspace(0, 2 * math.pi, 15)[:-1]
    rim = np.stack([x + radius * np.cos(angle), np.zeros(14), radius + radius * np.sin(angle)], 1)
    sections = np.stack([rim + np.array([0, offset, 0]) for offset in (-0.1, 0.1)])
    tread = part(sections.reshape(-1, 3) + np.array([0, y, 0]), grid_faces(2, 14, closed=True), "tyre")
    outer = y + math.copysign(0.1, y)
    hub = "chrome" if rng.random() < 0.7 else "trim"
    faces = [disc((x, outer - math.copysign(0.01, y), radius), radius, "tyre", 14)]
    faces.append(disc((x, outer, radius), radius * 0.64, hub, 12))
    faces.append(disc((x, y - math.copysign(0.1, y), radius), radius, "tyre", 14))
    return [tread, *faces]


def _fittings(p: Profile, length: float, width: float, height: float) -> list[Part]:
    """Mirrors, lamps and number plates."""
    x, z = (p.cowl[0] - 0.055) * length, p.belt * height + 0.07
    parts = [ellipsoid((0.07, 0.11, 0.08), (x, side * (width / 2 + 0.06), z), "paint", 6, 4) for side in (-1, 1)]
    front, rear = p.nose * height * 0.80, p.tail * height * 0.80
    for side in (-1, 1):
        parts.append(box((0.10, 0.26, 0.12), (0.955 * length, side * width * 0.36, front), "lamp"))
        parts.append(box((0.06, 0.22, 0.16), (0.02 * length, side * width * 0.385, rear), "lamp"))
    plate = 0.5 * (p.clearance + p.nose * height)
    for x in (-0.012, length + 0.012):
        parts.append(quad([[x, -0.26, plate], [x, 0.26, plate], [x, 0.26, plate + 0.11], [x, -0.26, plate + 0.11]], "plate"))
    return parts


def _cabin(p: Profile, length: float, width: float, height: float, rng: np.random.Generator) -> list[Part]:
    """Seats and what else is seen through the windows."""
    belt = p.belt * height
    front = (p.roof[1] + 0.02) * length
    rear = max(p.roof[0] * length + 0.35, front - 0.95)
    parts = []
    for x in (front - 0.35, rear):
        for side in (-1, 1):
            parts.append(box((0.14, 0.46, 0.62), (x, side * width * 0.21, belt - 0.05), "interior"))
            parts.append(box((0.08, 0.24, 0.18), (x - 0.05, side * width * 0.21, belt + 0.33), "interior"))
    parts.append(box((0.35, width * 0.8, 0.25), (p.cowl[0] * length - 0.25, 0, belt - 0.10), "interior"))
    floor = max(belt - 0.35, p.clearance + 0.1)
    parts.append(
        quad(
            [
                [0.1 * length, -width * 0.42, floor],
                [0.75 * length, -width * 0.42, floor],
                [0.75 * length, width * 0.42, floor],
                [0.1 * length, width * 0.42, floor],
            ],
            "interior",
        )
    )
    if rng.random() < 0.15:  # a driver
        parts.append(ellipsoid((0.12, 0.22, 0.3), (front - 0.22, width * 0.2, belt + 0.0), "cloth", 6, 4))
        parts.append(ellipsoid((0.1, 0.08, 0.12), (front - 0.2, width * 0.2, belt + 0.36), "skin", 6, 4))
    return parts


def truck(rng: np.random.Generator) -> Shape:
    """A box truck, a tipper or a tanker."""
    length, width, height = rng.uniform(6.0, 11.0), rng.uniform(2.2, 2.55), rng.uniform(2.8, 3.9)
    cab, wheel = rng.uniform(1.7, 2.2), rng.uniform(0.42, 0.52)
    nose = length - cab
    cab_height = min(height, rng.uniform(2.5, 3.0))
    outline = np.array([[nose, cab_height], [length - 0.25, cab_height], [length - 0.03, cab_height * 0.62], [length, 0.45]])
    sections = np.stack([[[x, y * width * 0.48, z] for x, z in outline] for y in (-1, 1)]).astype(float)
    sections = sections.transpose(1, 0, 2)
    parts = [part(sections.reshape(-1, 3), grid_faces(4, 2), "paint")]
    parts[0][2][2:4] = INDEX["glass"]
    for side in (-1, 1):
        y = side * width * 0.48
        parts.append(
            quad(
                [[nose, y, 0.5], [length, y, 0.45], [length - 0.03, y, cab_height * 0.62], [nose, y, cab_height * 0.62]],
                "paint",
            )
        )
        parts.append(
            quad(
                [
                    [nose, y, cab_height * 0.62],
                    [length - 0.03, y, cab_height * 0.62],
                    [length - 0.25, y, cab_height],
                    [nose, y, cab_height],
                ],
                "glass",
            )
        )
        parts.append(box((0.12, 0.2, 0.45), (length - 0.35, side * (width / 2 + 0.12), cab_height * 0.72), "trim"))
        parts.append(box((0.1, 0.3, 0.15), (length - 0.05, side * width * 0.38, 0.75), "lamp"))
    parts.append(
        quad(
            [
                [nose, -width * 0.48, 0.5],
                [nose, width * 0.48, 0.5],
                [nose, width * 0.48, cab_height],
                [nose, -width * 0.48, cab_height],
            ],
            "paint",
        )
    )
    floor = rng.uniform(0.9, 1.2)
    kind = rng.choice(["box", "tank", "flat"], p=[0.7, 0.1, 0.2])
    hold = nose - 0.15
    if kind == "tank":
        parts.append(tube([[0.1, 0, floor + 0.8], [hold, 0, floor + 0.8]], 0.85, "paint", 14))
    elif kind == "flat":
        parts.append(box((hold, width, 0.2), (hold / 2, 0, floor), "trim"))
        for x in (0.03, hold - 0.03):
            parts.append(box((0.05, width, 0.6), (x, 0, floor + 0.3), "paint"))
        parts += [box((hold, 0.05, 0.5), (hold / 2, s * width / 2, floor + 0.3), "paint") for s in (-1, 1)]
        height = cab_height
    else:
        parts.append(box((hold, width, height - floor), (hold / 2, 0, (height + floor) / 2), "paint"))
    parts.append(box((length - 0.5, 0.9, 0.25), (length / 2 - 0.1, 0, floor - 0.25), "trim"))
    axles = [length - 1.1, 0.24 * length] + ([0.24 * length + 1.2] if length > 8 else [])
    for x in axles:
        for side in (-1, 1):
            parts += _wheel(x, side * (width / 2 - 0.14), wheel, rng)
    parts.append(quad([[-0.01, -0.26, 0.7], [-0.01, 0.26, 0.7], [-0.01, 0.26, 0.82], [-0.01, -0.26, 0.82]], "plate"))
    height = max(height if kind == "box" else 0.0, cab_height, floor + 1.65 if kind == "tank" else 0.0)
    parts = [moved(piece, (-length / 2, 0, 0)) for piece in parts]
    return shape(parts, family="truck", size=(length, width, height), center=(0.0, 0.0, height / 2))


def trailer(rng: np.random.Generator) -> Shape:
    """A small trailer with a tarpaulin, a boat or a load: none of the classes."""
    length, width, height = rng.uniform(2.0, 4.5), rng.uniform(1.3, 2.1), rng.uniform(0.5, 2.4)
    parts = [box((length, width, height), (0, 0, 0.45 + height / 2), rng.choice(["plastic", "wood", "metal", "paint"]))]
    for side in (-1, 1):
        parts += _wheel(rng.uniform(-0.2, 0.2), side * (width / 2 + 0.08), 0.3, rng)
    parts.append(tube([[length / 2, 0, 0.45], [length / 2 + 1.1, 0, 0.45]], 0.05, "metal"))
    return shape(parts, family="trailer", size=(length, width, 0.45 + height), center=(0.0, 0.0, (0.45 + height) / 2))


def motorcycle(rng: np.random.Generator) -> Shape:
    """A parked motorcycle or scooter without a rider: none of the classes."""
    base, radius = rng.uniform(1.2, 1.45), rng.uniform(0.24, 0.32)
    parts = []
    for x in (-base / 2, base / 2):
        parts += [disc((x, y, radius), radius, "tyre", 12) for y in (-0.06, 0.06)]
    parts.append(ellipsoid((0.45, 0.16, 0.22), (0, 0, 0.62), "paint", 8, 5))
    parts.append(ellipsoid((0.38, 0.14, 0.08), (-0.35, 0, 0.80), "trim", 8, 4))
    parts.append(tube([[base / 2, 0, radius], [base / 2 - 0.25, 0, 0.95]], 0.05, "metal"))
    parts.append(tube([[base / 2 - 0.28, -0.35, 1.02], [base / 2 - 0.28, 0.35, 1.02]], 0.025, "trim"))
    parts.append(box((0.35, 0.22, 0.3), (0, 0, 0.38), "metal"))
    size = (base + 2 * radius, 0.7, 1.05)
    return shape(parts, family="motorcycle", size=size, center=(0.0, 0.0, 0.52))
