"""Obstacles and containers: planes, boxes, balls and meshes that stop the grid's velocities, with friction.

Kinds as in Taichi Elements; friction is Coulomb's on what the contact takes from the normal velocity (Stomakhin et al. 2013,
eq. 11).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.stages.physics.config import Boundary
from vision3d.stages.physics.world import DistanceField, rotation_by


def distance(
    boundary: Boundary, points: Float[Tensor, "n 3"], time: float = 0.0, field: DistanceField | None = None
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Signed distances [m] from the surface, negative in the solid, and unit normals towards the free side.

    Args:
        boundary: The solid.
        points: Positions [m].
        time: For solids that move [s].
        field: Of boundaries of the shape mesh.
    """
    offsets = points - points.new_tensor(center_at(boundary, time))
    turn = rotation_by(boundary.angular_velocity, time - boundary.start).to(points)
    if boundary.shape == "plane":
        normal = turn @ torch.nn.functional.normalize(points.new_tensor(boundary.normal), dim=0)
        return offsets @ normal, normal.expand_as(points)
    if boundary.shape == "sphere":
        lengths = torch.linalg.vector_norm(offsets, dim=-1)
        up = points.new_tensor([0.0, 0.0, 1.0])
        normals = torch.where(lengths[:, None] == 0, up, offsets / torch.where(lengths == 0, 1, lengths)[:, None])
        distances = lengths - boundary.radius
    else:
        rotmat = turn @ quat_to_rotmat(points.new_tensor(boundary.quat))
        if boundary.shape == "box":
            distances, normals = _box(offsets @ rotmat, points.new_tensor(boundary.half_size))
        else:
            assert field is not None
            distances, normals = _sampled(offsets @ rotmat, field)
        normals = normals @ rotmat.mT
    return (-distances, -normals) if boundary.hollow else (distances, normals)


def center_at(boundary: Boundary, time: float) -> tuple[float, float, float]:
    """Where the centre is [m]."""
    x, y, z = (c + (time - boundary.start) * v for c, v in zip(boundary.center, boundary.velocity))
    return x, y, z


def is_there(boundary: Boundary, time: float) -> bool:
    """Whether the time is within its window."""
    return boundary.start <= time < boundary.end


def apply(
    boundary: Boundary,
    v: Float[Tensor, "n 3"],
    points: Float[Tensor, "n 3"],
    time: float = 0.0,
    field: DistanceField | None = None,
) -> Float[Tensor, "n 3"]:
    """Velocities after contact; those outside the solid, and all outside its time window, stay."""
    if not is_there(boundary, time):
        return v
    distances, normals = distance(boundary, points, time, field)
    arms = points - points.new_tensor(center_at(boundary, time))
    own = v.new_tensor(boundary.velocity) + torch.linalg.cross(v.new_tensor(boundary.angular_velocity).expand_as(arms), arms)
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


def _sampled(points: Tensor, field: DistanceField) -> tuple[Tensor, Tensor]:
    """Trilinear distances and their gradients' directions; beyond the box everything is free."""
    values = field.values.to(points)
    last = torch.tensor(values.shape, device=points.device) - 1
    scaled = (points - points.new_tensor(field.origin)) / field.spacing
    is_beyond = ((scaled < 0) | (scaled > last)).any(-1)
    cells = torch.minimum(scaled.clamp(min=0).floor().long(), last - 1)
    f = torch.minimum(scaled.clamp(min=0), last) - cells
    corners = torch.stack(
        [values[cells[:, 0] + i, cells[:, 1] + j, cells[:, 2] + k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], -1
    ).unflatten(-1, (2, 2, 2))
    weights = torch.stack([1 - f, f], -1)  # n, axis, side
    distances = torch.einsum("nijk,ni,nj,nk->n", corners, weights[:, 0], weights[:, 1], weights[:, 2])
    slopes = torch.tensor([-1.0, 1.0], dtype=points.dtype, device=points.device)
    gradient = torch.stack(
        [
            torch.einsum("nijk,i,nj,nk->n", corners, slopes, weights[:, 1], weights[:, 2]),
            torch.einsum("nijk,ni,j,nk->n", corners, weights[:, 0], slopes, weights[:, 2]),
            torch.einsum("nijk,ni,nj,k->n", corners, weights[:, 0], weights[:, 1], slopes),
        ],
        -1,
    )
    lengths = torch.linalg.vector_norm(gradient, dim=-1)
    up = points.new_tensor([0.0, 0.0, 1.0])
    normals = torch.where(lengths[:, None] > 0, gradient / torch.where(lengths > 0, lengths, 1)[:, None], up)
    return torch.where(is_beyond, torch.inf, distances), normals
