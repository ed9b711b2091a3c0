"""Whole runs on a pretended GPU: no operation mixes devices, and the waits and copies of a step stay within a budget.

The budget is `tests/support/device_budget.json`; `make check-device` prints the counts beside it. Lower it with the code; raise
it only for a reason that the commit states.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.outside import package

ROOT = Path(__file__).parents[1]
BUDGET = ROOT / "tests" / "support" / "device_budget.json"
RUNS = {
    "fit": ("fit", "fit-corrected", "fit-adc", "fit-adc-absgrad", "fit-2dgs", "fit-2dgs-adc"),
    "simulate": ("simulate", "simulate-reference"),
    "animate fit": ("animate-fit", "animate-fit-network", "animate-fit-gaussians"),
    "animate joints": ("animate-fit-joints", "animate-fit-one-camera"),
    "animate static": ("animate-static", "animate-rig"),
    "mesh": ("mesh",),
    "render and eval": ("render", "eval"),
    "rotation": ("rotation-sanity", "rotation-pointcloud", "rotation-ik"),
    "equivariant": ("equivariant-rotation", "equivariant-full", "equivariant-separable", "equivariant-canonical"),
}
NEEDS = {"mesh": "open3d", "equivariant": "kornia"}


def in_its_own_process(module: str, *arguments: object) -> tuple[dict, str]:
    """The JSON and the messages of a process in which nothing else runs."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-20_000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("family", RUNS)
def test_runs_do_not_mix_devices(tmp_path, family):
    if family in NEEDS:
        package(NEEDS[family])
    found, _ = in_its_own_process("tests.support.pretended_runs", tmp_path, *RUNS[family])
    assert list(found) == list(RUNS[family])
    assert all(counts["ops"] > 100 for counts in found.values()), found  # they ran there


@pytest.mark.slow
def test_counts_of_a_step_are_within_the_budget(tmp_path):
    budget = json.loads(BUDGET.read_text("utf-8"))
    counts, places = in_its_own_process("tests.support.pretended_runs", tmp_path, "steps")
    sys.stdout.write("\n" + table(counts, budget) + "\n")
    assert counts.keys() == budget.keys()
    above = {
        f"{name}: {key}": (count, budget[name][key])
        for name, found in counts.items()
        for key, count in found.items()
        if count > budget[name][key]
    }
    assert not above, f"above the budget (got, want at most): {above}\n{places}"


def table(counts: dict[str, dict[str, int]], budget: dict[str, dict[str, int]]) -> str:
    """Counts of a step, each with its budget in parentheses."""
    keys = next(iter(counts.values())).keys()
    rows = [["one step of", *(key.replace("_", " ") for key in keys)]]
    rows += [[name, *(f"{found[key]} ({budget[name][key]})" for key in keys)] for name, found in counts.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


@pytest.mark.slow
def test_the_pretence_itself():
    """What it must refuse, count and compute: the controls of `tests/support/pretended_controls.py`."""
    found, messages = in_its_own_process("tests.support.pretended_controls")
    assert len(found) > 8 and all(found.values()), messages
