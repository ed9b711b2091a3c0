"""Runs the tests of the emulated CUDA kernels under sanitizers: `make check-cuda-races`.

Fails for a race, a wrong result, and a kernel that no test launches. The control: with a barrier of the kernels removed, a race
or a wrong result must be noticed; one barrier by default, all of them with `--full`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("tests/render/test_kernel_bodies.py", "tests/render/test_mesh_bodies.py", "tests/test_cuda_kernels.py")
NOT_LAUNCHED = {"probe"}  # only its attributes are read: cuda_ext/cuda/device.cu
SINGLE, ALL = "emulated-float32", "emulated"
QUICK_RUNS = (("thread", 0, SINGLE),)  # sanitizer, seed, tests
FULL_RUNS = (("thread", 0, ALL), ("thread", 1, SINGLE), ("thread", 2, SINGLE), ("address", 0, SINGLE))
CONTROL = "draw_faces "  # the barrier that the quick form removes
# AddressSanitizer looks for the functions of C++ exceptions at the start, when Python has not loaded them yet.
LIBRARIES = {"thread": ("libtsan.so",), "address": ("libasan.so", "libstdc++.so")}
OPTIONS = {
    "thread": ("TSAN_OPTIONS", "report_thread_leaks=0"),
    "address": ("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1"),
}


@dataclass(frozen=True)
class Run:
    """What one run of pytest under a sanitizer did."""

    code: int
    reports: int
    text: str
    kernels: frozenset[str]
    barriers: dict[str, list[str]]
    """Tests by barrier."""


@dataclass(frozen=True)
class Build:
    """The emulated kernels, compiled for a sanitizer."""

    sanitizer: str
    path: Path

    def run(self, tests: list[str], *, seed: int = 0, removed: str = "") -> Run:
        """Run tests; with `removed`, only up to the first report or failure."""
        with tempfile.TemporaryDirectory() as folder:
            log, reports = Path(folder, "log"), Path(folder, "report")
            variable, options = OPTIONS[self.sanitizer]
            environment = {
                **os.environ,
                "LD_PRELOAD": ":".join(_library(name) for name in LIBRARIES[self.sanitizer]),
                variable: f"log_path={reports}:exitcode=66:halt_on_error={int(bool(removed))}:{options}",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "VISION3D_EMULATED": str(self.path),
                "V3D_EMULATOR_LOG": str(log),
                "V3D_EMULATOR_SEED": str(seed),
                "V3D_EMULATOR_REMOVE": removed,
            }
            command = [*_runner(), sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            found = "".join(path.read_text() for path in sorted(Path(folder).glob("report.*")))
            lines = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
        names = _functions(self.path)
        kernels = frozenset(names[int(name)] for kind, name, _ in lines if kind == "kernel")
        barriers: dict[str, list[str]] = {}
        for kind, name, test in lines:
            if kind == "barrier" and "faulty.cu:" not in name:  # those kernels are wrong already
                barriers.setdefault(name, []).append(test.removesuffix(" (call)"))
        count = len(re.findall(r"WARNING: ThreadSanitizer|ERROR: AddressSanitizer", found))
        return Run(done.returncode, count, done.stdout + done.stderr + found, kernels, barriers)


def _library(name: str) -> str:
    command = [os.environ.get("CXX", "g++"), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _runner() -> list[str]:
    """ThreadSanitizer needs addresses that are not randomized further than it knows."""
    command = ["setarch", "-R"]
    works = shutil.which("setarch") and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if works else []


def _functions(module: Path) -> dict[int, str]:
    """Names of the functions of the module by offset, without namespaces and template arguments."""
    symbols = subprocess.run(["nm", "-C", "--defined-only", module], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in symbols.splitlines():
        address, _, signature = line.split(" ", 2)
        name = signature.replace("(anonymous namespace)::", "").split("(")[0].split("<")[0]
        found[int(address, 16)] = name.split("::")[-1].split(" ")[-1]
    return found


def kernels_in_sources() -> set[str]:
    """Names of all `__global__` functions."""
    sources = [path for suffix in ("cu", "h") for path in (ROOT / "cuda_ext/cuda").rglob(f"*.{suffix}")]
    pattern = r"__global__\s+void\s+(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\("
    return {name for path in sources for name in re.findall(pattern, path.read_text())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the emulated kernels are built")
    parser.add_argument("--full", action="store_true", help="float64, three seeds, AddressSanitizer, every barrier removed")
    parser.add_argument("-k", dest="selection", help="which tests, as for pytest")
    options = parser.parse_args()
    builds = {path.parents[3].name: Build(path.parents[3].name, path) for path in _modules(options.folder)}
    barriers, launched = {}, set()
    for sanitizer, seed, selection in FULL_RUNS if options.full else QUICK_RUNS:
        start = time.monotonic()
        done = builds[sanitizer].run(["-k", options.selection or selection, *FILES], seed=seed)
        launched |= done.kernels
        barriers = done.barriers | barriers
        summary = done.text.strip().splitlines()[-1] if done.code == 0 else done.text
        seconds = time.monotonic() - start
        print(f"{sanitizer} sanitizer, seed {seed}, {seconds:.0f} s, {done.reports} reports: {summary}", flush=True)
        if done.code or done.reports:
            return 1
    wanted = kernels_in_sources()
    print(f"{len(launched & wanted)} of {len(wanted)} kernels launched, {len(barriers)} barriers reached", flush=True)
    problems = [f"kernel {name} was not launched by any test" for name in sorted(wanted - launched - NOT_LAUNCHED)]
    for name in sorted(barriers) if options.full else [name for name in sorted(barriers) if name.startswith(CONTROL)][:1]:
        problems += _without(builds["thread"], name, barriers[name])
    print(*problems, sep="\n", end="\n" if problems else "")
    return int(bool(problems))


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.resolve().glob("*/cuda_ext/tests/emulator/_emulated*.so"))


def _without(build: Build, barrier: str, tests: list[str]) -> list[str]:
    """The problem that the tests do not notice the removal of a barrier, if so."""
    done = build.run(list(dict.fromkeys(tests)), removed=barrier)
    what = "a race was reported" if done.reports else "a test failed" if done.code else "not noticed"
    print(f"without the barrier {barrier}: {what}", flush=True)
    return [] if done.code else [f"no test noticed that the barrier {barrier} was removed"]


if __name__ == "__main__":
    sys.exit(main())
