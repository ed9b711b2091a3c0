"""Families of cars: side views, from which `vehicles.car` lofts a body."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """The side view of a family of cars; lengths along x in fractions of the total length from the rear end."""

    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    tail: float
    """Height of the rear end below the rear window, in fractions of the height."""
    nose: float
    """Height of the front end of the hood."""
    cowl: tuple[float, float]
    """Foot of the windscreen: x, height."""
    roof: tuple[float, float]
    """Rear and front end of the roof, x."""
    deck: tuple[float, float]
    """Foot of the rear window: x, height."""
    belt: float
    """Height of the lower edge of the side windows."""
    axles: tuple[float, float] = (0.19, 0.80)
    wheel: float = 0.32
    """Radius [m]."""
    clearance: float = 0.19
    tumble: float = 0.16
    """Inward lean of the side windows: half width lost from the belt to the roof, in fractions."""
    has_rear_windows: bool = True
    bed: bool = False
    """Whether it is a pickup."""


PROFILES = {
    "city": Profile(
        (2.6, 3.6), (1.50, 1.68), (1.46, 1.58), 0.62, 0.50, (0.78, 0.63), (0.10, 0.60), (0.02, 0.62), 0.60, wheel=0.28
    ),
    "hatchback": Profile((3.6, 4.3), (1.62, 1.80), (1.40, 1.54), 0.62, 0.47, (0.745, 0.62), (0.12, 0.53), (0.015, 0.62), 0.60),
    "sedan": Profile((4.2, 4.95), (1.68, 1.88), (1.38, 1.50), 0.62, 0.46, (0.71, 0.61), (0.26, 0.50), (0.13, 0.665), 0.61),
    "wagon": Profile((4.2, 4.9), (1.68, 1.86), (1.40, 1.53), 0.60, 0.46, (0.715, 0.61), (0.075, 0.51), (0.01, 0.60), 0.60),
    "suv": Profile(
        (4.1, 4.9),
        (1.78, 1.98),
        (1.60, 1.84),
        0.58,
        0.55,
        (0.735, 0.63),
        (0.08, 0.54),
        (0.01, 0.60),
        0.60,
        wheel=0.37,
        clearance=0.25,
        tumble=0.13,
    ),
    "minivan": Profile(
        (4.2, 4.9), (1.72, 1.90), (1.60, 1.82), 0.55, 0.46, (0.80, 0.58), (0.06, 0.58), (0.01, 0.55), 0.54, tumble=0.13
    ),
    "coupe": Profile(
        (4.0, 4.6), (1.70, 1.88), (1.25, 1.38), 0.66, 0.48, (0.66, 0.64), (0.30, 0.46), (0.06, 0.69), 0.65, tumble=0.2
    ),
    "pickup": Profile(
        (4.9, 5.5),
        (1.75, 1.95),
        (1.70, 1.88),
        0.56,
        0.55,
        (0.74, 0.62),
        (0.42, 0.56),
        (0.385, 0.60),
        0.60,
        wheel=0.38,
        clearance=0.28,
        tumble=0.12,
        bed=True,
    ),
    # held out for validation
    "fastback": Profile((4.4, 4.9), (1.76, 1.90), (1.40, 1.50), 0.65, 0.44, (0.73, 0.60), (0.30, 0.49), (0.035, 0.68), 0.63),
    "crossover": Profile(
        (4.0, 4.5),
        (1.74, 1.86),
        (1.52, 1.64),
        0.60,
        0.52,
        (0.74, 0.63),
        (0.14, 0.52),
        (0.02, 0.64),
        0.62,
        wheel=0.34,
        clearance=0.22,
    ),
    "boxy": Profile(
        (3.6, 4.6),
        (1.62, 1.80),
        (1.70, 1.92),
        0.55,
        0.54,
        (0.76, 0.57),
        (0.02, 0.70),
        (0.0, 0.55),
        0.55,
        wheel=0.35,
        clearance=0.24,
        tumble=0.05,
    ),
    "van": Profile(
        (4.4, 5.9),
        (1.80, 2.05),
        (1.85, 2.55),
        0.45,
        0.42,
        (0.86, 0.46),
        (0.02, 0.72),
        (0.0, 0.45),
        0.45,
        wheel=0.33,
        clearance=0.22,
        tumble=0.08,
        has_rear_windows=False,
    ),
    "minibus": Profile(
        (4.8, 5.9),
        (1.88, 2.05),
        (1.90, 2.40),
        0.45,
        0.42,
        (0.87, 0.46),
        (0.02, 0.74),
        (0.0, 0.45),
        0.45,
        wheel=0.33,
        clearance=0.22,
        tumble=0.07,
    ),
}
VALIDATION = ("fastback", "crossover", "boxy", "minibus")
"""Families that are never trained on."""
