"""What surfaces return of a LiDAR's pulse at about 900 nm, by material."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Material:
    albedo: float
    """Share of the pulse that a surface facing the sensor scatters, in [0, 1]; above 1 for retroreflectors."""
    roughness: float = 0.2
    """Share of the return that does not depend on the incidence angle: rough surfaces face the sensor in part."""
    gloss: float = 1.0
    """Exponent of the cosine of the incidence angle; glossy paint has more than the 1 of a Lambertian surface."""
    transmission: float = 0.0
    """Share of the pulses that continue behind the surface, in [0, 1]."""
    depth: float = 0.0
    """Standard deviation of the distance due to structure that a mesh does not show, such as blades of grass [m]."""


MATERIALS = {
    "default": Material(0.5),
    "paint": Material(0.4, 0.12, 1.6),
    "glass": Material(0.06, 0.02, 6.0, 0.75),
    "window": Material(0.10, 0.05, 3.0, 0.0),
    "tyre": Material(0.07, 0.5),
    "trim": Material(0.10, 0.3),
    "chrome": Material(0.6, 0.1, 3.0),
    "plate": Material(6.0, 0.5),
    "lamp": Material(1.2, 0.2),
    "interior": Material(0.12, 0.5),
    "asphalt": Material(0.22, 0.45, depth=0.005),
    "pavement": Material(0.33, 0.4),
    "grass": Material(0.40, 0.7, depth=0.05),
    "soil": Material(0.30, 0.6, depth=0.02),
    "marking": Material(0.9, 0.5),
    "wall": Material(0.45, 0.3),
    "roof": Material(0.30, 0.3),
    "wood": Material(0.40, 0.4),
    "bark": Material(0.28, 0.5, depth=0.015),
    "leaf": Material(0.42, 0.6, depth=0.05),
    "metal": Material(0.35, 0.15, 1.5),
    "sign": Material(8.0, 0.6),
    "plastic": Material(0.30, 0.25),
    "skin": Material(0.50, 0.3),
    "hair": Material(0.15, 0.5, depth=0.01),
    "cloth": Material(0.45, 0.4, depth=0.01),
    "trousers": Material(0.35, 0.4, depth=0.01),
    "shoes": Material(0.20, 0.4),
    "bag": Material(0.30, 0.4),
}
NAMES = tuple(MATERIALS)
INDEX = {name: i for i, name in enumerate(NAMES)}
DEFAULT = INDEX["default"]


def table(field: str) -> np.ndarray:
    """One property of all materials, (materials,) float32."""
    return np.array([getattr(material, field) for material in MATERIALS.values()], np.float32)
