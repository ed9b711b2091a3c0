import importlib.util
import logging
import math
import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch

from tests.support.particles import lattice
from vision3d.core.errors import BackendError, ConfigError, InputError, MissingDependencyError, NumericalError
from vision3d.core.install import install_command
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats
from vision3d.stages.simulate.config import ALIASES, Boundary, Material
from vision3d.stages.simulate.engines import base, make_engine, taichi_runtime
from vision3d.stages.simulate.engines.mpm import MAX_STRETCH, advance, energies, substep
from vision3d.stages.simulate.engines.taichi_engine import TaichiEngine
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.world import DistanceField, Motion, Wind, World

needs_taichi = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in taichi_runtime.PACKAGES), reason="taichi is not installed"
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:taichi.*")

ROOT = Path(__file__).parents[2]
H = 1 / 32
GRID = Grid((-0.1, 0.05, 0.2), H, (33, 30, 35))
LAWS = tuple(ALIASES)
# All laws in every world here, so that one kernel, which takes seconds to compile, serves all tests.
MATERIALS = tuple(Material(law, 1e5, 0.3, yield_stress=2e3, hardening=0.1, viscosity=5.0) for law in LAWS)
JELLY, SAND, WATER = (LAWS.index(law) for law in ("corotated", "drucker_prager", "water"))
DT = 2e-4
FIELDS = ("x", "v", "C", "F", "F_total", "memory")


def single(values):
    """Rounds values to float32, so that both engines start with the same."""
    return values.float().double()


def random_particles(count=2500):
    """Bodies of all laws mixed, deformed (some inverted or flattened), anywhere except next to the grid's sides."""
    x = torch.rand(count, 3) * torch.tensor([0.6, 0.55, 0.65]) + torch.tensor([0.1, 0.2, 0.4])
    body = torch.randint(0, len(LAWS), (count,))
    start = Particles.at_rest(
        single(x), single(torch.full((count,), H**3 / 8)), MATERIALS, body,
        v=single(torch.randn(count, 3)), C=single(10 * torch.randn(count, 3, 3)),
    )  # fmt: skip
    F = torch.eye(3) + 0.15 * torch.randn(count, 3, 3)
    case = torch.arange(count) % 20  # one in twenty is inverted, flattened, small
    F[case == 0, :, 0] *= -1
    F[case == 1] @= torch.diag(torch.tensor([0.03, 1.0, 3.0]))
    F[case == 2] = quat_to_rotmat(random_quats(int((case == 2).sum()))) @ (0.2 * F[case == 2])
    memory = torch.where(body == LAWS.index("snow"), 0.95, torch.where(body == SAND, 0.003, 0.01))
    return start.replace(F=single(F), F_total=single(F), memory=single(memory))


def relative_errors(found, want, rows=slice(None)):
    """Maximum difference of each field, relative to its largest value."""
    errors = {}
    for name in FIELDS:
        right = getattr(want, name)[rows]
        errors[name] = float((getattr(found, name)[rows] - right).abs().max() / right.abs().max().clamp(min=1e-30))
    return errors


def one_step(particles, world, time=0.0, **options):
    engine = TaichiEngine(particles, world, **options)
    report = engine.advance(DT, time, max_dt=DT)
    assert report.steps == 1
    return engine.particles, report


def check_step(particles, world, time=0.0):
    """One step of both engines agrees, including the work."""
    want, _, work = substep(particles, world, DT, time)
    found, report = one_step(particles, world, time)
    errors = relative_errors(found, want)
    assert max(errors.values()) < 1e-5, errors
    scale = max(abs(work), 1e-3 * float(particles.kinetic_energy(H)))
    assert abs(report.work - work) < 1e-5 * scale
    return want, work


# One step against the reference in float64


@needs_taichi
def test_one_step_of_every_law_agrees():
    particles, world = random_particles(), World(GRID, MATERIALS)
    want, _, _ = substep(particles, world, DT)
    found, _ = one_step(particles, world)
    for index, law in enumerate(LAWS):
        rows = particles.body == index
        errors = relative_errors(found, want, rows)
        assert max(errors.values()) < 1e-5, (law, errors)
    assert found.x.dtype == torch.float64
    assert (want.F - particles.F).abs().max() > 0.1  # some have flowed


