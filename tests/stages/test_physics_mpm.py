import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from tests.support.particles import lattice
from vision3d.core.errors import ConfigError, InputError, NumericalError, ShapeError
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats
from vision3d.stages.simulate.config import Boundary, Material
from vision3d.stages.simulate.engines.mpm import (
    advance,
    deform,
    energies,
    grid_step,
    grid_to_particle,
    particle_to_grid,
    substep,
    weights,
)
from vision3d.stages.simulate.world import boundaries as contact
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.time_step import stable_dt
from vision3d.stages.simulate.world.world import World

H = 1 / 16
GRID = Grid((0.0, 0.0, 0.0), H, (17, 17, 17), padding=0)
JELLY = Material("jelly", youngs_modulus=1e4, poisson_ratio=0.3)
FREE = World(GRID, (JELLY,), gravity=(0.0, 0.0, 0.0))


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def block(cells, corner):
    return lattice(cells, corner, H)


def random_particles(count, materials=(JELLY,)):
    """Anywhere in the grid, with random velocities, gradients and masses."""
    x = 0.2 + 0.6 * torch.rand(count, 3, dtype=torch.float64)
    volume = torch.rand(count, dtype=torch.float64) * H**3 + 1e-6
    v, C = torch.randn(count, 3, dtype=torch.float64), torch.randn(count, 3, 3, dtype=torch.float64)
    return Particles.at_rest(x, volume, materials, v=v, C=C)


def spinning(omega):
    """A block of 64 cubic half cells that rotates about its center, with the matching velocity gradient."""
    x, volume = block((3, 3, 3), (0.41, 0.4, 0.39))
    W = torch.tensor([[0, -omega[2], omega[1]], [omega[2], 0, -omega[0]], [-omega[1], omega[0], 0]], dtype=torch.float64)
    v = (x - x.mean(0)) @ W.T
    return Particles.at_rest(x, volume, (JELLY,), v=v, C=W.expand(len(x), -1, -1).clone())


# Transfers


def test_weights_have_the_moments_of_quadratic_splines():
    x = 0.1 + 0.8 * torch.rand(500, 3, dtype=torch.float64)
    nodes, w, offsets = weights(x, GRID)
    positions = GRID.node_positions(nodes.flatten(), x).view(500, 27, 3)
    torch.testing.assert_close(positions - x[:, None], offsets)
    assert (w >= 0).all()
    torch.testing.assert_close(w.sum(1), torch.ones(500).double())
    torch.testing.assert_close((w[..., None] * offsets).sum(1), torch.zeros(500, 3).double(), atol=1e-15, rtol=0)
    second = (w[..., None, None] * offsets[..., :, None] * offsets[..., None, :]).sum(1)
    torch.testing.assert_close(second, (H**2 / 4 * torch.eye(3)).double().expand(500, 3, 3), atol=1e-16, rtol=0)


def test_one_transfer_conserves_mass_momentum_and_angular_momentum():
    particles = random_particles(300)
    tau = torch.randn(300, 3, 3).double()
    tau = tau + tau.mT  # any symmetric stress, as internal forces exert no torque
    mass, momentum = particle_to_grid(particles, tau, GRID, 1e-3)
    positions = GRID.node_positions(torch.arange(GRID.num_nodes), mass)
    torch.testing.assert_close(mass.sum(), particles.mass.sum())
    torch.testing.assert_close(momentum.sum(0), particles.momentum)
    angular = torch.linalg.cross(positions, momentum).sum(0)
    torch.testing.assert_close(angular, particles.angular_momentum(H), atol=1e-14, rtol=1e-12)
    after, _, _ = grid_to_particle(particles, grid_step(mass, momentum, FREE, 0.0, 1e-3)[0], FREE, 1e-3)
    torch.testing.assert_close(after.momentum, particles.momentum, atol=1e-15, rtol=1e-12)
    torch.testing.assert_close(after.angular_momentum(H), particles.angular_momentum(H), atol=1e-14, rtol=1e-12)


