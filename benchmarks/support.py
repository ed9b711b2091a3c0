"""Shared by the benchmarks: workloads, timers, machine description, check of the load by other processes, result files."""

import argparse
import importlib
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
FOREIGN_LIMIT = 0.05


def workload(scale: float, count: int = 20_000, width: int = 256, height: int = 256, seed: int = 0) -> dict[str, Any]:
    """`count` Gaussians in [-1, 1]^3, log scale N(ln scale, 0.5), opacity U(0.05, 0.95), seen from 4 units away."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(count, 3, generator=generator) * 2 - 1
    scales = torch.exp(math.log(scale) + 0.5 * torch.randn(count, 3, generator=generator))
    quats = torch.randn(count, 4, generator=generator)
    opacities = 0.05 + 0.9 * torch.rand(count, generator=generator)
    colors = torch.rand(count, 3, generator=generator)
    viewmat = torch.eye(4)
    viewmat[2, 3] = 4.0
    focal = 1.8 * height
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return {
        "means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors, "viewmat": viewmat,
        "K": K, "width": width, "height": height,
    }  # fmt: skip


SCENES = {"S1": 0.010, "S2": 0.030}


def cpu_times(function: Callable[[], Any], repeats: int = 7, warmup: int = 2) -> dict[str, float]:
    """CPU-seconds of the whole process per call: minimum, median and 90th percentile."""
    return _times(function, time.process_time, repeats, warmup)


def wall_times(function: Callable[[], Any], repeats: int = 7, warmup: int = 2) -> dict[str, float]:
    """Wall seconds per call: minimum, median and 90th percentile."""
    return _times(function, time.perf_counter, repeats, warmup)


def _times(function: Callable[[], Any], clock: Callable[[], float], repeats: int, warmup: int) -> dict[str, float]:
    for _ in range(warmup):
        function()
    found = []
    for _ in range(repeats):
        start = clock()
        function()
        found.append(clock() - start)
    found.sort()
    p90 = found[min(len(found) - 1, math.ceil(0.9 * len(found)) - 1)]
    return {"min": found[0], "median": statistics.median(found), "p90": p90}


class ForeignLoad:
    """Fraction of the machine's CPU time used by other processes while this was active (Linux)."""

    end: tuple[float, float, float] | None

    def __enter__(self) -> "ForeignLoad":
        self.start, self.end = self._read(), None
        return self

    def __exit__(self, *error: object) -> None:
        self.end = self._read()

    @property
    def share(self) -> float:
        """The fraction, until now while it is active."""
        busy, own, total = (b - a for a, b in zip(self.start, self.end or self._read()))
        return max(0.0, busy - own) / max(total, 1e-9)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        used = os.times()
        hz = os.sysconf("SC_CLK_TCK")
        idle = ticks[3] + ticks[4]
        return (sum(ticks) - idle) / hz, used.user + used.system + used.children_user + used.children_system, sum(ticks) / hz


def refuse_foreign_load(seconds: float = 2.0, limit: float = FOREIGN_LIMIT) -> None:
    """Exits with an error unless the machine is idle: wall times are meaningless beside other work."""
    with ForeignLoad() as load:
        time.sleep(seconds)
    if load.share > limit:
        sys.exit(f"error: other processes use {100 * load.share:.0f} % of the machine, want at most {100 * limit:.0f} %")


def machine() -> dict[str, Any]:
    """CPU, cores, versions and instruction set."""
    from vision3d import __version__
    from vision3d.core import native

    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "isa": native.require().isa(),
        "vision3d": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that all benchmarks share."""
    parser.add_argument("--peers", type=Path, help="folder with a module `peers` (see benchmarks/README.md)")
    parser.add_argument("--busy", action="store_true", help="run even beside other processes; the result records their load")


def arguments(description: str) -> argparse.Namespace:
    """Parses the command line of a benchmark that has only the shared options."""
    parser = argparse.ArgumentParser(description=description)
    add_options(parser)
    return parser.parse_args()


def load_peers(folder: Path | None) -> dict[str, Any]:
    """Other rasterizers by name, from the module `peers` in the folder; empty without a folder."""
    if folder is None:
        return {}
    sys.path.insert(0, str(folder))
    return importlib.import_module("peers").PEERS


def write(name: str, results: dict[str, Any], foreign: float) -> None:
    """Writes results/NAME.json with the machine, the command and the fraction of foreign load."""
    RESULTS.mkdir(exist_ok=True)
    command = " ".join(["python", *(Path(part).name for part in sys.argv)])
    everything = {"machine": machine(), "command": command, "seed": 0, "foreign_load": round(foreign, 4), **results}
    (RESULTS / f"{name}.json").write_text(json.dumps(everything, indent=1) + "\n")