def ball():
    """Distance field of a sphere of 0.2 m, sampled coarsely."""
    axes = [torch.linspace(-0.3, 0.3, 13, dtype=torch.float64)] * 3
    points = torch.cartesian_prod(*axes).view(13, 13, 13, 3)
    return DistanceField(points.norm(dim=-1) - 0.2, (-0.3, -0.3, -0.3), 0.05)


TURN = (0.8, 0.1, -0.3, 0.5)
MOVE = {"velocity": (0.3, -0.2, 0.5), "angular_velocity": (1.0, 2.0, -3.0)}
SOLIDS = {
    "plane": Boundary("plane", (0.4, 0.4, 0.6), (0.2, -0.3, 1.0)),
    "turning plane": Boundary("plane", (0.4, 0.4, 0.6), (0.2, -0.3, 1.0), **MOVE),
    "box": Boundary("box", (0.41, 0.42, 0.73), half_size=(0.11, 0.17, 0.23), quat=TURN),
    "turning box": Boundary("box", (0.41, 0.42, 0.73), half_size=(0.11, 0.17, 0.23), quat=TURN, **MOVE),
    "container": Boundary("box", (0.41, 0.42, 0.73), half_size=(0.21, 0.17, 0.23), quat=TURN, hollow=True, **MOVE),
    "sphere": Boundary("sphere", (0.41, 0.42, 0.73), radius=0.21),
    "hollow sphere": Boundary("sphere", (0.41, 0.42, 0.73), radius=0.21, hollow=True, velocity=(1.0, 0.0, 0.0)),
    "mesh": Boundary("mesh", (0.41, 0.42, 0.73), mesh="ball", quat=TURN),
    "hollow mesh": Boundary("mesh", (0.41, 0.42, 0.73), mesh="ball", quat=TURN, hollow=True, **MOVE),
}


@needs_taichi
@pytest.mark.parametrize("kind", ["sticky", "slip", "separate"])
@pytest.mark.parametrize("name", SOLIDS)
def test_one_step_against_every_solid_agrees(name, kind):
    solid = replace(SOLIDS[name], kind=kind, friction=0.3)
    world = World(GRID, MATERIALS, boundaries=(solid,), fields={"ball": ball()})
    particles = random_particles(1200)
    want, work = check_step(particles, world, time=0.02)
    free, _, _ = substep(particles, replace(world, boundaries=()), DT)
    assert (want.v - free.v).norm(dim=-1).max() > 0.1  # there is contact
    is_still = kind == "sticky" and solid.velocity == solid.angular_velocity == (0.0, 0.0, 0.0)
    assert (work == 0) == is_still  # static sticky solids do no work


@needs_taichi
def test_a_floor_on_a_layer_of_nodes_agrees():
    floor = Boundary("plane", (0.0, 0.0, 0.2 + 15 * H), kind="sticky")
    check_step(random_particles(500), World(GRID, MATERIALS, boundaries=(floor,)))


@needs_taichi
def test_several_solids_and_winds_are_applied_in_order_and_within_their_times():
    solids = (
        SOLIDS["plane"],
        replace(SOLIDS["box"], kind="sticky", start=0.5),
        replace(SOLIDS["sphere"], kind="slip", end=1.0, velocity=(0.1, 0.0, 0.0)),
    )
    winds = (
        Wind((5.0, 0.0, 1.0), drag=20.0),
        Wind((0.0, -9.0, 0.0), drag=500.0, low=(0.0, 0.3, 0.0), high=(0.5, 0.9, math.inf), start=0.4, end=0.6),
    )
    world, particles = World(GRID, MATERIALS, boundaries=solids, winds=winds), random_particles(800)
    ends = [check_step(particles, world, time)[0].v for time in (0.2, 0.5, 1.1)]
    assert all(not torch.equal(a, b) for a, b in combinations(ends, 2))


@needs_taichi
def test_kinematic_particles_agree_and_held_ones_stay_in_place():
    motions = (
        Motion((0.5, 0.0, -0.2), (3.0, -4.0, 8.0), (0.3, 0.4, 0.5), start=-0.1),
        Motion(end=0.5),
        Motion((9.0, 0.0, 0.0), start=0.5),
    )
    world, particles = World(GRID, MATERIALS, motions=motions), random_particles(800)
    particles = particles.replace(motion=torch.randint(-1, 3, (800,)))
    check_step(particles, world, time=0.1)
    check_step(particles, world, time=0.7)
    engine = TaichiEngine(particles, world)
    engine.advance(20 * DT, max_dt=DT)
    held = particles.motion == 1
    torch.testing.assert_close(engine.particles.x[held], particles.x[held], atol=1e-7, rtol=0)


