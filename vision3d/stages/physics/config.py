"""Options of the physics stage: materials, obstacles, and what a simulation is."""

import math
from dataclasses import dataclass, field
from typing import Literal

from vision3d.errors import ConfigError, nearest_names

Vector = tuple[float, float, float]

ALIASES: dict[str, tuple[str, ...]] = {
    "corotated": ("elastic", "jelly", "fixed_corotated"),
    "neo_hookean": ("neohookean", "neohooken", "rubber"),
    "hencky": ("stvk",),
    "von_mises": ("metal", "plasticine"),
    "drucker_prager": ("sand",),
    "snow": (),
    "water": ("fluid", "liquid"),
    "viscoplastic": ("foam", "paste"),
    "stationary": ("static", "fixed"),
}
"""The laws, and other names that they are known by; an alias changes no parameter (presets do)."""


@dataclass(frozen=True)
class Material:
    """What a body is made of. Presets: jelly, rubber, metal, sand, snow, water, foam (`configs/physics/`).

    Example:
        >>> Material("sand", friction_deg=35.0).law
        'drucker_prager'
    """

    law: str = "corotated"
    """corotated, neo_hookean, hencky, von_mises, drucker_prager, snow, water, viscoplastic, stationary, or an alias of
    docs/simulate.md."""
    youngs_modulus: float = 1e6
    """Stiffness at small strains [Pa]."""
    poisson_ratio: float = 0.2
    """How much it narrows when pulled, 0 to less than 0.5; more than 0 for water, whose bulk modulus is lambda."""
    density: float = 1000.0
    """Mass of a volume at rest [kg/m^3]."""
    yield_stress: float = 1e4
    """Norm of the deviator of the Kirchhoff stress where von_mises begins to flow; of viscoplastic sqrt(3/2) of it [Pa]."""
    hardening: float = 0.0
    """Of von_mises: the yield stress grows by 2 mu times this for each unit of plastic strain."""
    friction_deg: float = 30.0
    """Of drucker_prager: angle of internal friction [degrees], 0 to less than 90."""
    viscosity: float = 10.0
    """Of viscoplastic: resistance to flow beyond the yield stress [Pa s]; 0 flows at once."""
    critical_compression: float = 0.025
    """Of snow: strain at which it begins to pack, 0 to less than 1."""
    critical_stretch: float = 0.0045
    """Of snow: strain at which it begins to crumble."""
    packing: float = 10.0
    """Of snow: exponent of hardening, moduli times exp(packing (1 - Jp))."""
    max_packing: float = 10.0
    """Of snow: the moduli grow by no more than this factor, for the time step's sake."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", law_name(self.law))
        for name in ("youngs_modulus", "density", "yield_stress"):
            self._check(name, getattr(self, name) > 0, "a number > 0")
        self._check("poisson_ratio", 0 <= self.poisson_ratio < 0.5, "at least 0 and less than 0.5")
        if self.law == "water":
            self._check("poisson_ratio", self.poisson_ratio > 0, "more than 0 for water, whose bulk modulus is lambda")
        self._check("friction_deg", 0 <= self.friction_deg < 90, "at least 0 and less than 90 degrees")
        self._check("critical_compression", 0 <= self.critical_compression < 1, "at least 0 and less than 1")
        for name in ("hardening", "viscosity", "critical_stretch", "packing"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        self._check("max_packing", self.max_packing >= 1, "at least 1")

    @property
    def mu(self) -> float:
        """Shear modulus [Pa], E / (2 (1 + nu)); that of water is not used."""
        return self.youngs_modulus / (2 * (1 + self.poisson_ratio))

    @property
    def lam(self) -> float:
        """Lamé's first parameter lambda [Pa], E nu / ((1 + nu) (1 - 2 nu))."""
        return self.youngs_modulus * self.poisson_ratio / ((1 + self.poisson_ratio) * (1 - 2 * self.poisson_ratio))

    @property
    def friction_slope(self) -> float:
        """alpha of Drucker and Prager: |dev tau| <= 3 alpha p, from the friction angle in triaxial compression."""
        sine = math.sin(math.radians(self.friction_deg))
        return math.sqrt(2 / 3) * 2 * sine / (3 - sine)

    @property
    def wave_speed(self) -> float:
        """Speed of pressure waves [m/s], sqrt((lambda + 2 mu) / density); of snow as far packed as can be."""
        if self.law == "stationary":
            return 0.0
        stiffness = self.lam if self.law == "water" else self.lam + 2 * self.mu
        return math.sqrt(stiffness * (self.max_packing if self.law == "snow" else 1.0) / self.density)

    def _check(self, name: str, is_right: bool, want: str) -> None:
        value = getattr(self, name)
        if not is_right or not math.isfinite(value):
            raise ConfigError(name, f"got {value}, want {want}")


