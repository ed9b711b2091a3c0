"""Nothing that we start talks to the network by itself."""

import importlib.util
import subprocess
import sys

import pytest

_PROGRAM = """
import sys
found = []
def audit(event, arguments):
    if event.startswith(("socket.", "urllib.")):
        found.append(event)
        raise OSError("no network in tests")
sys.addaudithook(audit)
import threading
from vision3d.stages.simulate.engines import taichi_runtime
ti = taichi_runtime.runtime("cpu")
ti.field(ti.f32, 4)
{more}
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(20)
print("events", found)
"""
_CHILD = "import subprocess; subprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"TI_SKIP_VERSION_CHECK\"])'])"

pytestmark = pytest.mark.skipif(importlib.util.find_spec("taichi") is None, reason="taichi is not installed")


def output(more):
    """The lines of a process in which nothing can reach the network."""
    command = [sys.executable, "-c", _PROGRAM.format(more=more)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, "OFF", "1"])
def test_taichi_does_not_ask_for_a_newer_version(tmp_path, monkeypatch, given):
    """Taichi's `init` sends its version and a number of this machine to its makers' server unless it is told not to."""
    monkeypatch.setenv("HOME", str(tmp_path))  # a home without a note of when Taichi asked last
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if given is not None:
        monkeypatch.setenv("TI_SKIP_VERSION_CHECK", given)
    *_, child, events = output(_CHILD)
    assert events == "events []"
    assert child == "ON"  # and so in processes that it starts


@pytest.mark.slow
def test_the_test_sees_the_question(tmp_path, monkeypatch):
    """The same with Taichi's own default: the question is asked, so the test above can fail."""
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = output("import os; os.environ.pop('TI_SKIP_VERSION_CHECK'); ti.init(arch=ti.cpu)")
    assert "urllib.Request" in lines[-1]