@needs_taichi
def test_the_sides_of_the_grid_block_and_escaping_particles_are_counted():
    particles = random_particles(600)
    low, high = GRID.bounds(particles.x)
    outward = particles.replace(x=single(low + (0.002 + 0.996 * torch.rand(600, 3)) * (high - low)), C=0 * particles.C)
    check_step(outward, World(GRID, MATERIALS))
    open_world = World(replace(GRID, padding=0), MATERIALS)
    fast = outward.replace(v=torch.tensor([60.0, 0, 0]).double().expand(600, 3), F=torch.eye(3).double().expand(600, 3, 3))
    want, was_kept, _ = substep(fast, open_world, DT)
    found, report = one_step(fast, open_world)
    assert report.num_kept == int(was_kept.sum()) > 0
    assert relative_errors(found, want)["x"] < 1e-6


# Blocks and colors


@needs_taichi
def test_colored_blocks_equal_atomic_operations():
    particles, world = random_particles(), World(GRID, MATERIALS, boundaries=(SOLIDS["plane"],))
    colored, _ = one_step(particles, world, transfer="colored")
    atomic, _ = one_step(particles, world, transfer="atomic")
    errors = relative_errors(atomic, colored)
    assert max(errors.values()) < 1e-5, errors


@needs_taichi
def test_colored_runs_are_bitwise_reproducible():
    particles, world, ends = random_particles(), World(GRID, MATERIALS, boundaries=(SOLIDS["turning box"],)), []
    for is_serial in (True, True, False):
        engine = TaichiEngine(particles, world)
        engine._is_serial = is_serial
        engine.advance(0.01)
        ends.append(engine.particles)
    for other in ends[1:]:
        assert all(torch.equal(getattr(ends[0], name), getattr(other, name)) for name in FIELDS)


@needs_taichi
def test_blocks_of_a_color_never_share_a_node():
    """Also when particles have moved by up to a cell since they were sorted."""
    engine = TaichiEngine(random_particles(), World(GRID, MATERIALS))
    engine._is_serial = False
    engine._sort()
    assert len(engine._launches) == 8
    moved = engine._state[:, :3] + (2 * torch.rand(len(engine._state), 3) - 1) * 0.9999
    starts = engine._starts.tolist()
    assert starts[0] == 0 and starts[-1] == len(engine._state)
    for first, last in engine._launches:
        touched = []
        for block in range(first, last):
            base = (moved[starts[block] : starts[block + 1]] - 0.5).floor().long()
            touched.append(
                {(x + i, y + j, z + k) for x, y, z in base.tolist() for i in range(3) for j in range(3) for k in range(3)}
            )
        assert not any(a & b for a, b in combinations(touched, 2))
    low, high = engine._box
    base = (moved - 0.5).floor()
    assert (base.amin(0) >= torch.tensor(low)).all() and (base.amax(0) + 3 <= torch.tensor(high)).all()


@needs_taichi
def test_fast_particles_are_sorted_often_enough():
    """With outdated blocks, concurrent writes to one node would be lost, which changes the momentum."""
    x, volume = lattice((6, 6, 6), (0.1, 0.3, 0.5), H)
    v = torch.tensor([20.0, 5.0, -9.0], dtype=torch.float64).expand_as(x)
    start = Particles.at_rest(x, volume, MATERIALS, torch.full((len(x),), JELLY), v=v)
    engine = TaichiEngine(start, World(GRID, MATERIALS, gravity=(0.0, 0.0, 0.0)))
    engine._is_serial = False
    report = engine.advance(0.02)
    assert report.steps > 20
    assert (engine.particles.momentum - start.momentum).norm() < 1e-5 * start.momentum.norm()
    torch.testing.assert_close(engine.particles.x, x + 0.02 * v, atol=2e-6, rtol=0)


