"""Accuracy of the native engine in float32 against closed forms of mechanics.

Results depend on the rounding of the CPU but not on its load: --busy is safe here.
"""

import math
import time
from itertools import pairwise
from typing import Any

import torch
from support import ForeignLoad, arguments, refuse_foreign_load, write
from torch import Tensor

from vision3d.geometry.rotation import hat
from vision3d.stages.simulate.config import Boundary, Material
from vision3d.stages.simulate.engines import Engine, make_engine
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.world import World

G = 9.81


def lattice(cells: tuple[int, int, int], corner: tuple[float, float, float], h: float, side: int = 2) -> tuple[Tensor, Tensor]:
    """Particles in a box of whole cells, `side`^3 per cell: positions and volumes."""
    axes = [(torch.arange(side * n, dtype=torch.float64) + 0.5) * h / side for n in cells]
    x = torch.cartesian_prod(*axes) + torch.tensor(corner, dtype=torch.float64)
    return x, torch.full((len(x),), (h / side) ** 3, dtype=torch.float64)


def engine_of(world: World, x: Tensor, volume: Tensor, **values: Tensor) -> Engine:
    """The native engine with undeformed particles, in float32."""
    values = {name: value.float() if value.is_floating_point() else value for name, value in values.items()}
    body = values.pop("body", None)
    start = {name: values.pop(name) for name in ("v", "C") if name in values}
    particles = Particles.at_rest(x.float(), volume.float(), world.materials, body, **start)
    return make_engine("native", particles.replace(**values), world)


def in_double(particles: Particles) -> Particles:
    """Fields in float64, for accurate sums."""
    names = ("x", "v", "C", "mass")
    return particles.replace(**{name: getattr(particles, name).double() for name in names})


def free_fall(steps: int = 3000, dt: float = 1e-4) -> float:
    """Error of the height after a fall, relative to the drop."""
    jelly, h = Material("jelly", youngs_modulus=1e5, poisson_ratio=0.3), 1 / 32
    world = World(Grid((0.0, 0.0, 0.0), h, (33, 33, 49)), (jelly,))
    x, volume = lattice((4, 4, 4), (0.4, 0.4, 1.2), h)
    engine = engine_of(world, x, volume)
    engine.advance(steps * dt, max_dt=dt)
    drop = G * dt**2 * steps * (steps + 1) / 2
    return float(((x.float().double() - engine.particles.x.double())[:, 2] / drop - 1).abs().max())


def spin(steps: int = 3000) -> dict[str, float]:
    """Relative drift of momentum and angular momentum of a flying block that rotates at 10 rad/s; energy gain."""
    jelly, h = Material("jelly", youngs_modulus=1e5, poisson_ratio=0.3), 1 / 32
    world = World(Grid((0.0, 0.0, 0.0), h, (49, 49, 49)), (jelly,), gravity=(0.0, 0.0, 0.0))
    x, volume = lattice((8, 8, 8), (0.5, 0.5, 0.5), h)
    W = hat(torch.tensor([3.0, -4.0, 8.7], dtype=torch.float64))
    v = (x - x.mean(0)) @ W.T + torch.tensor([0.3, 0.2, -0.1])
    engine = engine_of(world, x, volume, v=v, C=W.expand(len(x), 3, 3))
    before, energy = in_double(engine.particles), engine.energies(0.0).total
    momentum, angular = before.momentum, before.angular_momentum(h)
    highest, taken, drift, turn = 0.0, 0, 0.0, 0.0
    while taken < steps:
        report = engine.advance(0.01, max_dt=2.5e-4)
        taken += report.steps
        now = in_double(engine.particles)
        drift = max(drift, float((now.momentum - momentum).norm() / momentum.norm()))
        turn = max(turn, float((now.angular_momentum(h) - angular).norm() / angular.norm()))
        highest = max(highest, engine.energies(report.last_dt).total / energy - 1)
    return {"momentum": drift, "angular momentum": turn, "energy gain": highest, "steps": taken}


