"""Everything constant while particles move: grid, materials, gravity, boundaries, wind and prescribed motions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ConfigError, NumericalError
from vision3d.geometry.rotation import hat
from vision3d.stages.simulate.config import Boundary, Material, Motion, Vector, Wind
from vision3d.stages.simulate.world.particles import Grid

STANDARD_GRAVITY = 9.81  # m/s^2


@dataclass(frozen=True, eq=False)
class DistanceField:
    """Signed distances of a solid at the nodes of a box, in the solid's own frame; points outside the box are free."""

    values: Float[Tensor, "x y z"]
    """[m], negative inside the solid."""
    origin: Vector
    """Position of the first node [m]."""
    spacing: float
    """Distance of adjacent nodes [m]."""

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or min(self.values.shape) < 2:
            raise ConfigError("values", f"got shape {tuple(self.values.shape)}, want (x, y, z) with at least 2 nodes per side")
        if not bool(self.values.isfinite().all()):
            raise ConfigError("values", "not all distances are finite")


@dataclass(frozen=True)
class World:
    """The environment of particles."""

    grid: Grid
    materials: tuple[Material, ...]
    """One per body."""
    gravity: Vector = (0.0, 0.0, -STANDARD_GRAVITY)
    """[m/s^2]."""
    boundaries: tuple[Boundary, ...] = ()
    """Applied one after the other."""
    fields: Mapping[str, DistanceField] = field(default_factory=dict)
    """Distance fields of boundaries of shape `mesh`, by their `mesh`."""
    winds: tuple[Wind, ...] = ()
    """Applied before boundaries."""
    motions: tuple[Motion, ...] = ()
    """Indexed by `Particles.motion`."""

    def __post_init__(self) -> None:
        if len(self.gravity) != 3 or not all(map(math.isfinite, self.gravity)):
            raise ConfigError("gravity", f"got {self.gravity}, want three numbers")
        if not self.materials:
            raise ConfigError("materials", "got none, want one for each body")
        for boundary in self.boundaries:
            if boundary.shape == "mesh" and boundary.mesh not in self.fields:
                raise ConfigError("fields", f"there is none for the boundary of mesh {boundary.mesh!r}")

    def during(self, begin: float, end: float) -> "World":
        """The same world with only the boundaries that are there between two times [s], and their fields."""
        there = tuple(boundary for boundary in self.boundaries if boundary.start < end and begin < boundary.end)
        names = {boundary.mesh for boundary in there}
        kept = {name: field for name, field in self.fields.items() if name in names}
        return replace(self, boundaries=there, fields=kept)


@dataclass(frozen=True)
class Advance:
    """Result of one engine call."""

    steps: int
    """Time steps taken."""
    shortest_dt: float
    """[s]."""
    last_dt: float
    """[s]."""
    num_kept: int
    """Number of times a particle was clamped to the grid."""
    work: float = 0.0
    """Work of boundaries, grid sides, wind and motions on the particles [J]: impulses times the velocities after them.

    Kinetic, elastic and potential energy minus this work never rises, except for errors of finite time steps; losses of an
    impact are not counted as work.
    """


def next_dt(left: float, longest: float) -> float:
    """Length of the next of equal steps of at most `longest` that end after `left`, which avoids a tiny last step."""
    return left / max(math.ceil(left / longest - 1e-9), 1)


def check_finite(steps: int, *values: Tensor) -> None:
    """Raises if a value is not finite.

    Raises:
        NumericalError: A value is not finite.
    """
    if not all(bool(value.isfinite().all()) for value in values):
        raise NumericalError(steps, "position or deformation", "Check velocities and stiffness of the input")


def rotation_by(angular_velocity: Vector, time: float) -> Float[Tensor, "3 3"]:
    """Rotation after time `time` [s], float64."""
    # Not so3_exp: its first call imports torch's compiler, 2 s.
    return torch.linalg.matrix_exp(hat(torch.tensor(angular_velocity, dtype=torch.float64) * time))
