"""Changed files of every reader: an error, soon, and without more memory than is allowed.

VISION3D_FUZZ is the number of files for each reader (200 when it is not set); benchmarks/bench_fuzz.py takes 20000.
"""

import os
import sys

import pytest

from tests.support.fuzz import READERS, run

COUNT = int(os.environ.get("VISION3D_FUZZ", "200"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("name", READERS)
def test_changed_files(tmp_path, name):
    if READERS[name].package is not None:
        pytest.importorskip(READERS[name].package)
    found = run(name, COUNT, tmp_path)
    assert found.problems == []
    assert found.files == COUNT and found.refused > 0
