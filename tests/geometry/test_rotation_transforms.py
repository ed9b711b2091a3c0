import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = 4  # each takes 10 to 20 s


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_functions_of_the_geometry_core_compile_into_one_graph(part):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "compiled_rotations.py", str(part), str(PARTS)],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
