"""Resting positions of bodies: on the surface of their support, independent of the grid's nodes."""

import math

import pytest
import torch

from tests.support.physics import BodiesEngine
from vision3d.core import native
from vision3d.core.errors import BackendError, MissingDependencyError
from vision3d.stages.simulate.config import Boundary, Material
from vision3d.stages.simulate.engines import choose_engine, make_engine
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.world import World

H = 1 / 32
JELLY = Material("jelly", youngs_modulus=3e4, poisson_ratio=0.2, density=1000)
SHIFTS = (0.02, 0.25, 0.5, 0.75, 0.97)


def needs(name):
    try:
        choose_engine(name)
    except (BackendError, MissingDependencyError) as error:
        return str(error)
    return ""


def height_at_rest(shift, engine, normal=(0.0, 0.0, 1.0), boundary=None, seconds=0.35, cells=3):
    """Height of a block placed on a plane through (0.5, 0.5, 0.3) + shift h: its center above the plane, averaged over the
    second part of its oscillation [h]."""
    normal = torch.nn.functional.normalize(torch.tensor(normal, dtype=torch.float64), dim=0)
    foot = torch.tensor([0.5, 0.5, 9.5 * H], dtype=torch.float64) + shift * H * normal
    line = (torch.arange(2 * cells, dtype=torch.float64) + 0.5) * H / 2
    x = torch.cartesian_prod(line - cells * H / 2, line - cells * H / 2, line)
    helper = torch.eye(3, dtype=torch.float64)[0]
    first = torch.nn.functional.normalize(torch.linalg.cross(torch.linalg.cross(normal, helper), normal), dim=0)
    frame = torch.stack([first, torch.linalg.cross(normal, first), normal], -1)
    x = foot + x @ frame.mT
    floor = (
        boundary(foot, normal) if boundary else Boundary("plane", tuple(foot.tolist()), tuple(normal.tolist()), friction=0.4)
    )
    world = World(Grid((0.0, 0.0, 0.0), H, (33, 33, 33)), (JELLY,), tuple((-9.81 * normal).tolist()), (floor,))
    particles = Particles.at_rest(x, torch.full((len(x),), H**3 / 8, dtype=torch.float64), world.materials)
    if engine in ("bodies", "bodies64"):
        found = BodiesEngine(particles, world, torch.float64 if engine == "bodies64" else torch.float32)
    else:
        found = make_engine(engine, particles, world)
    heights, step = [], 0.01
    for index in range(round(seconds / step)):
        found.advance(step, index * step)
        heights.append(float((found.particles.x.double().mean(0) - foot) @ normal) / H)
    late = heights[len(heights) // 3 :]
    return sum(late) / len(late)


@pytest.mark.parametrize("engine", ["native", "taichi", pytest.param("reference", marks=pytest.mark.slow)])
def test_the_resting_height_does_not_depend_on_the_nodes(engine):
    """Moved by fractions of a cell, a block rests at the same height above its floor, to 0.05 h (half its own height)."""
    if why := needs(engine):
        pytest.skip(why)
    shifts = SHIFTS if engine == "native" else SHIFTS[::2]
    heights = [height_at_rest(shift, engine) for shift in shifts]
    assert max(heights) - min(heights) < 0.05
    assert abs(sum(heights) / len(heights) - 1.5) < 0.15


@pytest.mark.skipif(native.module() is None, reason="no native module")
def test_bodies_of_gpu_kernels_rest_where_the_vector_loops_do():
    for shift in (0.25, 0.75):
        assert abs(height_at_rest(shift, "bodies", seconds=0.1) - height_at_rest(shift, "native", seconds=0.1)) < 1e-3


def height_after_a_fall(engine, lift, shift, stiffness, width=3):
    """Mean final height of the lower side [h] of a block dropped from `lift` cells above a plane that is `shift` cells next to
    a node."""
    foot = (9.5 + shift) * H
    across, up = (
        (torch.arange(2 * width, dtype=torch.float64) + 0.5) * H / 2,
        (torch.arange(6, dtype=torch.float64) + 0.5) * H / 2,
    )
    x = torch.cartesian_prod(across + 0.4, across + 0.4, up + foot + lift * H)
    material = Material("jelly", youngs_modulus=stiffness, poisson_ratio=0.2, density=1000)
    floor = Boundary("plane", (0.5, 0.5, foot), friction=0.4)
    world = World(Grid((0.0, 0.0, 0.0), H, (33, 33, 33)), (material,), boundaries=(floor,))
    start = Particles.at_rest(x, torch.full((len(x),), H**3 / 8, dtype=torch.float64), world.materials)
    engine = make_engine(engine, start, world)
    heights = []
    for index in range(90):
        engine.advance(0.01, index * 0.01)
        heights.append(float((engine.particles.x[:, 2].double().mean() - foot) / H) - 1.5)
    return sum(heights[-30:]) / 30


@pytest.mark.parametrize("engine", ["native", pytest.param("taichi", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stiffness", [3e4, 1e6])
def test_falling_bodies_come_to_rest_on_the_surface(engine, stiffness):
    """Not where its particles first share a node with the floor, 0.2 to 0.6 h above it."""
    if why := needs(engine):
        pytest.skip(why)
    for lift, shift, width in ((0.5, 0.02, 3), (2.0, 0.5, 3), (2.0, 0.97, 2)):
        assert abs(height_after_a_fall(engine, lift, shift, stiffness, width)) < 0.06, (lift, shift, width)


def box(foot, normal):
    return Boundary("box", tuple((foot - 0.1 * normal).tolist()), half_size=(0.3, 0.3, 0.1), friction=0.4)


def ball(foot, normal):
    return Boundary("sphere", tuple((foot - 3.0 * normal).tolist()), radius=3.0, friction=0.4)


@pytest.mark.skipif(native.module() is None, reason="no native module")
@pytest.mark.parametrize("solid", [box, ball])
def test_other_solids_support_at_their_surface(solid):
    heights = [height_at_rest(shift, "native", boundary=solid) for shift in SHIFTS]
    assert max(heights) - min(heights) < 0.05


@pytest.mark.skipif(native.module() is None, reason="no native module")
def test_a_tilted_floor_is_not_a_staircase():
    tilted = (0.1, 0.05, 1.0)
    heights = [height_at_rest(shift, "native", tilted) for shift in SHIFTS]
    assert max(heights) - min(heights) < 0.05
    assert abs(sum(heights) / len(heights) - height_at_rest(0.5, "native")) < 0.05
    assert math.isfinite(heights[0])


def slide(engine, gap, scale, seconds=0.06):
    """Jelly (4 x 4 x 2 cells) and water (the same, `gap` cells next to it, or none) slide at 1 m/s on a floor of friction 0.4:
    momentum loss of each, relative to that by friction of the solid's weight in that time."""
    line, up = (torch.arange(8, dtype=torch.float64) + 0.5) * H / 2, (torch.arange(4, dtype=torch.float64) + 0.5) * H / 2
    first = torch.cartesian_prod(line + 0.3, line + 0.3, up + 0.2)
    x = first if gap is None else torch.cat([first, first + torch.tensor([0.0, (4 + gap) * H, 0.0], dtype=torch.float64)])
    body = torch.arange(len(x)) // len(first)
    materials = JELLY, Material("water", youngs_modulus=3e4, poisson_ratio=0.4, density=1000, friction_scale=scale)
    floor = Boundary("plane", (0.0, 0.0, 0.2), friction=0.4)
    world = World(Grid((0.0, 0.0, 0.0), H, (33, 33, 33)), materials, boundaries=(floor,))
    v = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand_as(x)
    volume = torch.full((len(x),), H**3 / 8, dtype=torch.float64)
    engine = make_engine(engine, Particles.at_rest(x, volume, materials, body, v=v), world)
    engine.advance(seconds, max_dt=1e-3)  # not limited by a material: the same steps with water and without
    found = engine.particles
    lost = found.mass.double() * (1 - found.v[:, 0].double())
    weight = 0.4 * float(found.mass.double()[body == 0].sum()) * 9.81 * seconds
    return [float(lost[body == index].sum()) / weight for index in (0, 1)]


@pytest.mark.parametrize("engine", ["native", "taichi", pytest.param("reference", marks=pytest.mark.slow)])
def test_water_next_to_a_solid_does_not_get_its_friction(engine):
    if why := needs(engine):
        pytest.skip(why)
    alone, _ = slide(engine, None, None)
    solid, water = slide(engine, 4, None)
    assert abs(solid - alone) < 1e-3
    assert abs(water) < 1e-5
    solid, water = slide(engine, 0, None)  # side by side, they interact through shared nodes
    assert abs(solid + water - alone) < 0.1
    assert sum(slide(engine, 0, 1.0)) > alone + 0.6
