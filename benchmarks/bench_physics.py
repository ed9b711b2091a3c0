"""Engines of the material point method: CPU time per step against plain Taichi and Warp, scaling, memory, threads.

python benchmarks/bench_physics.py [--only PART]. Engines and peers whose packages are missing are skipped.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from physics_peers import Peer, PlainTaichi, PlainWarp
from support import ForeignLoad, add_options, refuse_foreign_load, write

from vision3d.core.errors import BackendError, ConfigError, MissingDependencyError
from vision3d.stages.simulate.config import Boundary, Material
from vision3d.stages.simulate.engines import ENGINES, Engine, choose_engine
from vision3d.stages.simulate.engines.mpm import advance
from vision3d.stages.simulate.engines.taichi_engine import TaichiEngine
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.world import World

DT, FLOOR, SIDE = 1e-4, 0.12, 0.3
STEPS, ROUNDS = 20, 5
MIN_RATE = 0.6  # million particle-steps per CPU-second of plain Taichi: a slower peer is not a fair comparison
FAST = tuple(name for name in ("native", "taichi") if name in ENGINES)


def scene(count: int, nodes: int, law: str = "corotated", is_flying: bool = False) -> tuple[Particles, World]:
    """A block of 0.3 m in a box of 1 m, float32: on a sticky floor, or flying above it, spinning and deforming."""
    x = SIDE * torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.35, 0.35, FLOOR])
    v = torch.zeros_like(x)
    if is_flying:  # engines differ in their contact with the floor
        x = x + torch.tensor([0.0, 0.0, 0.35])
        v = (x - x.mean(0)) @ torch.tensor([[1.0, 4.0, 0.0], [-3.0, -1.0, 1.0], [0.5, 0.0, 0.0]])
    material = Material(law, youngs_modulus=1e5, poisson_ratio=0.3)
    floor = Boundary("plane", (0.0, 0.0, FLOOR), kind="sticky")
    world = World(Grid((0.0, 0.0, 0.0), 1 / nodes, (nodes,) * 3), (material,), boundaries=(floor,))
    return Particles.at_rest(x, torch.full((count,), SIDE**3 / count), world.materials, v=v), world


class Ours:
    """An engine with the interface of the peers."""

    def __init__(self, make: Callable[[Particles, World], Engine], particles: Particles, world: World) -> None:
        self.engine, self.time = make(particles, world), 0.0

    def steps(self, count: int) -> None:
        report = self.engine.advance(count * DT, self.time, max_dt=DT)
        assert report.steps == count, "the material is too stiff for the step of this benchmark"
        self.time += count * DT

    def positions(self) -> torch.Tensor:
        return self.engine.particles.x


def contestants(count: int, nodes: int, is_flying: bool = False) -> dict[str, Callable[[], Peer]]:
    """All installed engines by name, with corotated jelly."""
    particles, world = scene(count, nodes, is_flying=is_flying)
    (material,) = world.materials
    volume = float(particles.volume[0])
    found: dict[str, Callable[[], Peer]] = {}
    for name, cls in {"plain taichi": PlainTaichi, "plain warp": PlainWarp}.items():
        found[name] = lambda cls=cls: cls(particles.x, particles.v, volume, material, nodes, DT, FLOOR)
    for name in FAST:
        try:
            made = choose_engine(name)
        except (BackendError, MissingDependencyError, ConfigError) as error:
            print(f"left out: {name}: {error}")
            continue
        found[name] = lambda made=made: Ours(made, particles, world)
    return found


def in_turns(calls: dict[str, Callable[[int], None]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median CPU-seconds of the process per step; calls alternate, so load by other processes affects all equally."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(3)  # compiles and warms up the caches
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call(STEPS)
            taken[name].append((time.process_time() - start) / STEPS)
    return {name: statistics.median(times) for name, times in taken.items()}


def peers() -> dict[str, Any]:
    """50 000 corotated particles, 64^3 nodes, one thread."""
    count, nodes = 50_000, 64
    alive: dict[str, Peer] = {}
    for name, make in contestants(count, nodes).items():
        try:
            alive[name] = make()
        except ImportError as error:
            print(f"left out: {name}: {error}")
    times = in_turns({name: peer.steps for name, peer in alive.items()})
    rates = {name: count / seconds / 1e6 for name, seconds in times.items()}
    if rates.get("plain taichi", MIN_RATE) < MIN_RATE:
        sys.exit(f"error: plain taichi reaches {rates['plain taichi']:.2f} million particle-steps per CPU-s, want {MIN_RATE}")
    found: dict[str, Any] = {"cpu_ms_a_step": {name: 1e3 * seconds for name, seconds in times.items()}}
    found["million_particle_steps_a_cpu_s"] = rates
    for base in ("plain taichi", "plain warp"):
        if base in times:
            found[f"times_as_fast_as_{base.replace(' ', '_')}"] = {
                name: times[base] / seconds for name, seconds in times.items() if name != base
            }
    return found


def same_motion() -> dict[str, Any]:
    """4000 particles of a flying block, 1000 steps: distance from the float64 reference [cells]."""
    count, nodes, steps = 4000, 32, 1000
    particles, world = scene(count, nodes, is_flying=True)
    exact = Particles.at_rest(particles.x.double(), particles.volume.double(), world.materials, v=particles.v.double())
    want, _ = advance(exact, world, steps * DT, max_dt=DT)
    moved = float((want.x - exact.x).norm(dim=-1).max()) * nodes
    found: dict[str, Any] = {"largest_move_cells": moved}
    for name, make in contestants(count, nodes, is_flying=True).items():
        try:
            peer = make()
        except ImportError:
            continue
        peer.steps(steps)
        error = float((peer.positions().double() - want.x).norm(dim=-1).max()) * nodes
        assert error < 0.01 * moved, f"{name} moves differently: off by {error} cells after moving {moved}"
        found[name] = error
    return found


def colored_and_atomic() -> dict[str, Any]:
    """The Taichi engine's two transfers to the grid, one thread, and their differences after one step."""
    found: dict[str, Any] = {}
    if not _runs("taichi"):
        return found
    for law in ("water", "neo_hookean", "corotated"):
        particles, world = scene(50_000, 64, law)
        v = 0.1 * torch.randn(50_000, 3, generator=torch.Generator().manual_seed(1))
        particles = particles.replace(v=v)
        engines = {way: Ours(lambda p, w, way=way: TaichiEngine(p, w, way), particles, world) for way in ("colored", "atomic")}
        for engine in engines.values():
            engine.steps(1)
        first, second = (engine.engine.particles for engine in engines.values())
        errors = {
            name: float((getattr(first, name) - getattr(second, name)).abs().max() / getattr(first, name).abs().max())
            for name in ("x", "v", "C", "F")
        }
        times = in_turns({way: engine.steps for way, engine in engines.items()})
        found[law] = {
            "cpu_ms_a_step": {way: 1e3 * seconds for way, seconds in times.items()},
            "times_as_fast": times["atomic"] / times["colored"],
            "largest_relative_difference_after_one_step": errors,
        }
    return found