def test_affine_velocity_fields_are_transferred_exactly():
    particles, B, v0 = random_particles(200), torch.randn(3, 3).double(), torch.randn(3).double()
    particles = particles.replace(v=v0 + particles.x @ B.T, C=B.expand(200, 3, 3))
    mass, momentum = particle_to_grid(particles, torch.zeros(200, 3, 3).double(), GRID, 1e-3)
    after, _, _ = grid_to_particle(particles, grid_step(mass, momentum, FREE, 0.0, 1e-3)[0], FREE, 1e-3)
    torch.testing.assert_close(after.v, particles.v, atol=1e-11, rtol=0)
    torch.testing.assert_close(after.C, particles.C, atol=1e-9, rtol=0)


def test_translation_by_whole_cells_changes_nothing():
    particles = random_particles(100).replace(x=0.3 + 0.3 * torch.rand(100, 3, dtype=torch.float64))
    shift = H * vector(1, -1, 2)
    moved = particles.replace(x=particles.x + shift)
    for _ in range(5):
        particles, moved = substep(particles, FREE, 1e-4)[0], substep(moved, FREE, 1e-4)[0]
    torch.testing.assert_close(moved.x - shift, particles.x, atol=1e-13, rtol=0)
    torch.testing.assert_close(moved.F, particles.F, atol=1e-12, rtol=0)


def test_rotations_by_90_degrees_commute_with_the_simulation():
    turn = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    center = vector(0.5, 0.5, 0.5)
    particles = random_particles(100).replace(x=0.35 + 0.3 * torch.rand(100, 3, dtype=torch.float64))
    turned = particles.replace(
        x=(particles.x - center) @ turn.T + center, v=particles.v @ turn.T, C=turn @ particles.C @ turn.T, F=turn @ particles.F
    )
    world, other = replace(FREE, gravity=(3.0, 0.0, -5.0)), replace(FREE, gravity=(0.0, 3.0, -5.0))
    for _ in range(5):
        particles, turned = substep(particles, world, 1e-4)[0], substep(turned, other, 1e-4)[0]
    torch.testing.assert_close((turned.x - center) @ turn, particles.x - center, atol=1e-13, rtol=0)
    torch.testing.assert_close(turn.T @ turned.F, particles.F, atol=1e-12, rtol=0)


# Motion in closed form


@pytest.mark.parametrize("law", ["jelly", "sand", "water", "snow"])
def test_free_fall(law):
    """y0 - g dt^2 n (n + 1) / 2 of symplectic Euler; nothing is deformed."""
    x, volume = block((2, 2, 2), (0.4, 0.4, 0.6))
    material = Material(law, youngs_modulus=1e5, poisson_ratio=0.3)
    world, dt, steps = World(GRID, (material,)), 5e-4, 300
    particles = start = Particles.at_rest(x, volume, world.materials)
    for _ in range(steps):
        particles, _, _ = substep(particles, world, dt)
    before, after = energies(start, world, 0.0), energies(particles, world, dt)
    assert abs(after.total - before.total) < 1e-9 * after.kinetic
    drop = 9.81 * dt**2 * steps * (steps + 1) / 2
    fall = (start.x - particles.x)[:, 2]
    assert (fall / drop - 1).abs().max() < 1e-10
    torch.testing.assert_close(particles.v[:, 2], torch.full_like(fall, -9.81 * dt * steps))
    assert (particles.F - torch.eye(3)).abs().max() < 1e-9
    assert (particles.x - start.x)[:, :2].abs().max() < 1e-12


def test_a_spinning_block_keeps_its_momenta_and_gains_no_energy():
    particles = spinning((3.0, -4.0, 8.0))
    particles = particles.replace(v=particles.v + vector(0.1, 0.2, -0.1))
    P, L, energy = particles.momentum, particles.angular_momentum(H), particles.kinetic_energy(H)
    highest = [energy]

    def watch(now, time):
        highest.append(now.kinetic_energy(H) + now.elastic_energy((JELLY,)))

    after, report = advance(particles, FREE, 0.3, max_dt=1e-3, on_step=watch)
    assert report.steps == len(highest) - 1 >= 300
    assert report.num_kept == 0
    assert (after.momentum - P).norm() < 1e-12 * P.norm()
    assert (after.angular_momentum(H) - L).norm() < 1e-12 * L.norm()
    assert max(highest) < energy * 1.005
    turned = after.F_total - torch.eye(3)
    assert turned.norm(dim=(1, 2)).min() > 1  # it has rotated


