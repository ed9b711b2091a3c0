"""Tests whether a window can be opened, in a separate process: a broken graphics library crashes its process."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

from vision3d.core.errors import BackendError, MissingDependencyError

TIMEOUT_S = 60
_OTHERWISE = "without a window: --web or --offscreen OUT.png"
_PACKAGES = {  # in Debian and Ubuntu
    "libusb-1.0.so": "libusb-1.0-0",
    "libGL.so": "libgl1",
    "libEGL.so": "libegl1",
    "libGLX.so": "libglx0",
    "libOpenGL.so": "libopengl0",
    "libgomp.so": "libgomp1",
    "libX11.so": "libx11-6",
    "libxcb.so": "libxcb1",
    "libvulkan.so": "libvulkan1",
    "libc++.so": "libc++1",
    "libtbb.so": "libtbb12",
    "libudev.so": "libudev1",
}
_DRIVERS = "libegl1 libgl1 libvulkan1 mesa-vulkan-drivers"
_SOFTWARE = re.compile(r"llvmpipe|lavapipe|swiftshader|softpipe|software (device|rasterizer|renderer)", re.IGNORECASE)
_CODE = """
import json, sys
import open3d
gui = open3d.visualization.gui
app = gui.Application.instance
app.initialize()
window = app.create_window("probe", 64, 64, -1, -1, 1)  # 1: hidden
app.run_one_tick()
window.close()
app.run_one_tick()
print("\\nvision3d-probe " + json.dumps({"open3d": open3d.__version__}), flush=True)
import os
os._exit(0)
"""


@dataclass(frozen=True)
class Graphics:
    """Renderer of the window."""

    open3d: str
    """Version."""
    has_gpu: bool
    """Whether it is a GPU, not a software renderer."""


class Probe:
    """Opens a hidden window in a separate process; `result` waits for the outcome.

    Raises:
        MissingDependencyError: Open3D is not installed.
        BackendError: No display.
    """

    def __init__(self, timeout: float = TIMEOUT_S) -> None:
        if importlib.util.find_spec("open3d") is None:
            raise MissingDependencyError("open3d", "viewer", f"the window ({_OTHERWISE})")
        if is_without_display():
            raise BackendError(
                "no display: neither DISPLAY nor WAYLAND_DISPLAY is set, and a window needs one; for a virtual display: "
                f"apt install xvfb xauth && xvfb-run -a vision3d view ...; {_OTHERWISE}"
            )
        self._timeout = timeout
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def result(self) -> Graphics:
        """The outcome.

        Raises:
            BackendError: A window cannot be opened; the message names the package to install.
        """
        try:
            output, _ = self._process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise BackendError(
                f"Open3D did not open a window within {self._timeout:g} s; for a remote display use a virtual one: "
                f"apt install xvfb xauth && xvfb-run -a vision3d view ...; {_OTHERWISE}"
            ) from None
        found = re.search(r"^vision3d-probe (\{.*\})$", output, re.MULTILINE)
        if self._process.returncode == 0 and found:
            return Graphics(json.loads(found[1])["open3d"], _SOFTWARE.search(output) is None)
        raise BackendError(explain(output, self._process.returncode))

    def close(self) -> None:
        """Ends the process if it is still running."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def is_without_display() -> bool:
    """Whether this system's windows need a display server and none is set."""
    return sys.platform.startswith("linux") and not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def explain(output: str, code: int) -> str:
    """One line about a probe that failed: what went wrong and the command that fixes it.

    Args:
        output: What it printed.
        code: Its exit code; below 0 the number of a signal.
    """
    library = re.search(r"(lib[\w.+-]*?\.so)[.\d]*: cannot open shared object file", output)
    if library:
        name = library[0].partition(":")[0]
        package = _PACKAGES.get(library[1])
        repair = f"apt install {package}" if package else f"install the package of your system that contains {name}"
        return f"Open3D cannot be loaded: {name} is missing; {repair}; {_OTHERWISE}"
    if re.search(r"(open|connect to|initialize).{0,40}display|X11: .*display|GLFW.*(display|DISPLAY)", output):
        return (
            f"the display {os.environ.get('DISPLAY', '')} cannot be opened; for a virtual one: apt install xvfb xauth && "
            f"xvfb-run -a vision3d view ...; {_OTHERWISE}"
        )
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"Open3D's renderer crashes here ({name}): no working graphics driver; apt install {_DRIVERS}; {_OTHERWISE}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return f"Open3D cannot open a window: {lines[-1] if lines else f'exit code {code}'}; apt install {_DRIVERS}; {_OTHERWISE}"
