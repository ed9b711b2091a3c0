"""The shape of the hand: a smooth union of round cones and ellipsoids, and where its mesh needs small triangles."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from anatomy import FINGERS, PALM, THUMB, Array, Finger, Mask, unit


@dataclass(frozen=True)
class Part:
    """A round cone from `start` to `end`, or an ellipsoid around `start` if `radii` has three numbers."""

    joint: str
    """Joint that moves the part."""
    start: Array
    end: Array
    radii: tuple[float, ...]
    blend: float
    """Length over which it is blended with the previous parts [m]."""
    frame: Array | None = None
    """Axes of an ellipsoid as rows; those of the world when None."""
    thin: float = 1.0
    """Thickness of a round cone along z relative to its breadth."""

    def distances(self, points: Array) -> Array:
        """Signed distances, negative inside; near the surface for what is not round."""
        if len(self.radii) == 3:
            local = points - self.start if self.frame is None else (points - self.start) @ self.frame.T
            scaled = local / np.array(self.radii)
            length = np.linalg.norm(scaled, axis=-1)
            return length * (length - 1) / np.maximum(np.linalg.norm(scaled / np.array(self.radii), axis=-1), 1e-9)
        scale = np.array([1, 1, 1 / self.thin])
        along, local = (self.end - self.start) * scale, (points - self.start) * scale
        share = np.clip(local @ along / (along @ along), 0, 1)
        radius = self.radii[0] + share * (self.radii[1] - self.radii[0])
        return (np.linalg.norm(local - share[:, None] * along, axis=-1) - radius) * self.thin


def _palm() -> list[Part]:
    """Forearm, carpus, metacarpals, pads of the palm, and the web of the thumb; in mm."""

    def mm(*values: float) -> Array:
        return np.array(values) / 1000

    cmc, mcp = THUMB.joints[0], THUMB.joints[1]
    along = unit(mcp - cmc)
    across = unit(np.cross(along, unit(np.array([-0.55, 0.2, 0.8]))))
    thenar = np.stack([across, along, np.cross(across, along)])
    parts = [
        Part("wrist", mm(0, -70, -1.5), mm(0, 6, -0.5), (0.0295, 0.0270), 0.0, thin=0.67),
        Part("wrist", mm(-1, 4, 0), mm(-1, 24, 0), (0.0265, 0.0270), 0.012, thin=0.66),
    ]
    carpals = (mm(15, 18, -0.5), mm(5, 20, -1.5), mm(-6, 19, -1), mm(-17, 17, 1.5))
    for finger, carpal, radius in zip(FINGERS[1:], carpals, (0.0115, 0.0118, 0.0112, 0.0104)):
        parts.append(Part("wrist", carpal, finger.joints[0], (0.0125, radius), 0.012))
        # Knuckles stand out on the back.
        knuckle = (0.75 * radius, radius, 0.7 * radius)
        parts.append(Part("wrist", finger.joints[0] + mm(0, 1, -1e3 * radius * 0.42), carpal, knuckle, 0.004))
    index, little = FINGERS[1].joints[0], FINGERS[4].joints[0]
    parts += [
        Part("wrist", index + mm(-1, -8, 7.5), little + mm(3, -6, 6.5), (0.0085, 0.0085), 0.010),
        Part("wrist", mm(-22, 36, 8), mm(0, 0, 0), (0.0135, 0.032, 0.0125), 0.012),
        Part("thumb_1", cmc, mcp, (0.0125, 0.0112), 0.012),
        Part("thumb_1", 0.45 * cmc + 0.55 * mcp + mm(-8, 1, 1.5), mm(0, 0, 0), (0.0145, 0.026, 0.0125), 0.012, thenar),
    ]
    # A sheet between the metacarpals of thumb and index finger.
    for first, second, radius in ((0.35, 0.45, 0.0095), (0.62, 0.62, 0.0075), (0.85, 0.80, 0.0055)):
        start, end = cmc + first * (mcp - cmc), carpals[0] + second * (index - carpals[0])
        parts.append(Part("wrist", start, end + mm(0, 0, 2), (radius, radius + 0.001), 0.011))
    return parts


def _finger(finger: Finger) -> list[Part]:
    """Phalanges, their pads on the palm's side, and wider joints."""
    places, radii = finger.joints, finger.radii
    first = 1 if finger is THUMB else 0
    names = [f"{finger.name}_{i}" for i in (1, 2, 3)]
    tip = places[3] - radii[3] * finger.direction(2)
    ends = [*places[:3], tip]
    parts = []
    for bone in range(first, 3):
        a, b, ra, rb = ends[bone], ends[bone + 1], radii[bone], radii[bone + 1]
        along, palmar = finger.direction(bone), finger.palmar(bone)
        frame = np.stack([finger.flexion_axis(bone), along, palmar])
        length = float(np.linalg.norm(b - a))
        parts.append(Part(names[bone], a, b, (ra, rb), 0.003))
        if bone < 2:
            middle, size = a + (0.52 if bone else 0.60) * (b - a), (ra + rb) / 2
            pad = (0.86 * size, 0.40 * length, 0.62 * size)
            parts.append(Part(names[bone], middle + 0.42 * size * palmar, a, pad, 0.003, frame))
            knuckle = (1.02 * rb, 0.8 * rb, 0.95 * rb)
            parts.append(Part(names[bone + 1], b - 0.11 * rb * palmar, b, knuckle, 0.002, frame))
        else:
            pulp = (0.88 * rb + 0.0006, 0.46 * length, 0.62 * rb)
            parts.append(Part(names[bone], a + 0.68 * (b - a) + 0.42 * rb * palmar, a, pulp, 0.005, frame))
    return parts


