"""Nothing that we start connects to the network on its own."""

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
    """Output lines of a process without network access."""
    command = [sys.executable, "-c", _PROGRAM.format(more=more)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, "OFF", "1"])
def test_taichi_does_not_ask_for_a_newer_version(tmp_path, monkeypatch, given):
    """By default, Taichi's `init` sends its version and a machine id to its makers' server."""
    monkeypatch.setenv("HOME", str(tmp_path))  # a home directory without the time of Taichi's last check
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if given is not None:
        monkeypatch.setenv("TI_SKIP_VERSION_CHECK", given)
    *_, child, events = output(_CHILD)
    assert events == "events []"
    assert child == "ON"  # also in child processes


@pytest.mark.slow
def test_the_check_is_detected(tmp_path, monkeypatch):
    """The same with Taichi's own default: the check is made, so the test above can fail."""
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = output("import os; os.environ.pop('TI_SKIP_VERSION_CHECK'); ti.init(arch=ti.cpu)")
    assert "urllib.Request" in lines[-1]
