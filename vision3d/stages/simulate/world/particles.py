"""State of every engine: particles with masses, velocities and deformations, and the grid they interact through."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.stages.simulate.config import Material
from vision3d.stages.simulate.materials.laws import energy_density
from vision3d.stages.simulate.materials.plasticity import initial_memory


@dataclass(frozen=True, eq=False)
class Particles:
    """N particles of one or several bodies."""

    x: Float[Tensor, "n 3"]
    """Positions [m]."""
    v: Float[Tensor, "n 3"]
    """Velocities [m/s]."""
    C: Float[Tensor, "n 3 3"]
    """Gradients of the velocity [1/s]; the affine part of APIC."""
    F: Float[Tensor, "n 3 3"]
    """Elastic deformation gradients, initially the identity; for plastic materials not the total deformation."""
    F_total: Float[Tensor, "n 3 3"]
    """Total deformation gradients since the rest state, including plastic flow: they deform the shapes of Gaussians."""
    memory: Float[Tensor, " n"]
    """Internal variable of the material (`plasticity`)."""
    mass: Float[Tensor, " n"]
    """Masses [kg]."""
    volume: Float[Tensor, " n"]
    """Volumes in the rest state [m^3]."""
    body: Int64[Tensor, " n"]
    """Index of each particle's material."""
    motion: Int64[Tensor, " n"]
    """Index into `World.motions` of each kinematic particle; -1: free."""

    @classmethod
    def at_rest(
        cls,
        x: Float[Tensor, "n 3"],
        volume: Float[Tensor, " n"],
        materials: Sequence[Material],
        body: Int64[Tensor, " n"] | None = None,
        *,
        v: Float[Tensor, "n 3"] | None = None,
        C: Float[Tensor, "n 3 3"] | None = None,
        motion: Int64[Tensor, " n"] | None = None,
    ) -> "Particles":
        """Creates undeformed particles; masses follow from volumes and densities.

        Args:
            x: Positions [m].
            volume: Volumes [m^3]; 0 for tracers, which have no mass and follow the others.
            materials: One per body.
            body: Index into `materials`; all 0 when None.
            v: Velocities; 0 when None.
            C: Velocity gradients; 0 when None. Without them, a body that starts rotating loses energy in its first step.
            motion: Index into `World.motions`; -1, none, when None.

        Raises:
            ShapeError: Shapes do not match.
            InputError: No particles, a value is not finite, a volume is < 0, or a body has no material.
        """
        count = len(x)
        for name, value, shape in (("x", x, (count, 3)), ("volume", volume, (count,))):
            if tuple(value.shape) != shape:
                raise ShapeError(f"Particles.{name}", tuple(value.shape), shape)
        if count == 0:
            raise InputError("Particles: got none, want at least one")
        body = torch.zeros(count, dtype=torch.int64, device=x.device) if body is None else body
        v = torch.zeros_like(x) if v is None else v
        C = x.new_zeros(count, 3, 3) if C is None else C
        motion = torch.full_like(body, -1) if motion is None else motion
        for name, value in (("x", x), ("v", v), ("C", C), ("volume", volume)):
            if not bool((is_finite := value.isfinite().flatten(1).all(-1) if value.ndim > 1 else value.isfinite()).all()):
                raise InputError(f"Particles.{name}: {int((~is_finite).sum())} of {count} rows are not finite")
        if not bool((volume >= 0).all()) or not bool((volume > 0).any()):
            raise InputError(f"Particles.volume: {int((volume <= 0).sum())} of {count} are not > 0; only tracers have none")
        if int(body.min()) < 0 or int(body.max()) >= len(materials):
            raise InputError(f"Particles.body: got {int(body.min())} to {int(body.max())}, want 0 to {len(materials) - 1}")
        density = x.new_tensor([material.density for material in materials])
        eye = torch.eye(3, dtype=x.dtype, device=x.device).repeat(count, 1, 1)
        memory = x.new_zeros(count)
        for index, material in enumerate(materials):
            memory = torch.where(body == index, initial_memory(material, eye), memory)
        return cls(x, v, C, eye, eye, memory, volume * density[body], volume, body, motion)

    @property
    def momentum(self) -> Float[Tensor, " 3"]:
        """Sum of mass times velocity [kg m/s]."""
        return (self.mass[:, None] * self.v).sum(0)

    @property
    def center(self) -> Float[Tensor, " 3"]:
        """Center of mass [m]."""
        return (self.mass[:, None] * self.x).sum(0) / self.mass.sum()

    def angular_momentum(self, spacing: float) -> Float[Tensor, " 3"]:
        """About the origin [kg m^2/s]: x cross v, plus the part that APIC stores in C, the axis of h^2/4 m (C - C^T).

        Jiang et al. 2015, section 5.3; this sum is what the transfers conserve.
        """
        C = self.C
        inner = torch.stack([C[:, 2, 1] - C[:, 1, 2], C[:, 0, 2] - C[:, 2, 0], C[:, 1, 0] - C[:, 0, 1]], -1)
        return (self.mass[:, None] * (torch.linalg.cross(self.x, self.v) + spacing**2 / 4 * inner)).sum(0)

    def kinetic_energy(self, spacing: float) -> Float[Tensor, ""]:
        """Kinetic energy, including that of velocity gradients within a cell [J]."""
        inner = spacing**2 / 4 * self.C.square().sum((-2, -1))
        return (self.mass * (self.v.square().sum(-1) + inner)).sum() / 2

    def elastic_energy(self, materials: Sequence[Material]) -> Float[Tensor, ""]:
        """Elastic energy [J]."""
        total = self.x.new_zeros(())
        for index, material in enumerate(materials):
            rows = self.body == index
            total = total + (self.volume[rows] * energy_density(material, self.F[rows], self.memory[rows])).sum()
        return total

    def replace(self, **values: Tensor) -> "Particles":
        """A copy with other values."""
        return replace(self, **values)  # pyright: ignore[reportArgumentType]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Grid:
    """A box of equally spaced nodes."""

    origin: tuple[float, float, float]
    """Position of the first node [m]."""
    spacing: float
    """Distance of adjacent nodes [m]."""
    shape: tuple[int, int, int]
    """Nodes along x, y and z."""
    padding: int = 3
    """Layers of nodes at the sides that block outward velocities; 0: none."""

    def __post_init__(self) -> None:
        if not 0 < self.spacing < float("inf"):
            raise ConfigError("spacing", f"got {self.spacing}, want a length > 0")
        if self.padding < 0 or min(self.shape) < max(2 * self.padding + 1, 4):
            want = max(2 * max(self.padding, 0) + 1, 4)
            raise ConfigError("shape", f"got {self.shape} nodes with padding {self.padding}, want at least {want} per side")

    @property
    def num_nodes(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def node_indices(self, rows: Int64[Tensor, " g"]) -> Int64[Tensor, "g 3"]:
        """Indices along x, y and z of nodes by number, z fastest."""
        _, width, depth = self.shape
        return torch.stack([rows // (width * depth), rows // depth % width, rows % depth], -1)

    def node_positions(self, rows: Int64[Tensor, " g"], like: Tensor) -> Float[Tensor, "g 3"]:
        """Positions [m] of nodes by number, in the float type of `like`."""
        return self.node_indices(rows).to(like) * self.spacing + like.new_tensor(self.origin)

    def bounds(self, like: Tensor) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """Bounds of particle positions [m] within which all 27 nodes around them exist, rounding included."""
        origin, sides = like.new_tensor(self.origin), like.new_tensor(self.shape) * self.spacing
        rounding = 8 * torch.finfo(like.dtype).eps * (origin.abs() + sides).amax()
        return origin + 0.5 * self.spacing + rounding, origin + sides - 1.5 * self.spacing - rounding