def test_two_blocks_exchange_momentum():
    """Unequal densities: the common center of mass moves uniformly, and no energy is created."""
    light, heavy = replace(JELLY, density=500.0), replace(JELLY, density=2000.0)
    first, volume = block((3, 3, 3), (0.25, 0.4, 0.4))
    second, _ = block((3, 3, 3), (0.56, 0.4, 0.4))
    body = torch.cat([torch.zeros(len(first)), torch.ones(len(second))]).long()
    v = torch.where(body[:, None] == 0, vector(1.0, 0, 0), vector(-0.5, 0, 0))
    world = replace(FREE, materials=(light, heavy))
    start = Particles.at_rest(torch.cat([first, second]), volume.repeat(2), world.materials, body, v=v)
    after, _ = advance(start, world, 0.3)
    P, velocity = start.momentum, start.momentum / start.mass.sum()
    assert (after.momentum - P).norm() < 1e-12 * P.norm()
    torch.testing.assert_close(after.center, start.center + 0.3 * velocity, atol=1e-12, rtol=0)
    mean = after.v[body == 0].mean(0)
    assert mean[0] < -0.3  # the light one bounces back
    energy = after.kinetic_energy(H) + after.elastic_energy(world.materials)
    assert 0.3 * start.kinetic_energy(H) < energy < start.kinetic_energy(H)
    torch.testing.assert_close(after.mass[body == 1].sum() / after.mass[body == 0].sum(), torch.tensor(4.0).double())


def bar_period(cells):
    """Period of a free bar of 0.5 m over 2 L sqrt(rho / E), and the fraction of its amplitude after one period."""
    bar = Material("corotated", youngs_modulus=1e4, poisson_ratio=0.0)
    h, length, speed, dt = 0.5 / cells, 0.5, 0.01, 5e-4
    grid = Grid((-6 * h, -5 * h, -5 * h), h, (cells + 13, 12, 12), padding=0)
    x, volume = lattice((cells, 1, 1), (0.0, 0.0, 0.0), h)
    phase = math.pi * x[:, 0] / length
    v, C = torch.zeros_like(x), torch.zeros(len(x), 3, 3, dtype=torch.float64)
    v[:, 0] = speed * phase.cos()
    C[:, 0, 0] = -speed * math.pi / length * phase.sin()
    particles, world = Particles.at_rest(x, volume, (bar,), v=v, C=C), World(grid, (bar,), gravity=(0.0, 0.0, 0.0))
    period, amplitudes = 2 * length * math.sqrt(1000.0 / 1e4), []
    for _ in range(round(1.1 * period / dt)):
        particles, _, _ = substep(particles, world, dt)
        amplitudes.append(float((particles.v[:, 0] * phase.cos()).sum() / phase.cos().square().sum()) / speed)
    crossings = [i + a / (a - b) for i, (a, b) in enumerate(pairwise(amplitudes)) if (a > 0) != (b > 0)]
    assert len(crossings) == 2
    return 2 * (crossings[1] - crossings[0]) * dt / period, amplitudes[round(period / dt) - 1]


def test_a_bar_rings_with_the_period_of_its_length():
    """First longitudinal mode, nu = 0: T = 2 L sqrt(rho / E), with an error of second order in the cells."""
    coarse, _ = bar_period(12)
    fine, amplitude = bar_period(24)
    assert abs(fine - 1) < 0.005
    assert abs(coarse - 1) > 3 * abs(fine - 1)
    assert 0.97 < amplitude < 1


def test_a_block_slides_down_an_incline():
    """Gravity is rotated instead of the floor: d(v_x) = g sin dt - mu (g cos dt + d(v_z)), exact without lateral motion."""
    slope, mu, dt, steps = math.radians(30), 0.3, 5e-4, 300
    gravity = (9.81 * math.sin(slope), 0.0, -9.81 * math.cos(slope))
    floor = Boundary("plane", center=(0.0, 0.0, 0.25 + 1e-9), kind="separate", friction=mu)
    stiff = replace(JELLY, youngs_modulus=1e5, poisson_ratio=0.0)
    x, volume = block((2, 2, 2), (0.2, 0.4, 0.25 + H))
    world = World(GRID, (stiff,), gravity, (floor,))
    particles = Particles.at_rest(x, volume, (stiff,), v=vector(1.0, 0, 0).expand_as(x).clone())
    for step in range(steps):
        particles, _, _ = substep(particles, world, dt, step * dt)
    velocity = particles.momentum / particles.mass.sum()
    want = 1.0 + 9.81 * steps * dt * (math.sin(slope) - mu * math.cos(slope)) - mu * float(velocity[2])
    assert abs(float(velocity[0]) - want) < 1e-12
    assert velocity[0] < 1.0 + 0.9 * 9.81 * steps * dt * math.sin(slope)  # it touches the floor