@needs_taichi
def test_total_deformations_stay_finite_in_unbounded_flow():
    particles, world = random_particles(100), World(GRID, MATERIALS)
    huge = particles.replace(
        F_total=1e6 * torch.eye(3).double().expand(100, 3, 3), C=0.2 / DT * torch.eye(3).double().expand(100, 3, 3)
    )
    found, _ = one_step(huge, world)
    torch.testing.assert_close(found.F_total, huge.F_total)
    engine = TaichiEngine(particles, world)
    for _ in range(80):  # each step would stretch by a factor of 1.2
        engine.update(C=huge.C, v=0 * particles.v, x=particles.x, F=particles.F)
        engine.advance(DT, max_dt=DT)
    assert engine.particles.F_total.abs().max() == pytest.approx(MAX_STRETCH)
    torn = particles.replace(memory=single(torch.full((100,), 1e30)), F=1.5 * torch.eye(3).double().expand(100, 3, 3))
    found, _ = one_step(torn, world)
    snow = particles.body == LAWS.index("snow")
    assert (found.memory[snow] / 1e30 - 1).abs().max() < 1e-6


# Longer runs


@needs_taichi
@pytest.mark.parametrize("law", ["corotated", "neo_hookean", "water", "drucker_prager"])
def test_falls_onto_a_floor_agree_over_200_steps(law):
    x, volume = lattice((3, 3, 3), (0.3, 0.35, 0.63), H)
    start = Particles.at_rest(
        single(x), volume, MATERIALS, torch.full((len(x),), LAWS.index(law)),
        v=torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64).expand_as(x),
    )  # fmt: skip
    world = World(GRID, MATERIALS, boundaries=(Boundary("plane", (0.0, 0.0, 0.6), friction=0.4),))
    want, ours = advance(start, world, 200 * DT, max_dt=DT)
    engine = TaichiEngine(start, world)
    report = engine.advance(200 * DT, max_dt=DT)
    assert report.steps == ours.steps == 200
    assert (want.center - start.center).norm() > 0.5 * H
    assert (engine.particles.x - want.x).norm(dim=-1).max() < 2e-3 * H
    assert (engine.particles.F - want.F).abs().max() < 2e-3
    assert report.work == pytest.approx(ours.work, rel=1e-3)


@needs_taichi
def test_time_steps_equal_the_reference():
    particles = random_particles(400)
    particles = particles.replace(F=torch.eye(3).double().expand(400, 3, 3), v=3 * particles.v)
    world = World(GRID, MATERIALS)
    _, ours = advance(particles, world, 0.01)
    report = TaichiEngine(particles, world).advance(0.01)
    assert report.steps == ours.steps
    assert report.shortest_dt == pytest.approx(ours.shortest_dt, rel=1e-4)
    assert report.last_dt == pytest.approx(ours.last_dt, rel=1e-3)


@needs_taichi
def test_free_fall_and_momenta_of_a_spinning_block():
    x, volume = lattice((4, 4, 4), (0.31, 0.33, 0.6), H)
    W = torch.tensor([[0.0, -8.0, -4.0], [8.0, 0.0, -3.0], [4.0, 3.0, 0.0]], dtype=torch.float64)
    v = (x - x.mean(0)) @ W.T
    start = Particles.at_rest(x, volume, MATERIALS, torch.full((len(x),), JELLY), v=v, C=W.expand(len(x), 3, 3).clone())
    world = World(GRID, MATERIALS, gravity=(0.0, 0.0, 0.0))
    engine, highest, dt = TaichiEngine(start, world), 0.0, 0.0
    before = energies(start, world, 0.0).total
    for _ in range(30):
        dt = engine.advance(0.01, max_dt=1e-3).last_dt
        highest = max(highest, engine.energies(dt).total)
    after = engine.particles
    assert highest < 1.001 * before
    L = start.angular_momentum(H)
    assert after.momentum.norm() < 3e-5 * float((start.mass[:, None] * v.abs()).sum())
    assert (after.angular_momentum(H) - L).norm() < 1e-5 * L.norm()
    still = start.replace(v=0 * v, C=0 * start.C)
    engine, steps, dt = TaichiEngine(still, World(GRID, MATERIALS)), 400, 5e-4
    engine.advance(steps * dt, max_dt=dt)
    drop = 9.81 * dt**2 * steps * (steps + 1) / 2
    assert ((x - engine.particles.x)[:, 2] / drop - 1).abs().max() < 2e-5


def own_spin(particles):
    """Angular momentum about the center of mass."""
    return particles.angular_momentum(H) - torch.linalg.cross(particles.center, particles.momentum)


