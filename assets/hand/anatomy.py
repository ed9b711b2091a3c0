"""Joints of the hand: a right hand, fingers along y, palm facing z, thumb at +x, the wrist joint at the origin. In meters.

Proportions are those of an adult hand of 0.19 m from the wrist crease to the tip of the middle finger.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

WRIST_CUT = -0.012
"""Height y of the plane in which the surface ends [m]."""
PALM = np.array([0.0, 0.0, 1.0])
"""Direction that the palm faces."""


def unit(vector: Array) -> Array:
    """The vector with length 1."""
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True)
class Finger:
    """Four points from the first joint to the tip, radii at them, and the direction of the pads."""

    name: str
    joints: Array
    """(4, 3); the last one is on the surface."""
    radii: tuple[float, float, float, float]
    """Half of the breadth at the three joints and near the tip [m]."""
    pad: Array
    """Direction in which the finger flexes, roughly."""

    def direction(self, bone: int) -> Array:
        """From joint `bone` to the next one."""
        return unit(self.joints[bone + 1] - self.joints[bone])

    def palmar(self, bone: int) -> Array:
        """`pad`, orthogonal to a bone."""
        along = self.direction(bone)
        return unit(self.pad - (self.pad @ along) * along)

    def flexion_axis(self, bone: int) -> Array:
        """Axis of a rotation, counter-clockwise, that moves a bone to its pad's side."""
        return np.cross(self.direction(bone), self.palmar(bone))


def _finger(
    name: str, base: tuple[float, ...], spread: float, lengths: tuple[float, ...], radii: tuple[float, float, float, float]
) -> Finger:
    """A finger that is almost straight.

    Args:
        name: Its name.
        base: MCP joint [mm].
        spread: Angle towards the thumb [degrees].
        lengths: Of the phalanges, the last with the soft tip [mm].
        radii: Half of the breadth at the joints and near the tip [mm].
    """
    aside, places = np.radians(spread), [np.array(base)]
    for length, bend in zip(lengths, np.radians([3.0, 7.0, 10.0])):
        along = np.array([np.sin(aside) * np.cos(bend), np.cos(aside) * np.cos(bend), np.sin(bend)])
        places.append(places[-1] + length * along)
    first, second, third, last = (radius / 1000 for radius in radii)
    return Finger(name, np.array(places) / 1000, (first, second, third, last), PALM)


THUMB = Finger(
    "thumb",
    np.array([[23.0, 19.0, 7.0], [48.5, 54.0, 20.0], [63.5, 81.0, 25.5], [74.0, 105.0, 28.5]]) / 1000,
    (0.0125, 0.0112, 0.0106, 0.0088),
    np.array([-0.88, 0.25, 0.40]),
)
FINGERS = (
    THUMB,
    _finger("index", (24.0, 89.5, -1.0), 5.5, (40.5, 23.5, 20.5), (10.0, 9.4, 8.4, 7.2)),
    _finger("middle", (3.0, 92.5, -2.0), 0.5, (44.5, 27.0, 21.5), (10.2, 9.6, 8.6, 7.4)),
    _finger("ring", (-16.5, 87.0, -0.5), -5.0, (41.5, 25.5, 21.0), (9.6, 9.0, 8.0, 6.9)),
    _finger("little", (-34.0, 78.0, 2.5), -12.0, (33.0, 19.0, 19.0), (8.7, 8.0, 7.2, 6.2)),
)

NAMES = ("wrist", *(f"{finger.name}_{i}" for finger in FINGERS for i in (1, 2, 3)))
"""Joints that move the mesh."""
PARENTS = (-1, *(0 if i == 0 else 3 * f + i for f in range(5) for i in range(3)))
PLACES = np.concatenate([np.zeros((1, 3)), *(finger.joints[:3] for finger in FINGERS)])
"""(16, 3)."""
KEYPOINTS = np.concatenate([np.zeros((1, 3)), *(finger.joints for finger in FINGERS)])
"""(21, 3): the wrist, then the joints and the tip of each finger."""