@dataclass(frozen=True)
class Boundary:
    """A solid that particles meet."""

    shape: Literal["plane", "box", "sphere", "mesh"] = "plane"
    """plane: solid is what lies behind it. Others: solid is their inside, or their outside (`hollow`)."""
    center: Vector = (0.0, 0.0, 0.0)
    """A point of the plane, or the centre (of a mesh: where its origin is), at the time `start` [m]."""
    normal: Vector = (0.0, 0.0, 1.0)
    """Of the plane, towards the free side; any length > 0."""
    half_size: Vector = (0.5, 0.5, 0.5)
    """Half the edges of the box, along its own axes [m]."""
    radius: float = 0.5
    """Of the sphere [m]."""
    mesh: str = ""
    """Of a mesh: which one."""
    hollow: bool = False
    """Of box, sphere and mesh: whether it is a container."""
    kind: Literal["sticky", "slip", "separate"] = "separate"
    """sticky: nothing moves against it; slip: nothing moves through its surface either way; separate: nothing moves inwards."""
    friction: float = 0.0
    """Coulomb's coefficient, of slip and separate; at least 0."""
    velocity: Vector = (0.0, 0.0, 0.0)
    """Of the solid's centre [m/s]."""
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """How box and mesh are turned at the time `start`, wxyz, own axes to those of the world; any length > 0."""
    angular_velocity: Vector = (0.0, 0.0, 0.0)
    """About the centre, along the axes of the world [rad/s]."""
    start: float = 0.0
    """Time from which it is there [s]."""
    end: float = math.inf
    """Time from which it is gone [s]."""

    def __post_init__(self) -> None:
        for name, choices in (("shape", ("plane", "box", "sphere", "mesh")), ("kind", ("sticky", "slip", "separate"))):
            if getattr(self, name) not in choices:
                raise ConfigError(name, f"got {getattr(self, name)!r}, want one of {', '.join(choices)}")
        for name in ("center", "normal", "half_size", "velocity", "angular_velocity"):
            if len(getattr(self, name)) != 3 or not all(map(math.isfinite, getattr(self, name))):
                raise ConfigError(name, f"got {getattr(self, name)}, want three numbers")
        if len(self.quat) != 4 or not all(map(math.isfinite, self.quat)) or not any(self.quat):
            raise ConfigError("quat", f"got {self.quat}, want four numbers, not all 0")
        if (self.shape == "mesh") != bool(self.mesh):
            raise ConfigError("mesh", f"got {self.mesh!r} for shape {self.shape}, want a mesh for shape mesh and for no other")
        if not any(self.normal):
            raise ConfigError("normal", "got (0, 0, 0), want a direction")
        if min(self.half_size) <= 0:
            raise ConfigError("half_size", f"got {self.half_size}, want lengths > 0")
        if not 0 < self.radius < math.inf:
            raise ConfigError("radius", f"got {self.radius}, want a length > 0")
        if not 0 <= self.friction < math.inf:
            raise ConfigError("friction", f"got {self.friction}, want a number of at least 0")
        if not self.start < self.end:
            raise ConfigError("end", f"got {self.end}, want a time after start = {self.start}")