@needs_taichi
@pytest.mark.slow
def test_momenta_and_free_fall_over_3000_steps():
    grid, steps = Grid((-0.1, 0.05, 0.2), H, (40, 40, 60)), 3000
    x, volume = lattice((5, 5, 5), (0.4, 0.5, 1.2), H)
    W = torch.tensor([[0.0, -8.0, -4.0], [8.0, 0.0, -3.0], [4.0, 3.0, 0.0]], dtype=torch.float64)
    v = (x - x.mean(0)) @ W.T + torch.tensor([0.2, 0.1, -0.3], dtype=torch.float64)
    body = torch.full((len(x),), JELLY)
    start = Particles.at_rest(single(x), volume, MATERIALS, body, v=v, C=W.expand(len(x), 3, 3).clone())
    engine = TaichiEngine(start, World(grid, MATERIALS, gravity=(0.0, 0.0, 0.0)))
    assert engine.advance(steps * 2e-4, max_dt=2e-4).steps == steps
    P, spin = start.momentum, [own_spin(state) for state in (start, engine.particles)]
    assert (engine.particles.momentum - P).norm() < 3e-5 * P.norm()
    assert (spin[1] - spin[0]).norm() < 1e-5 * spin[0].norm()
    still, dt = Particles.at_rest(single(x), volume, MATERIALS, body), 1.3e-4
    engine = TaichiEngine(still, World(grid, MATERIALS))
    engine.advance(steps * dt, max_dt=dt)
    drop = 9.81 * dt**2 * steps * (steps + 1) / 2
    assert ((still.x - engine.particles.x)[:, 2] / drop - 1).abs().max() < 2e-5


@needs_taichi
@pytest.mark.slow
def test_two_threads_are_bitwise_equal_to_one():
    code = """
import hashlib, torch
from tests.stages.test_physics_taichi import *
torch.manual_seed(0)
torch.set_num_threads({threads})
engine = TaichiEngine(random_particles(), World(GRID, MATERIALS, boundaries=(SOLIDS["turning box"],)))
engine.advance(0.01)
assert taichi_runtime.num_threads() == {threads} and len(engine._launches) == {launches}
state = engine.particles
print(hashlib.sha256(b"".join(getattr(state, name).numpy().tobytes() for name in FIELDS)).hexdigest())
"""
    prints = []
    for threads, launches in ((1, 1), (2, 8)):
        command = [sys.executable, "-W", "ignore", "-c", code.format(threads=threads, launches=launches)]
        done = subprocess.run(command, check=True, timeout=300, text=True, capture_output=True, cwd=ROOT)
        prints.append(done.stdout.split()[-1])
    assert prints[0] == prints[1]


@needs_taichi
def test_a_bouncing_block_gains_no_energy():
    x, volume = lattice((3, 3, 3), (0.3, 0.35, 0.63), H)
    start = Particles.at_rest(x, volume, MATERIALS, torch.full((len(x),), JELLY))
    world = World(GRID, MATERIALS, boundaries=(Boundary("plane", (0.0, 0.0, 0.6), kind="slip"),))
    engine = TaichiEngine(start, world)
    totals = [energies(start, world, 0.0).total]
    for _ in range(25):
        report = engine.advance(0.01)
        totals.append(engine.energies(report.last_dt).total)
    fall = 9.81 * float(start.mass.sum()) * 0.03
    assert max(b - a for a, b in pairwise(totals)) < 1e-3 * fall
    assert totals[-1] < totals[0] - 0.1 * fall  # it touches the floor
    assert engine.particles.x[:, 2].min() > 0.6 - 0.5 * H


# State, errors, runtime


@needs_taichi
def test_order_and_type_of_the_particles_are_kept():
    particles, world = random_particles(300), World(GRID, MATERIALS)
    engine = TaichiEngine(particles, world)
    assert torch.equal(engine.particles.x, particles.x)
    engine.advance(5 * DT)
    first = engine.particles
    assert torch.equal(first.body, particles.body) and torch.equal(first.mass, particles.mass)
    assert (first.x - particles.x).abs().max() < 0.5 * H
    engine.update(v=torch.zeros_like(first.v))
    assert not engine.particles.v.any()
    torch.testing.assert_close(engine.particles.x, first.x)
    assert first.v.any()  # the caller's tensors are unchanged
    floats = particles.replace(**{name: getattr(particles, name).float() for name in (*FIELDS, "mass", "volume")})
    engine = TaichiEngine(floats, world)
    engine.advance(DT)
    assert engine.particles.x.dtype == torch.float32