def scaling() -> dict[str, Any]:
    """CPU-ms per step by particles (64^3 nodes) and by nodes (50 000 particles), one thread."""
    rows: dict[str, Any] = {}
    for name in FAST:
        if not _runs(name):
            continue
        made = choose_engine(name)
        by_particles, by_nodes = {}, {}
        for count in (10_000, 30_000, 100_000, 300_000, 1_000_000):
            engine = Ours(made, *scene(count, 64))
            by_particles[count] = 1e3 * in_turns({name: engine.steps}, rounds=3)[name]
        for nodes in (32, 64, 128, 256):
            engine = Ours(made, *scene(50_000, nodes))
            by_nodes[nodes] = 1e3 * in_turns({name: engine.steps}, rounds=3)[name]
        rows[name] = {"cpu_ms_by_particles": by_particles, "cpu_ms_by_nodes_a_side": by_nodes}
    return rows


def memory() -> dict[str, Any]:
    """Peak resident bytes per particle and per node of each engine, in separate processes: slopes between two sizes."""
    found: dict[str, Any] = {}
    for name in FAST:
        if not _runs(name):
            continue
        small, large, wide = (_alone("peak", name, *sizes) for sizes in ((200_000, 64), (1_000_000, 64), (200_000, 256)))
        found[name] = {
            "bytes_a_particle": (large - small) / 800_000,
            "bytes_a_node": (wide - small) / (256**3 - 64**3),
        }
    return found


def peak(name: str, count: int, nodes: int) -> float:
    """Maximum growth of this process while an engine takes steps, excluding its input (Linux)."""
    choose_engine(name)
    warm = Ours(choose_engine(name), *scene(1000, 32))
    warm.steps(2)  # excludes compilers and libraries
    particles, world = scene(count, nodes)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    engine = Ours(choose_engine(name), particles, world)
    engine.steps(25)
    return _status("VmHWM") - before


def threads() -> dict[str, Any]:
    """Wall-seconds with one and two threads for 200 000 particles, in separate processes; needs an idle machine."""
    found: dict[str, Any] = {}
    for name in FAST:
        if not _runs(name):
            continue
        one, two = (_alone("wall", name, 200_000, 64, threads=count) for count in (1, 2))
        found[name] = {"wall_ms_1": 1e3 * one, "wall_ms_2": 1e3 * two, "times_as_fast": one / two}
    return found


def wall(name: str, count: int, nodes: int) -> float:
    """Wall-seconds per step, median of five."""
    engine = Ours(choose_engine(name), *scene(count, nodes))
    engine.steps(3)
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        engine.steps(STEPS)
        taken.append((time.perf_counter() - start) / STEPS)
    return statistics.median(taken)


def start() -> dict[str, Any]:
    """Wall-seconds from creating the engine to the end of the first step, with kernels compiled before."""
    return {name: _alone("first_step", name, 50_000, 64) for name in FAST if _runs(name)}


def first_step(name: str, count: int, nodes: int) -> float:
    """Wall-seconds to the first step in this process, with vision3d already imported."""
    particles, world = scene(count, nodes)
    begin = time.perf_counter()
    Ours(choose_engine(name), particles, world).steps(1)
    return time.perf_counter() - begin


def _runs(name: str) -> bool:
    try:
        choose_engine(name)
    except (BackendError, MissingDependencyError):
        return False
    return True


def _alone(function: str, name: str, count: int, nodes: int, threads: int = 1) -> float:
    call = f"import bench_physics as b; b.torch.set_num_threads({threads}); print(b.{function}({name!r}, {count}, {nodes}))"
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, check=True, env=environment, cwd=Path(__file__).parent
    )
    return float(done.stdout.strip().splitlines()[-1])


def _status(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key + ":"))
    return 1024.0 * float(line.split()[1])


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "same_motion": same_motion,
    "peers": peers,
    "colored_and_atomic": colored_and_atomic,
    "scaling": scaling,
    "memory": memory,
    "start": start,
    "threads": threads,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark the engines of the material point method.")
    add_options(parser)
    parser.add_argument("--only", choices=PARTS, help="run only this part, and write nothing")
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with ForeignLoad() as load:
        for name in [options.only] if options.only else PARTS:
            results[name] = PARTS[name]()
            print(name, _rounded(results[name]))
    if not options.only:
        write("physics", results, load.share)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) and math.isfinite(value) else value


if __name__ == "__main__":
    main()
