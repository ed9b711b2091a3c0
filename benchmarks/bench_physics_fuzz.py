"""200 random scenes in an engine, 2000 time steps each: non-finite values, lost particles, energy gain.

python benchmarks/bench_physics_fuzz.py [--engine auto] [--scenes 200] [--steps 2000] [--busy]
"""

import argparse
import math
import random
import time
from typing import Any

import torch
from support import ForeignLoad, add_options, refuse_foreign_load, write

from vision3d.core.errors import NumericalError
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats
from vision3d.stages.simulate.config import Boundary, Material
from vision3d.stages.simulate.engines import Engine, make_engine
from vision3d.stages.simulate.engines.mpm import energies
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.world import World

ELASTIC = ("corotated", "neo_hookean", "hencky")
LAWS = (*ELASTIC, "von_mises", "drucker_prager", "snow", "water", "viscoplastic")
CHUNK = 100  # steps between energy checks
GAIN = 0.005


def scene(seed: int) -> tuple[Particles, World, bool]:
    """One to three bodies of random shape, law and stiffness, including thin ones; half of them with gravity and solids."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    nodes = draw.choice((32, 48, 64, 96, 128))
    h = 1 / nodes
    forced = draw.random() < 0.5
    bodies, xs, vs, materials = draw.randint(1, 3), [], [], []
    laws = LAWS if forced else ELASTIC
    for index in range(bodies):
        law = draw.choice(laws)
        stiffness, ratio = 10 ** draw.uniform(3, 8), draw.uniform(0.05 if law == "water" else 0.0, 0.45)
        materials.append(Material(law, stiffness, ratio, density=draw.uniform(100, 3000), yield_stress=stiffness / 50))
        x = h * _shape(draw, nodes) @ quat_to_rotmat(random_quats(1)[0]).double().T
        xs.append(x + torch.tensor([0.5, 0.5, 0.2 + 0.3 * index]).double() + 0.05 * torch.randn(3).double())
        vs.append((draw.uniform(0, 5) * torch.randn(3).double()).expand_as(x))
    materials += [
        Material(law, poisson_ratio=0.3) for law in LAWS
    ]  # no body uses these: an engine that compiles for the laws of a world then compiles only once
    body = torch.cat([torch.full((len(x),), index) for index, x in enumerate(xs)])
    x = torch.cat(xs).clamp(4.5 * h, 1 - 4.5 * h)
    boundaries: tuple[Boundary, ...] = ()
    if forced:
        kind, friction = draw.choice(("sticky", "slip", "separate")), draw.uniform(0, 1)
        ball = Boundary("sphere", (0.5, 0.5, 0.15), radius=0.1, kind=kind, friction=friction)
        boundaries = (Boundary("plane", (0.0, 0.0, 0.1), kind=kind, friction=friction), ball)
    gravity = (0.0, 0.0, -9.81) if forced else (0.0, 0.0, 0.0)
    world = World(Grid((0.0, 0.0, 0.0), h, (nodes,) * 3), tuple(materials), gravity, boundaries)
    return Particles.at_rest(x, torch.full((len(x),), h**3 / 8).double(), world.materials, body, v=torch.cat(vs)), world, forced


def _shape(draw: random.Random, nodes: int) -> torch.Tensor:
    """A block, plate or rod, 8 jittered particles per cell; positions in cells relative to its center."""
    sizes = {"block": (5, 4, 5), "plate": (9, 9, 1), "sheet": (9, 9, 0.5), "rod": (1, 1, 12)}[
        draw.choice(("block", "plate", "sheet", "rod"))
    ]
    axes = [torch.arange(max(1, round(2 * size))).double() / 2 + 0.25 - size / 2 for size in sizes]
    x = torch.cartesian_prod(*axes)
    return x + 0.2 * (torch.rand(x.shape).double() - 0.5)


def run(engine: Engine, start: Particles, world: World, forced: bool, steps: int) -> dict[str, Any]:
    """Runs one scene; energies are relative to the total available: kinetic, elastic, and height above the floor."""
    first = energies(start, world, 0.0)
    floor = 9.81 * float(start.mass.sum()) * 0.1 if forced else 0.0
    scale = first.total - floor
    done, now, kept, gain, work = 0, 0.0, 0, 0.0, 0.0
    sound = max(world.materials[index].wave_speed for index in start.body.unique().tolist())
    while done < steps:
        span = CHUNK * 0.3 * world.grid.spacing / (sound + 1.0)
        report = engine.advance(span, now)
        done, now, kept = done + report.steps, now + span, kept + report.num_kept
        work += report.work  # work of solids and the grid's sides
        gain = max(gain, (engine.energies(report.last_dt).total - work - first.total) / scale)
    return {"steps": done, "kept": kept, "energy_gain": gain, "seconds": now}


def main() -> None:
    parser = argparse.ArgumentParser(description="Run random scenes in an engine of the material point method.")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=2000)
    add_options(parser)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(1)
    found, broken, begin = [], [], time.process_time()
    with ForeignLoad() as load:
        for seed in range(options.scenes):
            if seed and seed % 20 == 0:
                print(f"{seed} of {options.scenes} scenes, {time.process_time() - begin:.0f} CPU-s", flush=True)
            particles, world, forced = scene(seed)
            engine = make_engine(options.engine, particles, world)
            try:
                row = run(engine, particles, world, forced, options.steps)
            except NumericalError as error:
                broken.append(seed)
                print(f"scene {seed}: {error}")
                continue
            row |= {"seed": seed, "forced": forced, "particles": len(particles)}
            found.append(row)
            if row["energy_gain"] > GAIN or row["kept"]:
                laws = ", ".join(
                    f"{material.law} {material.youngs_modulus:.2g} Pa" for material in world.materials[: -len(LAWS)]
                )
                print(f"scene {seed}: gain {row['energy_gain']:.4f}, kept {row['kept']}, {laws}, {world.grid.shape[0]} nodes")
    summary: dict[str, Any] = {
        "engine": engine.name,
        "scenes": options.scenes,
        "steps_a_scene": options.steps,
        "not_finite": broken,
        "kept_inside": sum(row["kept"] for row in found),
        "cpu_s": time.process_time() - begin,
    }
    for name, which in (("free_elastic", False), ("forced", True)):
        gains = [row["energy_gain"] for row in found if row["forced"] == which]
        summary[name] = {"scenes": len(gains), "largest_energy_gain": max(gains, default=math.nan)}
        summary[name]["over_half_a_percent"] = [r["seed"] for r in found if r["forced"] == which and r["energy_gain"] > GAIN]
    print(summary)
    if options.scenes >= 200 and options.steps >= 2000:
        write(f"physics_fuzz_{engine.name}", summary, load.share)


if __name__ == "__main__":
    main()