GROUPS = (_palm(), *(_finger(finger) for finger in FINGERS))
PARTS = [part for group in GROUPS for part in group]
_WEB, _FINGER_BLEND = 0.006, 0.006


def _webs() -> list[Part]:
    """Skin between the first phalanges of neighboring fingers."""
    parts = []
    for one, other in pairwise(FINGERS[1:]):
        share = 0.40
        ends = [f.joints[0] + share * (f.joints[1] - f.joints[0]) + 0.0015 * PALM for f in (one, other)]
        parts.append(Part("wrist", ends[0], ends[1], (0.0045, 0.0045), 0.006))
    return parts


WEBS = _webs()


def _smooth_min(first: Array, second: Array, blend: float) -> Array:
    if blend <= 0:
        return np.minimum(first, second)
    h = np.clip(0.5 + 0.5 * (first - second) / blend, 0, 1)
    return first * (1 - h) + second * h - blend * h * (1 - h)


def distance(points: Array) -> Array:
    """Signed distance of the whole hand, smooth where parts meet (polynomial smooth minimum)."""
    total = np.full(len(points), np.inf)
    for number, group in enumerate(GROUPS):
        own = group[0].distances(points)
        for part in group[1:]:
            own = _smooth_min(own, part.distances(points), part.blend)
        total = own if number == 0 else _smooth_min(total, own, _FINGER_BLEND)
    for web in WEBS:
        total = _smooth_min(total, web.distances(points), web.blend)
    return total


def gradient(points: Array, step: float = 1e-5) -> Array:
    """Gradient of the distance, by central differences."""
    shifts = step * np.eye(3)
    return np.stack([(distance(points + s) - distance(points - s)) / (2 * step) for s in shifts], -1)


def projected(points: Array, flat: Mask | None = None, rounds: int = 4) -> Array:
    """The points moved onto the surface along the gradient; those of `flat` keep their height y."""
    for _ in range(rounds):
        slope = gradient(points)
        if flat is not None:
            slope[flat, 1] = 0
        points = points - (distance(points) / np.maximum((slope**2).sum(-1), 0.05))[:, None] * slope
    return points
