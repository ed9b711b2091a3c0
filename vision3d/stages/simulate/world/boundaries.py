"""Obstacles and containers: planes, boxes, spheres and meshes that constrain the grid's velocities, with friction.

Kinds as in Taichi Elements; Coulomb friction is proportional to the normal velocity that contact removes (Stomakhin et al.
2013, eq. 11).
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.stages.simulate.config import Boundary
from vision3d.stages.simulate.world.particles import Grid
from vision3d.stages.simulate.world.world import DistanceField, rotation_by


def distance(
    boundary: Boundary, points: Float[Tensor, "n 3"], time: float = 0.0, field: DistanceField | None = None
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Signed distances [m] from the surface, negative in the solid, and unit normals towards the free side.

    Args:
        boundary: The solid.
        points: Positions [m].
        time: Time, for moving solids [s].
        field: Distance field, for boundaries of shape mesh.
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
    """Center at a time [m]."""
    x, y, z = (c + (time - boundary.start) * v for c, v in zip(boundary.center, boundary.velocity))
    return x, y, z


def is_there(boundary: Boundary, time: float) -> bool:
    """Whether the time is within its window."""
    return boundary.start <= time < boundary.end


def after_contact(
    boundary: Boundary,
    v: Float[Tensor, "n 3"],
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    time: float = 0.0,
    friction_scale: Float[Tensor, " n"] | float = 1.0,
) -> Float[Tensor, "n 3"]:
    """Velocities [m/s] after contact of material at points on the surface.

    Args:
        boundary: The solid.
        v: Velocities before contact [m/s].
        points: Positions [m].
        normals: Unit normals, towards the free side.
        time: Time, for moving solids [s].
        friction_scale: Factor of friction for the material at each point, at least 0.
    """
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
        friction = boundary.friction * torch.as_tensor(friction_scale).to(v)[..., None]
        kept = (1 - friction * pressed / torch.where(speed == 0, 1, speed)).clamp(min=0)
        after = kept * along
        if boundary.kind == "separate":
            after = torch.where(inward < 0, after, relative)
    return after + own


def ways_out(normals: Float[Tensor, "n 3"]) -> Int64[Tensor, " n"]:
    """Grid direction of the shortest way out of a solid: twice the axis, plus 1 towards its negative end.

    Near ties go to the first, so that rounding does not decide.
    """
    size = normals.abs()
    axis = torch.where(size[:, 1] > size[:, 0] + _EQUAL, 1, 0)
    axis = torch.where(size[:, 2] > size.gather(1, axis[:, None])[:, 0] + _EQUAL, 2, axis)
    return 2 * axis + (normals.gather(1, axis[:, None])[:, 0] < 0)


def apply(
    boundary: Boundary,
    v: Float[Tensor, "n 3"],
    mass: Float[Tensor, " n"],
    rows: Int64[Tensor, " n"],
    grid: Grid,
    time: float = 0.0,
    field: DistanceField | None = None,
    friction_scale: Float[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, "n 3"], float]:
    """Velocities of the grid's nodes after contact, and the work done by the solid [J].

    Where the surface is between a node inside and its neighbor outwards, the velocity interpolated at the surface is
    constrained. The change is an impulse on both nodes by their weights, so the resting height depends on the surface and not
    on the nodes around it. Deeper nodes are constrained individually. Solids of kind `separate` act where material has reached
    their surface (`touches`); the others act on material within 1.5 cells.

    Args:
        boundary: The solid.
        v: Velocities of nodes with mass [m/s].
        mass: Masses of these nodes [kg].
        rows: Their indices, ascending.
        grid: The grid.
        time: Time, for moving solids and time windows [s].
        field: Distance field, for boundaries of shape mesh.
        friction_scale: Factor of friction for the material at the nodes; 1 when None.
    """
    if not is_there(boundary, time) or not len(rows):
        return v, 0.0
    points, indices = grid.node_positions(rows, v), grid.node_indices(rows)
    distances, normals = distance(boundary, points, time, field)
    ways = torch.where(distances < 0, ways_out(normals), -1)
    strides = torch.tensor([grid.shape[1] * grid.shape[2], grid.shape[2], 1], device=v.device)
    v, work = v.clone(), 0.0
    for way in range(6):  # pairs along one direction share no node
        inner = (ways == way).nonzero()[:, 0]
        if not len(inner):
            continue
        axis, sign = way // 2, 1 - 2 * (way % 2)
        beyond = indices[inner, axis] + sign
        wanted = rows[inner] + sign * strides[axis]
        outer = torch.searchsorted(rows, wanted).clamp(max=len(rows) - 1)
        is_next = (beyond >= 0) & (beyond < grid.shape[axis]) & (rows[outer] == wanted)
        heights = distances[outer]
        share = torch.where(is_next & (heights >= 0), distances[inner] / (distances[inner] - heights), 0.0)
        if boundary.kind == "separate":
            deep = -distances[inner] / (normals[inner, axis].abs() * grid.spacing)
            reached = touches(mass[inner], torch.where(is_next, mass[outer], 0.0), torch.where(share > 0, share, deep))
            inner, outer, share = inner[reached], outer[reached], share[reached]
        outer = torch.where(share > 0, outer, inner)
        rest = 1 - share
        step = torch.zeros_like(points[inner])
        step[:, axis] = sign * grid.spacing * share
        before = rest[:, None] * v[inner] + share[:, None] * v[outer]
        scale = 1.0 if friction_scale is None else rest * friction_scale[inner] + share * friction_scale[outer]
        after = after_contact(boundary, before, points[inner] + step, normals[inner], time, scale)
        impulse = (after - before) / (rest.square() / mass[inner] + share.square() / mass[outer])[:, None]
        v.index_add_(0, inner, (rest / mass[inner])[:, None] * impulse)
        v.index_add_(0, outer, (share / mass[outer])[:, None] * impulse)
        work += float((impulse * after).sum())
    return v, work


def touches(mass: Float[Tensor, " n"], next_mass: Float[Tensor, " n"], height: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Whether material has reached a surface above a node.

    Nodes get mass from up to 1.5 cells away, before contact. At contact, the masses of the node and its neighbor outwards have
    the ratio of a half-space of material that ends at the surface, or a larger one; it does not depend on the width or density
    of the material.

    Args:
        mass: Masses of nodes in the solid [kg].
        next_mass: Masses of their neighbors outwards [kg].
        height: Height of the surface above the first nodes [cells].
    """
    return mass * _half_space(height - 1) >= next_mass * _half_space(height)


