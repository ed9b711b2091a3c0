"""Obstacles and containers: planes, boxes and balls that stop the grid's velocities, with friction.

Kinds as in Taichi Elements; friction is Coulomb's on what the contact takes from the normal velocity (Stomakhin et al. 2013,
eq. 11).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.stages.physics.config import Boundary


def distance(
    boundary: Boundary, points: Float[Tensor, "n 3"], time: float = 0.0
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Signed distances [m] from the surface, negative in the solid, and unit normals towards the free side."""
    center = points.new_tensor(boundary.center) + (time - boundary.start) * points.new_tensor(boundary.velocity)
    offsets = points - center
    if boundary.shape == "plane":
        normal = torch.nn.functional.normalize(points.new_tensor(boundary.normal), dim=0)
        return offsets @ normal, normal.expand_as(points)
    if boundary.shape == "sphere":
        lengths = torch.linalg.vector_norm(offsets, dim=-1)
        up = points.new_tensor([0.0, 0.0, 1.0])
        normals = torch.where(lengths[:, None] == 0, up, offsets / torch.where(lengths == 0, 1, lengths)[:, None])
        distances = lengths - boundary.radius
    else:
        distances, normals = _box(offsets, points.new_tensor(boundary.half_size))
    return (-distances, -normals) if boundary.hollow else (distances, normals)


def is_there(boundary: Boundary, time: float) -> bool:
    """Whether the time is within its window."""
    return boundary.start <= time < boundary.end


def apply(boundary: Boundary, v: Float[Tensor, "n 3"], points: Float[Tensor, "n 3"], time: float = 0.0) -> Float[Tensor, "n 3"]:
    """Velocities after contact; those outside the solid, and all outside its time window, stay."""
    if not is_there(boundary, time):
        return v
    distances, normals = distance(boundary, points, time)
    own = v.new_tensor(boundary.velocity)
    relative = v - own
    inward = (relative * normals).sum(-1, keepdim=True)
    if boundary.kind == "sticky":
        after = torch.zeros_like(relative)
    else:
        along = relative - inward * normals
        speed = torch.linalg.vector_norm(along, dim=-1, keepdim=True)
        pressed = (-inward).clamp(min=0)
        kept = (1 - boundary.friction * pressed / torch.where(speed == 0, 1, speed)).clamp(min=0)
        after = kept * along
        if boundary.kind == "separate":
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
