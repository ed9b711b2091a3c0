"""MLS-MPM in plain torch, float64 for float64 input: the reference for the other engines.

Hu et al. 2018, section 4 (moving least squares), with the affine transfers of Jiang et al. 2015 and quadratic B-splines:

    F* = (I + dt C) F, then plastic flow; tau = P F^T
    (m v)_i += w_ip (m v_p + (m C_p - dt V_p 4/h^2 tau_p) (x_i - x_p)),  m_i += w_ip m_p
    v_i = (m v)_i / m_i + dt g, then boundaries
    v_p = sum w v_i,  C_p = 4/h^2 sum w v_i (x_i - x_p)^T,  x_p += dt v_p
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.geometry.rotation import hat
from vision3d.stages.simulate.config import Material
from vision3d.stages.simulate.materials.laws import kirchhoff_stress
from vision3d.stages.simulate.materials.plasticity import return_map
from vision3d.stages.simulate.world import boundaries as contact
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.time_step import stable_dt
from vision3d.stages.simulate.world.world import Advance, World, check_finite, next_dt, rotation_by

MAX_STRETCH = 1e6
"""Bound on the deformation of free-flying drops, which would grow without limit; beyond it they keep their shape and size."""


def weights(
    x: Float[Tensor, "n 3"], grid: Grid
) -> tuple[Int64[Tensor, "n 27"], Float[Tensor, "n 27"], Float[Tensor, "n 27 3"]]:
    """The 27 nodes around each particle, their weights (quadratic B-splines), and offsets x_i - x_p [m].

    Weights sum to 1, their first moment is 0 and their second h^2/4 times the identity.
    """
    scaled = (x - x.new_tensor(grid.origin)) / grid.spacing
    base = (scaled - 0.5).floor()
    f = scaled - base  # 0.5 to 1.5
    line = torch.stack([(1.5 - f).square() / 2, 0.75 - (f - 1).square(), (f - 0.5).square() / 2], -1)  # n, axis, node
    w = (line[:, 0, :, None, None] * line[:, 1, None, :, None] * line[:, 2, None, None, :]).flatten(1)
    steps = torch.cartesian_prod(*[torch.arange(3, device=x.device)] * 3)
    strides = torch.tensor([grid.shape[1] * grid.shape[2], grid.shape[2], 1], device=x.device)
    nodes = ((base.long()[:, None] + steps) * strides).sum(-1)
    return nodes, w, (steps.to(x) - f[:, None]) * grid.spacing


def deform(particles: Particles, materials: Sequence[Material], dt: float) -> tuple[Particles, Float[Tensor, "n 3 3"]]:
    """Deformations after dt of the velocity gradients, with plastic flow, and the resulting Kirchhoff stresses [Pa]."""
    step = torch.eye(3, dtype=particles.x.dtype, device=particles.x.device) + dt * particles.C
    F, memory, tau = step @ particles.F, particles.memory.clone(), torch.zeros_like(particles.F)
    for index, material in enumerate(materials):
        rows = (particles.body == index).nonzero()[:, 0]
        if len(rows):
            F[rows], memory[rows] = return_map(material, F[rows], memory[rows], dt)
            tau[rows] = kirchhoff_stress(material, F[rows], memory[rows])
    total = step @ particles.F_total
    total = total * (MAX_STRETCH / total.abs().amax((-2, -1), keepdim=True)).clamp(max=1)
    return particles.replace(F=F, memory=memory, F_total=total), tau


def particle_to_grid(
    particles: Particles, tau: Float[Tensor, "n 3 3"], grid: Grid, dt: float
) -> tuple[Float[Tensor, " g"], Float[Tensor, "g 3"]]:
    """Masses [kg] and momenta [kg m/s] of the nodes."""
    nodes, w, offsets = weights(particles.x, grid)
    impulse = -dt * 4 / grid.spacing**2 * particles.volume[:, None, None] * tau
    affine = impulse + particles.mass[:, None, None] * particles.C
    momenta = w[..., None] * ((particles.mass[:, None] * particles.v)[:, None] + offsets @ affine.mT)
    mass, momentum = w.new_zeros(grid.num_nodes), w.new_zeros(grid.num_nodes, 3)
    mass.index_add_(0, nodes.flatten(), (w * particles.mass[:, None]).flatten())
    momentum.index_add_(0, nodes.flatten(), momenta.flatten(0, 1))
    return mass, momentum


def node_friction(particles: Particles, world: World, mass: Float[Tensor, " g"]) -> Float[Tensor, " g"] | None:
    """`Material.contact_friction` at the nodes, averaged by mass; None if it is 1 for all materials.

    Water next to a solid shares nodes with it: there the friction is weighted by the solid's fraction of the mass.
    """
    scales = particles.x.new_tensor([material.contact_friction for material in world.materials])
    if bool((scales == 1).all()):
        return None
    nodes, w, _ = weights(particles.x, world.grid)
    lacking = torch.zeros_like(mass)
    lacking.index_add_(0, nodes.flatten(), (w * (particles.mass * (1 - scales[particles.body]))[:, None]).flatten())
    return (1 - lacking / torch.where(mass > 0, mass, 1)).clamp(min=0)


def grid_step(
    mass: Float[Tensor, " g"],
    momentum: Float[Tensor, "g 3"],
    world: World,
    time: float,
    dt: float,
    friction_scale: Float[Tensor, " g"] | None = None,
) -> tuple[Float[Tensor, "g 3"], float]:
    """Velocities [m/s] of the nodes after gravity, wind and boundaries, 0 at nodes without mass.

    Also the work [J] of wind, boundaries and sides (`Advance.work`). `friction_scale` is that of `node_friction`.
    """
    rows = (mass > 0).nonzero()[:, 0]  # most of the grid is empty
    v = momentum[rows] / mass[rows, None] + dt * momentum.new_tensor(world.gravity)
    positions = world.grid.node_positions(rows, v)
    before = v
    for wind in world.winds:
        if wind.start <= time < wind.end:
            is_in = ((positions >= v.new_tensor(wind.low)) & (positions <= v.new_tensor(wind.high))).all(-1, keepdim=True)
            v = torch.where(is_in, v - math.expm1(-wind.drag * dt) * (v.new_tensor(wind.velocity) - v), v)
    work = _work(mass[rows], before, v)
    for boundary in world.boundaries:
        field = world.fields.get(boundary.mesh)
        scales = None if friction_scale is None else friction_scale[rows]
        v, given = contact.apply(boundary, v, mass[rows], rows, world.grid, time, field, scales)
        work += given
    before, v = v, _walls(v, rows, world.grid)
    work += _work(mass[rows], before, v)
    return torch.zeros_like(momentum).index_copy_(0, rows, v), work


def grid_to_particle(
    particles: Particles, v: Float[Tensor, "g 3"], world: World, dt: float, time: float = 0.0
) -> tuple[Particles, Bool[Tensor, " n"], float]:
    """Particles moved by the grid or their prescribed motion, a mask of those clamped to the grid, and the work
    [J] of motions."""
    grid = world.grid
    nodes, w, offsets = weights(particles.x, grid)
    weighted = w[..., None] * v[nodes]
    new_v = weighted.sum(1)
    C = 4 / grid.spacing**2 * weighted.mT @ offsets
    rests = torch.tensor([m.law == "stationary" for m in world.materials], device=v.device)[particles.body]
    new_v, C = torch.where(rests[:, None], 0, new_v), torch.where(rests[:, None, None], 0, C)
    free, work = particles.x + dt * new_v, 0.0
    for index, motion in enumerate(world.motions):
        rows = (particles.motion == index).nonzero()[:, 0]
        if not motion.is_on(time) or not len(rows):
            continue
        before_v, before_C = new_v[rows], C[rows]
        spin = v.new_tensor(motion.angular_velocity)
        arms = particles.x[rows] - v.new_tensor(motion.center_at(time))
        arms = arms @ rotation_by(motion.angular_velocity, dt).to(v).mT
        free = free.index_copy(0, rows, v.new_tensor(motion.center_at(time + dt)) + arms)
        new_v = new_v.index_copy(0, rows, v.new_tensor(motion.velocity) + torch.linalg.cross(spin.expand_as(arms), arms))
        C = C.index_copy(0, rows, hat(spin).expand(len(rows), 3, 3).contiguous())
        linear = ((new_v[rows] - before_v) * new_v[rows]).sum(-1)
        inner = grid.spacing**2 / 4 * ((C[rows] - before_C) * C[rows]).sum((-2, -1))
        work += float((particles.mass[rows] * (linear + inner)).sum())
    low, high = grid.bounds(v)
    x = free.clamp(low, torch.nextafter(high, low))
    return particles.replace(x=x, v=new_v, C=C), (x != free).any(-1), work


def substep(particles: Particles, world: World, dt: float, time: float = 0.0) -> tuple[Particles, Bool[Tensor, " n"], float]:
    """One time step; also a mask of particles clamped to the grid, and `Advance.work`."""
    particles, tau = deform(particles, world.materials, dt)
    mass, momentum = particle_to_grid(particles, tau, world.grid, dt)
    v, work = grid_step(mass, momentum, world, time, dt, node_friction(particles, world, mass))
    particles, was_kept, work_of_parts = grid_to_particle(particles, v, world, dt, time)
    return particles, was_kept, work + work_of_parts


@dataclass(frozen=True)
class Energies:
    """Total energies of all particles [J]."""

    kinetic: float
    elastic: float
    potential: float
    """Gravitational energy, 0 at the origin."""

    @property
    def total(self) -> float:
        return self.kinetic + self.elastic + self.potential


def energies(particles: Particles, world: World, last_dt: float) -> Energies:
    """Energies in the middle of the last step, where velocities are defined: positions half a step ago, deformations around it.

    After a step x is at its end, F at its beginning and v in the middle. Without this correction the sum of the energies would
    oscillate by as much as the elastic energy changes in a step.

    Args:
        particles: After a step.
        world: Gravity, materials and spacing are used.
        last_dt: Length of that step [s]; 0 at the start.
    """
    ahead, _ = deform(particles, world.materials, last_dt)
    elastic = (particles.elastic_energy(world.materials) + ahead.elastic_energy(world.materials)) / 2
    kinetic = float(particles.kinetic_energy(world.grid.spacing))
    return Energies(kinetic, float(elastic), potential_energy(particles, world, last_dt))


def potential_energy(particles: Particles, world: World, last_dt: float) -> float:
    """Gravitational energy [J], in the middle of the last step."""
    middle = (particles.x - last_dt / 2 * particles.v).double()
    return -float((particles.mass[:, None] * middle * middle.new_tensor(world.gravity)).sum())


def advance(
    particles: Particles,
    world: World,
    duration: float,
    time: float = 0.0,
    max_dt: float = math.inf,
    on_step: Callable[[Particles, float], None] | None = None,
) -> tuple[Particles, Advance]:
    """Advance particles by `duration` [s] with stable time steps (`time_step.stable_dt`), recomputed for each.

    Args:
        particles: Inside the grid.
        world: Grid, materials, gravity, boundaries.
        duration: > 0.
        time: Start time, for boundaries with a time window.
        max_dt: Maximum time step [s].
        on_step: Called with the particles and the time after each step.

    Raises:
        NumericalError: A value is no longer finite.
    """
    done, steps, kept, work, shortest, dt = 0.0, 0, 0, 0.0, math.inf, 0.0
    while duration - done > 1e-9 * duration:
        dt = next_dt(duration - done, min(stable_dt(particles, world.materials, world.grid.spacing, steps), max_dt))
        particles, was_kept, given = substep(particles, world, dt, time + done)
        done, steps, kept, work = done + dt, steps + 1, kept + int(was_kept.sum()), work + given
        shortest = min(shortest, dt)
        if on_step is not None:
            on_step(particles, time + done)
    check_finite(steps, particles.x, particles.F_total)
    return particles, Advance(steps, shortest, dt, kept, work)


def _work(mass: Tensor, before: Tensor, after: Tensor) -> float:
    return float((mass * ((after - before) * after).sum(-1)).sum())


def _walls(v: Tensor, rows: Tensor, grid: Grid) -> Tensor:
    indices, last = grid.node_indices(rows), torch.tensor(grid.shape, device=rows.device) - 1
    v = torch.where(indices < grid.padding, v.clamp(min=0), v)
    return torch.where(indices > last - grid.padding, v.clamp(max=0), v)