def test_sticky_floors_hold_and_walls_keep_everything_inside():
    grid = replace(GRID, padding=3)
    x, volume = block((2, 2, 2), (0.4, 0.4, 4 * H))
    particles = Particles.at_rest(x, volume, (JELLY,), v=vector(2.0, -1.0, 0.0).expand_as(x).clone())
    after, report = advance(particles, World(grid, (JELLY,)), 1.0)
    assert report.num_kept == 0
    assert (after.x > 2 * H).all() and (after.x < 1 - 2 * H).all()
    floor = Boundary("plane", center=(0.0, 0.0, 5 * H), kind="sticky")
    after, _ = advance(particles, World(grid, (JELLY,), boundaries=(floor,)), 0.5)
    assert (after.center - particles.center).norm() < 2 * H


# Boundaries


def test_distances_and_normals_have_closed_forms():
    points = torch.tensor([[2.0, 0, 0], [0.1, 0.2, 0.05], [1.0, 1.0, 0.25]]).double()
    distance, normal = contact.distance(Boundary("plane", (0.0, 0, 1), (0.0, 0, 2)), points)
    torch.testing.assert_close(distance, points[:, 2] - 1)
    assert (normal == vector(0, 0, 1)).all()
    distance, normal = contact.distance(Boundary("sphere", radius=0.5), points)
    torch.testing.assert_close(distance, points.norm(dim=-1) - 0.5)
    torch.testing.assert_close(normal[0], vector(1, 0, 0))
    box = Boundary("box", half_size=(0.5, 0.5, 0.25))
    distance, normal = contact.distance(box, points)
    torch.testing.assert_close(distance, vector(1.5, -0.2, math.sqrt(0.5)))
    torch.testing.assert_close(normal, torch.stack([vector(1, 0, 0), vector(0, 0, 1), vector(1, 1, 0) / math.sqrt(2)]))
    outside, turned = contact.distance(replace(box, hollow=True), points)
    torch.testing.assert_close(outside, -distance)
    torch.testing.assert_close(turned, -normal)


@pytest.mark.parametrize("boundary", [Boundary("sphere", radius=0.4), Boundary("box", half_size=(0.3, 0.4, 0.2))])
def test_normals_are_the_gradient_of_the_distance(boundary):
    points = torch.randn(200, 3, dtype=torch.float64).mul(0.4).requires_grad_()
    distance, normal = contact.distance(boundary, points)
    (gradient,) = torch.autograd.grad(distance.sum(), points)
    torch.testing.assert_close(gradient, normal.detach())


