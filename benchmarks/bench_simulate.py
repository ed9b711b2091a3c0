"""The command `simulate` as a user runs it: biker.spz with defaults, a tenth simulated against all, start-up times.

python benchmarks/bench_simulate.py DATA/splats/biker.spz --demo RUN_FOLDER_OF_THE_DEMO
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, refuse_foreign_load, write

from vision3d.scene import GaussianScene
from vision3d.stages.simulate.config import SimulateConfig
from vision3d.stages.simulate.setup.builder import set_up
from vision3d.stages.simulate.simulation import Simulation

JIGGLE = ("--preset", "rubber", "--drop", "0.15", "--frames", "72", "--video")  # the command of the README


def whole_command(scene: Path, *options: str) -> dict[str, Any]:
    """Wall seconds of the command, and its summary."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        start = time.perf_counter()
        command = [sys.executable, "-m", "vision3d", "simulate", str(scene), "--out", str(out), "--quiet", *options]
        subprocess.run(command, check=True)
        wall = time.perf_counter() - start
        found = json.loads((out / "summary.json").read_text())["results"]
    found.pop("video", None)
    return {"options": " ".join(options), "wall_s": round(wall, 1), **found}


def followers(scene: GaussianScene, cells: int, frames: int = 25) -> dict[str, Any]:
    """Distances [cells] of all Gaussians, with a tenth of them simulated, from their positions when all are simulated."""
    torch.set_num_threads(1)  # waiting threads count as CPU time
    config = SimulateConfig(frames=frames, cells=cells, size=1.0)
    runs, found = {}, {}
    for share in (1.0, 0.1):
        setup = set_up(scene, replace(config, share=share), default_up=(0.0, -1.0, 0.0))
        simulation = Simulation(setup, replace(config, share=share))
        start = time.process_time()
        means = torch.stack([frame.channels["means"] for frame in simulation.frames()])
        found[f"share {share:g}"] = {
            "particles": len(setup.particles), "substeps": simulation.substeps,
            "engine_cpu_s": simulation.cpu_seconds, "frames_cpu_s": time.process_time() - start,
        }  # fmt: skip
        runs[share] = means.double() * setup.scale / setup.world.grid.spacing
    error = torch.linalg.vector_norm(runs[0.1] - runs[1.0], dim=-1)
    found["error_cells"] = {
        f"frame {index}": {"median": float(error[index].median()), "p99": float(error[index].quantile(0.99))}
        for index in (6, 12, 18, frames - 1)
    }
    found["engine_cpu_ratio"] = found["share 1"]["engine_cpu_s"] / found["share 0.1"]["engine_cpu_s"]
    return found


def start_up() -> dict[str, float]:
    """Wall seconds from the end of the imports to the end of the first time step; for Taichi with a warm cache."""
    script = """
import sys, time
import torch
from vision3d.stages.simulate.config import Material
from vision3d.stages.simulate.engines import make_engine
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.world import World
name = sys.argv[1]
if name == "taichi":
    import taichi
x = torch.rand(1000, 3) * 0.3 + 0.35
world = World(Grid((0.0, 0.0, 0.0), 1 / 32, (32, 32, 32)), (Material(),))
start = time.perf_counter()
make_engine(name, Particles.at_rest(x, torch.full((1000,), 1e-5), world.materials), world).advance(1e-4)
print(time.perf_counter() - start)
"""
    found = {}
    for name in ("native", "taichi"):
        times = []
        for _ in range(4):  # the first run fills the cache
            run = subprocess.run([sys.executable, "-c", script, name], check=True, capture_output=True, text=True)
            times.append(float(run.stdout.split()[-1]))
        found[name] = min(times[1:])
    imported = "import vision3d.stages.simulate, sys; print('taichi' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", imported], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False", "importing the stage imports taichi"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path, help="biker.spz")
    parser.add_argument("--demo", type=Path, help="run folder of `vision3d demo`, for the command of the README")
    add_options(parser)
    args = parser.parse_args()
    if not args.busy:
        refuse_foreign_load()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with ForeignLoad() as load:
        found: dict[str, Any] = {"biker": whole_command(args.scene, "--frames", "100", "--video")}
        print(found["biker"], flush=True)
        if args.demo:
            found["demo"] = whole_command(args.demo, *JIGGLE)
            print(found["demo"], flush=True)
        scene = GaussianScene.load(args.scene)
        for cells in (20, 24, 32):
            found[f"followers, {cells} cells"] = followers(scene, cells)
            print(cells, found[f"followers, {cells} cells"], flush=True)
        torch.set_num_threads(os.cpu_count() or 1)
        found["start_up_s"] = start_up()
        print(found["start_up_s"])
    write("simulate", found, load.share)


if __name__ == "__main__":
    main()