@needs_taichi
def test_values_that_are_not_finite_or_outside_are_named():
    particles, world = random_particles(50), World(GRID, MATERIALS)
    with pytest.raises(InputError, match=r"Particles\.x: some are outside the grid or not finite"):
        TaichiEngine(particles.replace(x=particles.x + 5), world)
    engine = TaichiEngine(particles, world)
    engine.update(v=particles.v * math.nan)
    with pytest.raises(NumericalError, match="step 0: velocity is not finite"):
        engine.advance(DT)
    engine.update(v=particles.v, F=particles.F * math.nan)
    with pytest.raises(NumericalError, match=r"step 1: velocity is not finite"):
        engine.advance(3 * DT, max_dt=DT)
    engine.update(x=particles.x, v=particles.v, C=particles.C, F=particles.F * math.nan, F_total=particles.F)
    with pytest.raises(NumericalError, match="step 1: position or deformation is not finite"):
        engine.advance(DT, max_dt=DT)
    with pytest.raises(ConfigError, match="transfer: got 'fast', want colored or atomic"):
        TaichiEngine(particles, world, transfer="fast")


@needs_taichi
def test_another_device_in_one_process_is_rejected():
    taichi_runtime.runtime("cpu")
    with pytest.raises(BackendError, match=r"(taichi|quadrants) runs on (x64|arm64) in this process, want cuda"):
        taichi_runtime.runtime("cuda")


@needs_taichi
def test_a_runtime_of_the_caller_is_kept():
    code = f"""
import warnings; warnings.simplefilter("ignore")
import {taichi_runtime.require()} as ti
ti.init(arch=ti.cpu, cpu_max_num_threads=3)
field = ti.field(ti.f32, 4)
field[2] = 7.0
from vision3d.stages.simulate.engines import taichi_runtime
taichi_runtime.runtime("cpu")
assert field[2] == 7.0 and taichi_runtime.num_threads() == 3
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


@needs_taichi
def test_the_runtime_starts_without_output():
    """As in a notebook, where the output is not a terminal."""
    code = (
        "import io, sys; out = sys.stdout = io.StringIO()\n"
        "from vision3d.stages.simulate.engines import taichi_runtime\n"
        "taichi_runtime.runtime('cpu'); sys.stderr.write(out.getvalue())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=100, text=True, capture_output=True)
    assert done.stdout == done.stderr == ""


def test_importing_the_stage_does_not_import_taichi():
    code = (
        "import sys, vision3d, vision3d.stages.simulate.engines.taichi_engine\n"
        "assert not {'taichi', 'quadrants', 'warp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_without_taichi_there_is_one_error_and_auto_falls_back(monkeypatch, caplog):
    monkeypatch.setattr(taichi_runtime, "PACKAGES", ("no_such_package",))
    text = f"taichi is needed for the physics engine taichi: {install_command('physics')}"
    with pytest.raises(MissingDependencyError) as error:
        base.choose_engine("taichi")
    assert str(error.value) == text
    monkeypatch.setattr(base, "ENGINES", {name: base.ENGINES[name] for name in ("taichi", "reference")})
    with caplog.at_level(logging.INFO, "vision3d.physics"):
        assert base.choose_engine("auto").name == "reference"
    assert [record.getMessage() for record in caplog.records] == [f"engine taichi is not available: {text}"]


@needs_taichi
def test_the_engine_is_registered():
    assert isinstance(make_engine("taichi", random_particles(10), World(GRID, MATERIALS)), TaichiEngine)


def test_kernels_are_cached_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert taichi_runtime.cache_folder() == tmp_path / "vision3d" / "taichi"


def test_a_read_only_cache_is_one_warning_and_a_temporary_folder(monkeypatch, tmp_path, caplog):
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the folder should be, for root may write to read-only folders")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with caplog.at_level(logging.INFO, "vision3d.physics"):
        folder = taichi_runtime.cache_folder()
    assert folder.is_dir() and os.access(folder, os.W_OK) and tmp_path not in folder.parents
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{blocked / 'vision3d' / 'taichi'} is not writable (Not a directory)")


@needs_taichi
def test_denormal_numbers_work_after_taichi_starts():
    """Its start disables them for the whole thread: 5e-324 would be read as 0 from then on."""
    code = """
import torch
from vision3d.stages.simulate.engines.taichi_runtime import runtime
from vision3d.core.install import install_command
runtime()
assert float("5e-324") > 0
assert torch.tensor(1e-310, dtype=torch.float64) * 1 > 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)