@pytest.mark.parametrize(
    ("kind", "friction", "want"),
    [
        ("sticky", 0.0, [[0, 0, 0], [0, 0, 0], [3, 4, -2]]),
        ("slip", 0.0, [[3, 4, 0], [3, 4, 0], [3, 4, -2]]),
        ("slip", 1.0, [[1.8, 2.4, 0], [3, 4, 0], [3, 4, -2]]),
        ("separate", 0.0, [[3, 4, 0], [3, 4, 2], [3, 4, -2]]),
        ("separate", 1.0, [[1.8, 2.4, 0], [3, 4, 2], [3, 4, -2]]),
        ("separate", 9.0, [[0, 0, 0], [3, 4, 2], [3, 4, -2]]),
    ],
)
def test_kinds_of_contact(kind, friction, want):
    """Into the floor and out of it deep inside, and above it: |v_t| = 5 loses mu |v_n| = 2 mu."""
    v = torch.tensor([[3.0, 4, -2], [3, 4, 2], [3, 4, -2]]).double()
    grid = Grid((0.0, 0.0, -0.25), 0.1, (5, 5, 5), 0)
    rows = torch.tensor([0, 30, 59])  # one per column, at heights of -0.25, -0.25 and 0.15
    found, work = contact.apply(Boundary(kind=kind, friction=friction), v, torch.full((3,), 2.0).double(), rows, grid)
    want = torch.tensor(want).double()
    torch.testing.assert_close(found, want)
    assert work == pytest.approx(2 * float(((want - v) * want).sum()))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_material_stops_at_the_surface_between_two_nodes(share):
    """Sticky: velocity interpolated at the surface becomes zero; momentum goes to both nodes by their weights."""
    grid = Grid((0.0, 0.0, 0.0), 0.1, (5, 5, 5), 0)
    floor = Boundary(center=(0.0, 0.0, 0.2 + 0.1 * share + 1e-12), kind="sticky")
    rows, mass = torch.tensor([2, 3]), torch.tensor([0.5, 3.0]).double()
    v = torch.tensor([[1.0, -2, -3], [0.5, 1, -2]]).double()
    found, work = contact.apply(floor, v, mass, rows, grid)
    shares = torch.tensor([1 - share, share], dtype=torch.float64)
    assert (shares @ found).abs().max() < 1e-9 and work == pytest.approx(0, abs=1e-9)
    impulses = mass[:, None] * (found - v)
    torch.testing.assert_close(impulses[0] * share, impulses[1] * (1 - share), atol=1e-9, rtol=1e-6)
    assert (mass @ found.square().sum(-1)) < (mass @ v.square().sum(-1))  # a projection gains no energy


def test_moving_boundaries_and_time_windows():
    v, grid = torch.zeros(1, 3).double(), Grid((0.0, 0.0, 0.05), 0.1, (5, 5, 5), 0)
    lift = Boundary(kind="sticky", velocity=(0.0, 0.0, 1.0), start=1.0, end=2.0)

    def after(time):
        return contact.apply(lift, v, torch.ones(1).double(), torch.tensor([0]), grid, time)[0]

    assert after(0.5) is v  # does not exist yet
    assert torch.equal(after(1.0), v)  # still below the point
    torch.testing.assert_close(after(1.5), vector(0, 0, 1)[None])
    assert after(2.0) is v


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"kind": "glue"}, "kind: got 'glue', want one of sticky, slip, separate"),
        ({"shape": "cone"}, "shape: got 'cone', want one of plane, box, sphere, mesh"),
        ({"normal": (0.0, 0.0, 0.0)}, "normal: got (0, 0, 0), want a direction"),
        ({"center": (0.0, float("nan"), 0.0)}, "center: got (0.0, nan, 0.0), want three numbers"),
        ({"radius": 0.0}, "radius: got 0.0, want a length > 0"),
        ({"half_size": (1.0, 0.0, 1.0)}, "half_size: got (1.0, 0.0, 1.0), want lengths > 0"),
        ({"friction": -1.0}, "friction: got -1.0, want a number of at least 0"),
        ({"start": 2.0, "end": 1.0}, "end: got 1.0, want a time after start = 2.0"),
    ],
)
def test_wrong_boundaries_are_named(values, text):
    with pytest.raises(ConfigError) as error:
        Boundary(**values)
    assert str(error.value) == text


# Time step, bodies, input


def test_the_time_step_is_the_shortest_of_three():
    particles = Particles.at_rest(*block((1, 1, 1), (0.4, 0.4, 0.4)), (JELLY,))
    assert stable_dt(particles, (JELLY,), H) == pytest.approx(0.4 * H / JELLY.wave_speed)
    fast = particles.replace(v=torch.full_like(particles.v, 100.0))
    assert stable_dt(fast, (JELLY,), H) == pytest.approx(0.5 * H / (100 * math.sqrt(3)))
    twisted = particles.replace(C=1e4 * torch.eye(3).double().expand_as(particles.C))
    assert stable_dt(twisted, (JELLY,), H) == pytest.approx(0.5 / (1e4 * math.sqrt(3)))
    assert stable_dt(particles, (Material("static"),), H) == math.inf
    hard = replace(JELLY, youngs_modulus=1e8)
    assert stable_dt(particles, (JELLY, hard), H) == stable_dt(particles, (JELLY,), H)  # a body without particles
    with pytest.raises(NumericalError, match="step 7: velocity is not finite"):
        stable_dt(particles.replace(v=particles.v * float("nan")), (JELLY,), H, 7)