@dataclass(frozen=True)
class SimulateConfig:
    """Let a scene, or a part of it, move."""

    material: Material = field(default_factory=Material)
    """What moves is made of this."""
    engine: Literal["reference"] = "reference"
    """reference: plain torch in float64, for small scenes."""
    frames: int = 50
    """Frames, the first one at rest; at least 1."""
    fps: float = 24.0
    """Frames per second of simulated time."""
    cells: int = 16
    """Cells of the grid along the longest side of what moves; at least 2."""
    size: float | None = None
    """Longest side of what moves [m], for scenes whose unit is none [default: the scene is in metres]."""
    up: Vector = (0.0, 0.0, 1.0)
    """Upward direction in the scene, any length > 0."""
    gravity: float = 9.81
    """Downward acceleration [m/s^2]."""
    velocity: Vector = (0.0, 0.0, 0.0)
    """Of what moves at the start, along the axes of the scene [m/s]."""
    drop: float | None = 0.25
    """How far below what moves the floor is, in its longest side; None: no floor."""
    floor_kind: Literal["sticky", "slip", "separate"] = "separate"
    """Contact with the floor, as of boundaries."""
    friction: float = 0.4
    """Of the floor."""
    boundaries: tuple[Boundary, ...] = ()
    """Obstacles in the scene's axes and units; velocities in m/s."""
    room: float = 0.5
    """Space on all sides of what moves, in its longest side; what reaches its end is held there."""
    min_opacity: float = 0.02
    """Fainter Gaussians are not simulated: they follow those around them."""
    max_particles: int = 20_000
    """If there are more Gaussians, this many are drawn to be simulated, and the others follow them."""
    max_stretch: float = 1.5
    """Gaussians are shown no longer or shorter than their rest lengths times or over this; the motion is not touched."""
    max_memory: float = 4.0
    """No grid that needs more is begun [GB]."""
    seed: int = 0
    """Of the drawing."""

    def __post_init__(self) -> None:
        for name, least in (
            ("frames", 1),
            ("cells", 2),
            ("max_particles", 1),
            ("room", 0),
            ("friction", 0),
            ("min_opacity", 0),
        ):
            self._check(name, getattr(self, name) >= least, f"at least {least}")
        for name in ("fps", "max_memory"):
            self._check(name, getattr(self, name) > 0, "a number > 0")
        self._check("size", self.size is None or self.size > 0, "a length > 0")
        self._check("drop", self.drop is None or self.drop >= 0, "at least 0")
        self._check("gravity", True, "a number")
        self._check("min_opacity", self.min_opacity < 1, "less than 1")
        self._check("max_stretch", self.max_stretch >= 1, "at least 1")
        for name, choices in (("engine", ("reference",)), ("floor_kind", ("sticky", "slip", "separate"))):
            if getattr(self, name) not in choices:
                raise ConfigError(name, f"got {getattr(self, name)!r}, want one of {', '.join(choices)}")
        for name in ("up", "velocity"):
            if len(getattr(self, name)) != 3 or not all(map(math.isfinite, getattr(self, name))):
                raise ConfigError(name, f"got {getattr(self, name)}, want three numbers")
        if not any(self.up):
            raise ConfigError("up", "got (0, 0, 0), want a direction")

    def _check(self, name: str, is_right: bool, want: str) -> None:
        value = getattr(self, name)
        if not is_right or (value is not None and not math.isfinite(value)):
            raise ConfigError(name, f"got {value}, want {want}")


def law_name(name: str) -> str:
    """The law of a name or alias; case, spaces and hyphens don't matter.

    Raises:
        ConfigError: There is none of this name; lists all.
    """
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    for law, aliases in ALIASES.items():
        if plain == law or plain in aliases:
            return law
    names = [*ALIASES, *(alias for aliases in ALIASES.values() for alias in aliases)]
    hint = f"{hint} " if (hint := nearest_names(plain, names)).startswith("did you") else ""
    listed = ", ".join(f"{law} ({', '.join(aliases)})" if aliases else law for law, aliases in ALIASES.items())
    raise ConfigError("law", f"{name!r} is no material; {hint}all: {listed}")
