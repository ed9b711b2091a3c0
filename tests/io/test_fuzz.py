"""Corrupted files of every reader: each is rejected or read within limits of time and memory.

VISION3D_FUZZ is the number of files per reader (200 by default); benchmarks/bench_fuzz.py uses 20000.
"""

import os
import sys

import pytest

from tests.support.fuzz import READERS, run

COUNT = int(os.environ.get("VISION3D_FUZZ", "200"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
@pytest.mark.parametrize("name", READERS)
def test_changed_files(tmp_path, name):
    if READERS[name].package is not None:
        pytest.importorskip(READERS[name].package)
    found = run(name, COUNT, tmp_path)
    assert found.problems == []
    assert found.files == COUNT and found.refused > 0