def test_stationary_bodies_stay_and_support_others():
    world = World(replace(GRID, padding=3), (JELLY, Material("static")))
    shelf, volume = block((4, 4, 1), (0.35, 0.35, 0.3))
    load, _ = block((2, 2, 1), (0.4, 0.4, 0.45))
    body = torch.cat([torch.ones(len(shelf)), torch.zeros(len(load))]).long()
    volumes = torch.full((len(body),), float(volume[0]), dtype=torch.float64)
    start = Particles.at_rest(torch.cat([shelf, load]), volumes, world.materials, body)
    after, _ = advance(start, world, 0.2)
    assert torch.equal(after.x[body == 1], shelf)
    fall = (start.x - after.x)[body == 0, 2]
    assert 0.01 < fall.mean() < 0.5 * 9.81 * 0.2**2 * 0.9


def test_advance_ends_on_time_and_counts_escaping_particles():
    particles = Particles.at_rest(*block((1, 1, 1), (0.8, 0.4, 0.4)), (JELLY,), v=torch.full((8, 3), 0.0).double())
    particles = particles.replace(v=vector(5.0, 0, 0).expand_as(particles.v))
    times = []
    after, report = advance(particles, FREE, 0.05, on_step=lambda p, time: times.append(time))
    assert times[-1] == pytest.approx(0.05) and len(times) == report.steps
    assert report.shortest_dt <= 0.5 * H / 5
    assert report.num_kept > 0
    assert after.x.isfinite().all() and (after.x[:, 0] < 1 - 0.5 * H).all()


