"""Options of materials: law and parameters."""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

from vision3d.core.config import load_yaml
from vision3d.core.errors import ConfigError, nearest_names

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
"""The laws and their aliases; an alias changes no parameter (presets do)."""


@dataclass(frozen=True)
class Material:
    """Material of a body. Presets: jelly, rubber, metal, sand, snow, water, foam (`configs/materials/`).

    Example:
        >>> Material("sand", friction_deg=35.0).law
        'drucker_prager'
    """

    PRESETS: ClassVar[str] = "materials"  # YAML may have a preset name instead of it, or as its key `preset`

    law: str = "corotated"
    """corotated, neo_hookean, hencky, von_mises, drucker_prager, snow, water, viscoplastic, stationary, or an alias of
    docs/simulate.md."""
    youngs_modulus: float = 1e6
    """Stiffness at small strains [Pa]."""
    poisson_ratio: float = 0.2
    """Lateral contraction under tension, 0 to less than 0.5; more than 0 for water, whose bulk modulus is lambda."""
    density: float = 1000.0
    """Density in the rest state [kg/m^3]."""
    yield_stress: float = 1e4
    """Norm of the deviator of the Kirchhoff stress at which von_mises starts to flow; for viscoplastic sqrt(3/2) of it [Pa]."""
    hardening: float = 0.0
    """For von_mises: the yield stress increases by 2 mu times this for each unit of plastic strain."""
    friction_deg: float = 30.0
    """For drucker_prager: angle of internal friction [degrees], 0 to less than 90."""
    viscosity: float = 10.0
    """For viscoplastic: viscosity beyond the yield stress [Pa s]; 0 flows at once."""
    critical_compression: float = 0.025
    """For snow: critical compression, the strain at which it starts to pack, 0 to less than 1."""
    critical_stretch: float = 0.0045
    """For snow: critical stretch, the strain at which it starts to fracture."""
    packing: float = 10.0
    """For snow: exponent of hardening, moduli times exp(packing (1 - Jp))."""
    max_packing: float = 10.0
    """For snow: maximum factor on the moduli, which bounds the time step."""
    friction_scale: float | None = None
    """Factor on the friction coefficients of the floor and other obstacles, at least 0 [default: 0 for water, else 1]."""

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
        self._check("friction_scale", self.contact_friction >= 0, "at least 0")

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
    def contact_friction(self) -> float:
        """`friction_scale`, or its default for the law."""
        if self.friction_scale is not None:
            return self.friction_scale
        return 0.0 if self.law == "water" else 1.0

    @property
    def wave_speed(self) -> float:
        """Speed of pressure waves [m/s], sqrt((lambda + 2 mu) / density); for snow at maximum packing."""
        if self.law == "stationary":
            return 0.0
        stiffness = self.lam if self.law == "water" else self.lam + 2 * self.mu
        return math.sqrt(stiffness * (self.max_packing if self.law == "snow" else 1.0) / self.density)

    def _check(self, name: str, is_right: bool, want: str) -> None:
        value = getattr(self, name)
        if not is_right or (value is not None and not math.isfinite(value)):
            raise ConfigError(name, f"got {value}, want {want}")


@functools.cache
def jelly() -> Material:
    """The default preset."""
    return load_yaml(Material, "jelly", stage=Material.PRESETS)


def law_name(name: str) -> str:
    """The law for a name or alias; case, spaces and hyphens are ignored.

    Raises:
        ConfigError: The name is unknown; the message lists all.
    """
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    for law, aliases in ALIASES.items():
        if plain == law or plain in aliases:
            return law
    names = [*ALIASES, *(alias for aliases in ALIASES.values() for alias in aliases)]
    hint = f"{hint} " if (hint := nearest_names(plain, names)).startswith("did you") else ""
    listed = ", ".join(f"{law} ({', '.join(aliases)})" if aliases else law for law, aliases in ALIASES.items())
    raise ConfigError("law", f"{name!r} is not a material; {hint}all: {listed}")