def _half_space(height: Tensor) -> Tensor:
    """Mass, up to a factor, that a node has of a half-space of material up to `height` cells above it: layers of particles half
    a cell apart, the first a quarter of a cell inside."""
    layers = 0.25 + 0.5 * torch.arange(6, dtype=height.dtype, device=height.device)
    far = (height[..., None] + layers).abs()
    return torch.where(far < 0.5, 0.75 - far.square(), 0.5 * (1.5 - far).clamp(min=0).square()).sum(-1)


_EQUAL = 1e-3


def _box(offsets: Tensor, half_size: Tensor) -> tuple[Tensor, Tensor]:
    beyond = offsets.abs() - half_size
    outside = beyond.clamp(min=0)
    far = torch.linalg.vector_norm(outside, dim=-1)
    depth, axis = beyond.max(-1)
    # Inside: the nearest face; outside: the nearest point of the surface.
    face = torch.nn.functional.one_hot(axis, 3).to(offsets)
    directions = torch.where((far > 0)[:, None], outside / torch.where(far == 0, 1, far)[:, None], face)
    signs = torch.where(offsets < 0, -1.0, 1.0).to(offsets)
    return torch.where(far > 0, far, depth), directions * signs


def _sampled(points: Tensor, field: DistanceField) -> tuple[Tensor, Tensor]:
    """Trilinear distances and directions of their gradients; everything outside the box is free."""
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