@pytest.mark.parametrize("seed", range(6))
def test_random_scenes_stay_finite(seed):
    generator = torch.Generator().manual_seed(seed)
    laws = ["jelly", "rubber", "metal", "sand", "snow", "water", "foam"]

    def number(low, high):
        return low + (high - low) * float(torch.rand((), generator=generator))

    materials = tuple(
        Material(laws[(seed + i) % 7], youngs_modulus=10 ** number(3, 6), poisson_ratio=number(0.05, 0.45)) for i in (0, 3)
    )
    world = World(replace(GRID, padding=3), materials, boundaries=(Boundary("sphere", (0.5, 0.5, 0.25), radius=0.1),))
    low, volume = block((2, 3, 1), (0.35, 0.4, 0.4))
    high, _ = block((1, 3, 2), (0.4, 0.35, 0.55))
    body = torch.cat([torch.zeros(len(low)), torch.ones(len(high))]).long()
    x = torch.cat([low, high])
    start = Particles.at_rest(x, torch.full((len(x),), float(volume[0]), dtype=torch.float64), materials, body)
    start = start.replace(v=start.v - vector(0, 0, number(0, 3)))
    dt = stable_dt(start, materials, H)
    after, report = advance(start, world, min(100 * dt, 0.3))
    assert report.num_kept == 0
    for value in (after.x, after.v, after.F, after.F_total, after.memory):
        assert value.isfinite().all()
    assert after.kinetic_energy(H) < start.kinetic_energy(H) + start.mass.sum() * 9.81 * 0.6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_colliding_bodies_gain_no_energy(seed):
    """Two bodies of any law and stiffness collide at up to 6 m/s, without gravity, at the stable time step."""
    generator = torch.Generator().manual_seed(seed)
    laws = ["jelly", "rubber", "hencky", "metal", "sand", "snow", "water", "foam"]

    def number(low, high):
        return low + (high - low) * float(torch.rand((), generator=generator))

    stiffness = [10 ** number(3, 8) for _ in range(2)]
    materials = tuple(
        Material(laws[which % 8], youngs_modulus=E, poisson_ratio=number(0.02, 0.45), yield_stress=E * 10 ** number(-3, -1))
        for which, E in zip((seed, seed // 8 + 3), stiffness)
    )
    world = World(replace(GRID, padding=3), materials, gravity=(0.0, 0.0, 0.0))
    first, volume = block((2, 3, 2), (0.3, 0.4, 0.4))
    second, _ = block((2, 2, 3), (0.55, 0.4, 0.4))
    body = torch.cat([torch.zeros(len(first)), torch.ones(len(second))]).long()
    x = torch.cat([first, second])
    x = x + 0.3 * H * (torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.5)
    speed = number(0.2, 6.0)
    v = torch.where(body[:, None] == 0, vector(speed, 0, 0), vector(-speed, 0.2 * speed, 0))
    particles = Particles.at_rest(x, torch.full((len(x),), float(volume[0]), dtype=torch.float64), materials, body, v=v)
    before = energies(particles, world, 0.0).total
    for step in range(250):
        dt = stable_dt(particles, materials, H, step)
        particles, was_kept, _ = substep(particles, world, dt)
        assert not bool(was_kept.any())
        if step % 5 == 0:
            assert energies(particles, world, dt).total < 1.005 * before
    assert particles.x.isfinite().all() and particles.F_total.isfinite().all()


def test_total_deformation_includes_plastic_flow():
    water = Material("water", poisson_ratio=0.45)
    particles = random_particles(50, (water,))
    after, _ = deform(particles, (water,), 1e-3)
    torch.testing.assert_close(after.F_total, torch.eye(3).double() + 1e-3 * particles.C)
    torch.testing.assert_close(torch.linalg.det(after.F), torch.linalg.det(after.F_total))
    off_diagonal = after.F - torch.diag_embed(after.F.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() == 0


def test_float32_agrees_with_float64():
    particles = spinning((0.0, 0.0, 5.0))
    single = particles.replace(
        **{name: getattr(particles, name).float() for name in ("x", "v", "C", "F", "F_total", "memory", "mass", "volume")}
    )
    for _ in range(20):
        particles, single = substep(particles, FREE, 1e-3)[0], substep(single, FREE, 1e-3)[0]
    assert single.x.dtype == torch.float32
    assert (single.x - particles.x).abs().max() < 1e-6
    assert (single.F - particles.F).abs().max() < 1e-4


def test_wrong_particles_grids_and_worlds_are_named():
    x, volume = block((1, 1, 1), (0.4, 0.4, 0.4))
    with pytest.raises(InputError, match="Particles: got none, want at least one"):
        Particles.at_rest(x[:0], volume[:0], (JELLY,))
    with pytest.raises(ShapeError, match=r"Particles\.volume: got shape \(7,\), want shape \(8,\)"):
        Particles.at_rest(x, volume[:7], (JELLY,))
    with pytest.raises(InputError, match=r"Particles\.x: 1 of 8 rows are not finite"):
        Particles.at_rest(torch.cat([x[:7], vector(0, 0, math.nan)[None]]), volume, (JELLY,))
    with pytest.raises(InputError, match=r"Particles\.volume: 8 of 8 are not > 0; only tracers have none"):
        Particles.at_rest(x, -volume, (JELLY,))
    with pytest.raises(InputError, match=r"Particles\.body: got 1 to 1, want 0 to 0"):
        Particles.at_rest(x, volume, (JELLY,), torch.ones(8).long())
    with pytest.raises(ConfigError, match=r"spacing: got 0\.0, want a length > 0"):
        Grid((0.0, 0.0, 0.0), 0.0, (9, 9, 9))
    with pytest.raises(ConfigError, match=r"shape: got \(6, 9, 9\) nodes with padding 3, want at least 7 per side"):
        Grid((0.0, 0.0, 0.0), 1.0, (6, 9, 9))
    with pytest.raises(ConfigError, match=r"gravity: got \(0\.0, 0\.0, nan\), want three numbers"):
        World(GRID, (JELLY,), gravity=(0.0, 0.0, math.nan))
    with pytest.raises(ConfigError, match="materials: got none, want one for each body"):
        World(GRID, ())


def test_rotated_frames_of_a_free_body_agree():
    """Rotating everything but the grid changes little: the remainder is the anisotropy of the grid."""
    rotation = quat_to_rotmat(random_quats(1, dtype=torch.float64))[0]
    center = vector(0.5, 0.5, 0.5)
    start = spinning((0.0, 0.0, 6.0))
    turned = start.replace(
        x=(start.x - start.center) @ rotation.T + center, v=start.v @ rotation.T, C=rotation @ start.C @ rotation.T
    )
    after, _ = advance(start, FREE, 0.05)
    other, _ = advance(turned, FREE, 0.05)
    error = (other.x - center) @ rotation - (after.x - start.center)
    assert error.norm(dim=-1).max() < 0.1 * H