def bar(cells: int = 24) -> dict[str, float]:
    """Period of a free bar divided by 2 L sqrt(rho / E), and remaining amplitude after two periods."""
    soft, length, speed, dt = Material("corotated", youngs_modulus=1e4, poisson_ratio=0.0), 0.5, 0.01, 2e-4
    h = length / cells
    x, volume = lattice((cells, 1, 1), (0.0, 0.0, 0.0), h)
    phase = math.pi * x[:, 0] / length
    v, C = torch.zeros_like(x), torch.zeros(len(x), 3, 3, dtype=torch.float64)
    v[:, 0] = speed * phase.cos()
    C[:, 0, 0] = -speed * math.pi / length * phase.sin()
    world = World(Grid((-6 * h, -5 * h, -5 * h), h, (cells + 13, 12, 12), 0), (soft,), gravity=(0.0, 0.0, 0.0))
    engine = engine_of(world, x, volume, v=v, C=C)
    period, amplitudes = 2 * length * math.sqrt(1000.0 / 1e4), []
    for _ in range(round(2.1 * period / dt)):
        engine.advance(dt)
        amplitudes.append(float((engine.particles.v[:, 0].double() * phase.cos()).sum() / phase.cos().square().sum()) / speed)
    crossings = [i + a / (a - b) for i, (a, b) in enumerate(pairwise(amplitudes)) if (a > 0) != (b > 0)]
    measured = (crossings[3] - crossings[0]) / 1.5 * dt
    return {"period over theory": measured / period, "amplitude after two": amplitudes[round(2 * period / dt) - 1]}


