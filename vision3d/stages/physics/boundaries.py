"""Obstacles and containers: planes, boxes and balls that stop the grid's velocities, with friction.

Kinds as in Taichi Elements; friction is Coulomb's on what the contact takes from the normal velocity (Stomakhin et al. 2013,
eq. 11).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.errors import ConfigError

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Boundary:
    """A solid that particles meet."""

    shape: Literal["plane", "box", "sphere"] = "plane"
    """plane: solid is what lies behind it. box and sphere: solid is their inside, or their outside (`hollow`)."""
    center: Vector = (0.0, 0.0, 0.0)
    """A point of the plane, or the centre, at the time `start` [m]."""
    normal: Vector = (0.0, 0.0, 1.0)
    """Of the plane, towards the free side; any length > 0."""
    half_size: Vector = (0.5, 0.5, 0.5)
    """Half the edges of the box, along the axes of the world [m]."""
    radius: float = 0.5
    """Of the sphere [m]."""
    hollow: bool = False
    """Of box and sphere: whether it is a container."""
    kind: Literal["sticky", "slip", "separate"] = "separate"
    """sticky: nothing moves against it; slip: nothing moves through its surface either way; separate: nothing moves inwards."""
    friction: float = 0.0
    """Coulomb's coefficient, of slip and separate; at least 0."""
    velocity: Vector = (0.0, 0.0, 0.0)
    """Of the solid [m/s]."""
    start: float = 0.0
    """Time from which it is there [s]."""
    end: float = math.inf
    """Time from which it is gone [s]."""

    def __post_init__(self) -> None:
        for name, choices in (("shape", ("plane", "box", "sphere")), ("kind", ("sticky", "slip", "separate"))):
            if getattr(self, name) not in choices:
                raise ConfigError(name, f"got {getattr(self, name)!r}, want one of {', '.join(choices)}")
        for name in ("center", "normal", "half_size", "velocity"):
            if len(getattr(self, name)) != 3 or not all(map(math.isfinite, getattr(self, name))):
                raise ConfigError(name, f"got {getattr(self, name)}, want three numbers")
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

    def distance(self, points: Float[Tensor, "n 3"], time: float = 0.0) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Signed distances [m] from the surface, negative in the solid, and unit normals towards the free side."""
        center = points.new_tensor(self.center) + (time - self.start) * points.new_tensor(self.velocity)
        offsets = points - center
        if self.shape == "plane":
            normal = torch.nn.functional.normalize(points.new_tensor(self.normal), dim=0)
            return offsets @ normal, normal.expand_as(points)
        if self.shape == "sphere":
            lengths = torch.linalg.vector_norm(offsets, dim=-1)
            up = points.new_tensor([0.0, 0.0, 1.0])
            normals = torch.where(lengths[:, None] == 0, up, offsets / torch.where(lengths == 0, 1, lengths)[:, None])
            distances = lengths - self.radius
        else:
            distances, normals = _box(offsets, points.new_tensor(self.half_size))
        return (-distances, -normals) if self.hollow else (distances, normals)

    def is_there(self, time: float) -> bool:
        """Whether the time is within its window."""
        return self.start <= time < self.end

    def apply(self, v: Float[Tensor, "n 3"], points: Float[Tensor, "n 3"], time: float = 0.0) -> Float[Tensor, "n 3"]:
        """Velocities after contact; those outside the solid, and all outside its time window, stay."""
        if not self.is_there(time):
            return v
        distances, normals = self.distance(points, time)
        own = v.new_tensor(self.velocity)
        relative = v - own
        inward = (relative * normals).sum(-1, keepdim=True)
        if self.kind == "sticky":
            after = torch.zeros_like(relative)
        else:
            along = relative - inward * normals
            speed = torch.linalg.vector_norm(along, dim=-1, keepdim=True)
            pressed = (-inward).clamp(min=0)
            kept = (1 - self.friction * pressed / torch.where(speed == 0, 1, speed)).clamp(min=0)
            after = kept * along
            if self.kind == "separate":
                after = torch.where(inward < 0, after, relative)
        return torch.where((distances < 0)[:, None], after + own, v)


def _box(offsets: Tensor, half_size: Tensor) -> tuple[Tensor, Tensor]:
    beyond = offsets.abs() - half_size
    outside = beyond.clamp(min=0)
    far = torch.linalg.vector_norm(outside, dim=-1)
    depth, axis = beyond.max(-1)
    # Inside, the nearest face; outside, the nearest point of the surface.
    face = torch.nn.functional.one_hot(axis, 3).to(offsets)
    directions = torch.where((far > 0)[:, None], outside / torch.where(far == 0, 1, far)[:, None], face)
    signs = torch.where(offsets < 0, -1.0, 1.0).to(offsets)
    return torch.where(far > 0, far, depth), directions * signs
