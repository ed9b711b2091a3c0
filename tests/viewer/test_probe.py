"""Errors where no window can be opened: each cause with a stand-in for open3d or a missing display."""

import os
import signal

import pytest

from vision3d.core.errors import BackendError, MissingDependencyError
from vision3d.core.install import install_command
from vision3d.viewer import probe

APP = """
class _Window:
    def close(self): pass
class _App:
    def initialize(self): pass
    def create_window(self, *a): return _Window()
    def run_one_tick(self): pass
class visualization:
    class gui:
        class Application:
            instance = _App()
__version__ = "9.9"
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Creates a module `open3d` of this code that shadows the real one, for this process and its children."""

    def write(code):
        (tmp_path / "open3d.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        monkeypatch.setattr(probe.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setenv("DISPLAY", ":17")

    return write


def problem():
    with pytest.raises(BackendError) as caught:
        probe.Probe().result()
    assert caught.value.exit_code == 4
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("library", "package"),
    [("libusb-1.0.so.0", "libusb-1.0-0"), ("libGL.so.1", "libgl1"), ("libEGL.so.1", "libegl1"), ("libgomp.so.1", "libgomp1")],
)
def test_a_missing_library_is_named_with_its_package(stand_in, library, package):
    stand_in(f'raise ImportError("{library}: cannot open shared object file: No such file or directory")')
    fix = f"apt install {package}; without a window: --web or --offscreen OUT.png"
    assert problem() == f"Open3D cannot be loaded: {library} is missing; {fix}"


def test_an_unknown_library(stand_in):
    stand_in('raise OSError("libstrange.so.7: cannot open shared object file: No such file or directory")')
    assert "libstrange.so.7 is missing; install the package of your system that contains libstrange.so.7" in problem()


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_crash_is_one_line(stand_in, name):
    stand_in(f"import os, signal\nos.kill(os.getpid(), signal.{name})")
    assert problem() == (
        f"Open3D's renderer crashes here ({name}): no working graphics driver; apt install libegl1 libgl1 libvulkan1 "
        "mesa-vulkan-drivers; without a window: --web or --offscreen OUT.png"
    )


def test_a_crash_at_the_first_image(stand_in):
    stand_in(APP.replace("def run_one_tick(self): pass", "def run_one_tick(self):\n        import os; os.abort()"))
    assert "crashes here (SIGABRT)" in problem()


def test_any_other_failure_is_reported(stand_in):
    stand_in('raise RuntimeError("[Open3D Error] no luck\\ntoday")')
    assert problem().startswith("Open3D cannot open a window: today; apt install")


def test_a_display_that_does_not_respond(stand_in):
    stand_in('raise RuntimeError("GLFW Error: X11: Failed to open display :17")')
    assert problem().startswith("the display :17 cannot be opened; for a virtual one: apt install xvfb xauth && xvfb-run -a")


def test_a_probe_that_hangs(stand_in):
    stand_in("import time\ntime.sleep(60)")
    started = probe.Probe(timeout=1)
    with pytest.raises(BackendError, match=r"^Open3D did not open a window within 1 s; for a remote display"):
        started.result()
    assert started._process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("line", "has_gpu"),
    [("Selected physical device 'llvmpipe (LLVM 19)'", False), ("Selected physical device 'NVIDIA H100'", True)],
)
def test_a_window_that_opens(stand_in, line, has_gpu):
    stand_in(f'print("""{line}""")\n{APP}')
    assert probe.Probe().result() == probe.Graphics("9.9", has_gpu)


def test_no_display(monkeypatch):
    monkeypatch.setattr(probe.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(probe.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BackendError, match=r"^no display: neither DISPLAY nor WAYLAND_DISPLAY is set.*apt install xvfb xauth"):
        probe.Probe()
    monkeypatch.setattr(probe.sys, "platform", "darwin")
    assert not probe.is_without_display()


def test_open3d_is_not_installed(monkeypatch):
    monkeypatch.setattr(probe.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError) as caught:
        probe.Probe()
    want = "open3d is needed for the window (without a window: --web or --offscreen OUT.png): " + install_command("viewer")
    assert str(caught.value) == want


def test_closing_ends_the_process(stand_in):
    stand_in("import time\ntime.sleep(60)")
    started = probe.Probe()
    started.close()
    assert started._process.poll() is not None