def cantilever(layers: int, slenderness: int = 8) -> dict[str, float]:
    """Mean deflection of a beam's tip over one period, relative to Euler and Bernoulli, and to Timoshenko, minus 1."""
    thickness, E = 0.1, 1e6
    h, length, held = thickness / layers, slenderness * thickness, 3
    beam = Material("corotated", youngs_modulus=E, poisson_ratio=0.0)
    pull = 0.01 * length * 8 * E * thickness**2 / (12 * beam.density * length**4)
    count = slenderness * layers
    x, volume = lattice((count + held, max(layers // 4, 1), layers), (5 * h, 5 * h, 5 * h), h)
    root = (5 + held) * h
    wall = Boundary("plane", (root + 1e-4 * h, 0.0, 0.0), normal=(1.0, 0.0, 0.0), kind="sticky")
    grid = Grid((0.0, 0.0, 0.0), h, (count + held + 13, layers // 4 + 12, layers + 11), 0)
    engine = engine_of(World(grid, (beam,), (0.0, 0.0, -pull), (wall,)), x, volume)
    tip = x[:, 0] > x[:, 0].max() - 0.6 * h
    at = float(x[tip, 0].mean()) - root
    bending = beam.density * pull * 12 / (24 * E * thickness**2)
    want = bending * (at**4 - 4 * length * at**3 + 6 * length**2 * at**2)
    shear = beam.density * pull * 1.2 * 2 / E * (length * at - at**2 / 2)  # Timoshenko's part, 1.2 for a rectangle, G = E / 2
    period = 2 * math.pi * length**2 / 3.516 * math.sqrt(12 * beam.density / (E * thickness**2))
    sags = []
    for _ in range(400):
        engine.advance(period / 400)
        sags.append(float((x[tip, 2] - engine.particles.x[tip, 2].double()).mean()))
    sag = sum(sags) / len(sags)
    return {"Euler and Bernoulli": sag / want - 1, "Timoshenko": sag / (want + shear) - 1}


def hydrostatics(cells: int = 24, wide: int = 8, duration: float = 1.2) -> dict[str, float]:
    """For a column of water, averaged over time: mean compression / (rho g H / 2 K), and dp/dy / (rho g) in the middle 60 %.

    With K = 2e6 Pa the mean compression is 0.2 %, so the density is close to that at rest.
    """
    height, nu, bulk = 1.0, 0.45, 2e6
    h = height / cells
    column = Material("water", youngs_modulus=bulk * (1 + nu) * (1 - 2 * nu) / nu, poisson_ratio=nu)
    edge = 4 * h
    x, volume = lattice((wide, wide, cells), (edge, edge, edge), h)
    depth = height - (x[:, 2] - edge)
    squeeze = column.density * G / bulk
    x[:, 2] -= squeeze * (height**2 - depth**2) / 2
    widths = (1 - squeeze * depth) ** (1 / 3)
    half = ((wide / 2 - 1e-4) * h, (wide / 2 - 1e-4) * h, height - 1e-4 * h)
    tank = Boundary("box", (edge + wide * h / 2, edge + wide * h / 2, edge + height), half_size=half, hollow=True, kind="slip")
    world = World(Grid((0.0, 0.0, 0.0), h, (wide + 9, wide + 9, cells + 13)), (column,), boundaries=(tank,))
    engine = engine_of(world, x, volume, F=widths[:, None, None] * torch.eye(3).double())
    compressions, slopes, tops = [], [], []
    for _ in range(240):
        engine.advance(duration / 240)
        now = engine.particles
        J, y = torch.linalg.det(now.F.double()), now.x[:, 2].double() - edge
        middle = (y > 0.2 * height) & (y < 0.8 * height)
        matrix = torch.stack([y, torch.ones_like(y)], -1)[middle]
        fitted = torch.linalg.lstsq(matrix, bulk * (1 - J)[middle, None]).solution[0, 0]
        compressions.append(float(1 - J.mean()))
        slopes.append(float(-fitted) / (column.density * G))
        tops.append(float(y.max()))
    late = slice(60, None)
    return {
        "mean compression over theory": sum(compressions[late]) / 180 / (squeeze * height / 2),
        "dp/dy over rho g": sum(slopes[late]) / 180,
        "lowest top": min(tops),
        "highest top": max(tops),
    }


def _dropped(cells: int, shift: float) -> tuple[Engine, float, float]:
    """A jelly cube of 0.25 m, 0.3 m above a frictionless floor: engine, height of the floor, drop [m].

    Args:
        cells: Cells along its side.
        shift: Offset of cube and floor from the nodes, in cells.
    """
    jelly, h, drop = Material("jelly", youngs_modulus=2e4, poisson_ratio=0.3), 0.25 / cells, 0.3
    floor, counts = 0.2 + shift * h, (4 * cells + 1, 4 * cells + 1, 6 * cells + 1)
    world = World(
        Grid((0.0, 0.0, 0.0), h, counts), (jelly,), boundaries=(Boundary("plane", (0.0, 0.0, floor), kind="separate"),)
    )
    x, volume = lattice((cells, cells, cells), (0.4, 0.4, floor + drop), h)
    return engine_of(world, x, volume), floor, drop


def rebound() -> dict[str, float]:
    """Maximum rebound of the cube relative to its drop, and maximum energy gain in one step relative to m g drop."""
    engine, floor, drop = _dropped(8, 3.2e-4)
    fallen = float(engine.particles.mass.sum()) * G * drop
    last, gain, lows, highest = engine.energies(0.0).total, 0.0, [], 0.0
    for _ in range(3000):
        report = engine.advance(4e-4, max_dt=4e-4)
        total = engine.energies(report.last_dt).total
        gain, last = max(gain, (total - last) / fallen), total
        height = float(engine.particles.center[2]) - floor
        lows.append(height)
        if min(lows) < 0.16 and height > lows[-2 if len(lows) > 1 else -1]:
            highest = max(highest, height)
    return {"rebound over drop": (highest - 0.125) / drop, "energy gain in a step": gain}


def rebound_by(cells: int, shift: float) -> float:
    """Maximum rebound of the cube relative to its drop, with time steps chosen by the engine."""
    engine, floor, drop = _dropped(cells, shift)
    heights = []
    for index in range(240):
        engine.advance(0.005, 0.005 * index)
        heights.append(float(engine.particles.center[2]) - floor)
    lowest = min(range(100), key=heights.__getitem__)
    return (max(heights[lowest:]) - 0.125) / drop


def heap(friction_deg: float = 30.0) -> dict[str, float]:
    """Slope [degrees] of a low heap of sand, half as high as long, whose wall is removed slowly."""
    height, h = 0.2, 0.0125
    sand = Material("sand", youngs_modulus=3.537e5, poisson_ratio=0.3, density=2200.0, friction_deg=friction_deg)
    edge, long, wide = 4 * h, 32, 3
    x, volume = lattice((long, wide, 16), (edge, edge, edge), h)
    depth = height - (x[:, 2] - edge)
    F = torch.eye(3, dtype=torch.float64).repeat(len(x), 1, 1)
    F[:, 2, 2] = (-sand.density * G * depth / (sand.lam + 2 * sand.mu)).exp()  # compressed by its weight
    near = 1e-4 * h
    walls = (
        Boundary("plane", (0.0, edge + near, 0.0), (0.0, 1.0, 0.0), kind="slip"),
        Boundary("plane", (0.0, edge + wide * h - near, 0.0), (0.0, -1.0, 0.0), kind="slip"),
        Boundary("plane", (edge + near, 0.0, 0.0), (1.0, 0.0, 0.0), kind="slip"),
        Boundary("plane", (edge + long * h - near, 0.0, 0.0), (-1.0, 0.0, 0.0), velocity=(0.1, 0.0, 0.0)),
        Boundary("plane", (0.0, 0.0, edge + near), kind="sticky"),
    )
    world = World(Grid((0.0, 0.0, 0.0), h, (long + 60, wide + 9, 30)), (sand,), boundaries=walls)
    engine = engine_of(world, x, volume, F=F)
    engine.advance(5.0)
    moved = engine.particles.x.double() - edge
    columns = (moved[:, 0] / h).floor().long()
    tops = torch.stack(
        [
            moved[columns == column, 2].quantile(0.98)
            for column in range(int(columns.max()) + 1)
            if (columns == column).sum() > 8
        ]
    )
    on_flank = (tops < 0.75 * tops[:4].mean()) & (tops > 0.2 * tops[:4].mean())
    where = (torch.arange(len(tops)).double() + 0.5)[on_flank] * h
    slope = torch.linalg.lstsq(torch.stack([where, torch.ones_like(where)], -1), tops[on_flank, None]).solution[0, 0]
    return {
        "slope": math.degrees(math.atan(-float(slope))),
        "critical slope": math.degrees(math.atan(2 * math.sqrt(3) / (3 / math.sin(math.radians(friction_deg)) - 1))),
        "run-out over length": float(moved[:, 0].quantile(0.99)) / (long * h) - 1,
        "height left": float(tops[:4].mean()) / height,
    }


def main() -> None:
    args = arguments(__doc__ or "")
    if not args.busy:
        refuse_foreign_load()
    with ForeignLoad() as load:
        start = time.process_time()
        found: dict[str, Any] = {
            "free fall, 3000 steps": free_fall(),
            "spinning block": spin(),
            "bar": bar(),
            "rebound": rebound(),
        }
        found["hydrostatics, 24 cells"] = hydrostatics()
        for angle in (30.0, 45.0):
            found[f"heap, {angle:g} degrees"] = heap(angle)
        found["bar by cells"] = {f"{cells}": bar(cells)["period over theory"] - 1 for cells in (12, 24, 48)}
        found["cantilever"] = {f"{layers} cells": cantilever(layers) for layers in (1, 2, 3, 4, 8, 12)}
        found["rebound by cells"] = {
            f"{cells}": {f"shift {shift:g}": rebound_by(cells, shift) for shift in (0.0, 0.25, 0.5, 0.75)}
            for cells in (4, 6, 8, 12, 16)
        }
        for name, value in found.items():
            print(name, value, flush=True)
        found["cpu_s"] = round(time.process_time() - start, 1)
    write("mechanics", found, load.share)


if __name__ == "__main__":
    main()
