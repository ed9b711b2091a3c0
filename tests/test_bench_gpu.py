"""The script of the GPU benchmark, on the pretended GPU: what it times, what it lists as absent, what it refuses to write."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[1]


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


def run(*arguments: object, module: str = "tests.support.pretended_bench") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", module] if module else [sys.executable]
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_everything_is_timed_beside_its_peers(tmp_path):
    done = run("fakes", "--tiny", "--repeats", 6, "--out", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert not found["is_measurement"] and "NOT A MEASUREMENT (a pretended GPU)" in done.stdout
    peers = {name.split(",")[0]: set(case["times"]) - {"vision3d"} for name, case in found["cases"].items()}
    has = {name: importlib.util.find_spec(name) is not None for name in ("warp", "roma")}
    gsplat = {"gsplat", "gsplat packed"}
    assert peers == {
        **{f"{mode} forward{end}": gsplat for mode in ("3dgs", "2dgs") for end in ("", " + backward")},
        **{f"fit step {mode}": {"gsplat"} for mode in ("3dgs", "2dgs")},
        "SSIM forward + backward": {"torch", "fused_ssim"},
        "MPM": {"warp"} if has["warp"] else set(),
        "skinning forward + backward": {"torch", "roma"} if has["roma"] else {"torch"},
        "mesh forward + backward": {"nvdiffrast"},
    }
    for case in found["cases"].values():
        assert case["failed"] == {} and set(case["time_relative_to"]) == set(case["times"]) - {"vision3d"}
        for times in case["times"].values():
            assert all(0 < t["low"] <= t["median"] <= t["high"] for t in times.values())
    assert found["command"] == f"python benchmarks/bench_gpu.py --tiny --repeats 6 --out {tmp_path / 'gpu.json'}"
    assert found["seed"] == 0 and found["machine"]["gpu"]["name"] == "pretended GPU"


@pytest.mark.slow
def test_missing_peers_are_listed_and_wrong_ones_not_compared(tmp_path):
    done = run("none", "--tiny", "--repeats", 6, "--only", "splats", "fit", "mesh", "--out", tmp_path / "none.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "none.json").read_text("utf-8"))
    assert {"gsplat", "fused_ssim", "nvdiffrast"} <= set(found["absent"])
    for name, case in found["cases"].items():
        assert set(case["times"]) == {"vision3d"} and len(case["absent"]) > 0
        assert f"{name}\n" in done.stdout and "absent: gsplat: ModuleNotFoundError" in done.stdout
    done = run("wrong", "--tiny", "--repeats", 6, "--only", "splats", "--out", tmp_path / "wrong.json")
    assert done.returncode == 0, done.stderr
    for case in json.loads((tmp_path / "wrong.json").read_text("utf-8"))["cases"].values():
        assert set(case["failed"]) == {"gsplat", "gsplat packed"} and case["time_relative_to"] == {}
        assert case["distance_from"]["gsplat"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.slow
def test_what_is_not_a_measurement_is_kept_out_of_the_results():
    before = set((ROOT / "benchmarks" / "results").iterdir())
    done = run("none", "--tiny")
    assert (
        done.returncode == 1 and "error: --out is missing: these times are not a measurement (a pretended GPU)" in done.stderr
    )
    out = "benchmarks/../benchmarks/results/a/gpu.json"
    done = run("none", "--out", out)
    assert done.returncode == 1 and f"error: --out {out}: these times are not a measurement" in done.stderr
    assert set((ROOT / "benchmarks" / "results").iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_error():
    done = run("benchmarks/bench_gpu.py", module="")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: device cuda: torch ") and done.stderr.endswith("sees no GPU\n")


def test_tiny_sizes_are_kept_out_of_the_results(tmp_path):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        bench = loaded("bench_gpu")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    assert bench.chosen_file(None, None) == bench.RESULTS / "gpu.json"
    assert bench.chosen_file(tmp_path / "a.json", "tiny sizes") == tmp_path / "a.json"
    for out in (None, bench.RESULTS / "gpu.json"):
        with pytest.raises(SystemExit, match=r"these times are not a measurement .*tiny sizes"):
            bench.chosen_file(out, "tiny sizes")


def test_interval_of_the_median():
    timing = loaded("gpu_timing")
    for count, low, high in ((6, 1, 6), (10, 2, 9), (25, 8, 18), (40, 14, 27)):  # ranks in tables of the sign test
        found = timing.median_with_interval([float(value) for value in reversed(range(1, count + 1))])
        assert (found["low"], found["high"]) == (low, high) and found["median"] == (count + 1) / 2
    with pytest.raises(ValueError, match="repeats: got 5, want at least 6"):
        timing.median_with_interval([1.0] * 5)


def test_distance_of_results():
    timing = loaded("gpu_timing")
    a = torch.tensor([3.0, 4.0])
    assert timing.distance(a, a + torch.tensor([0.0, 0.5])) == pytest.approx(0.1)
    assert timing.distance(a, torch.ones(3)) == math.inf
    assert not timing.distance(a, a * math.nan) <= timing.MAX_DISTANCE
