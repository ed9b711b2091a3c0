"""The viewer in a browser: a page that viser serves from this machine, without internet access."""

import contextlib
import errno
import io
import logging
import math
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vision3d.core.errors import BackendError, ConfigError, MissingDependencyError
from vision3d.viewer.layers import Layers
from vision3d.viewer.viewpoint import start_viewpoint
from vision3d.viewer.web_draw import Drawer
from vision3d.viewer.web_edit import EditTool
from vision3d.viewer.web_guard import Guard, is_loopback
from vision3d.viewer.web_panel import Panel
from vision3d.viewer.web_select import SelectionTool

logger = logging.getLogger("vision3d.view")

_REFRESH_SECONDS = 1.0


class WebViewer:
    """A web page that shows the layers, served from construction until `close`.

    Gaussians are shown with colors of degree 0, independent of the view. Pages of other sites cannot use the server
    (`web_guard`); if it listens to other machines, `url` contains a secret token that grants access.

    Args:
        layers: The layers.
        host: Address to listen on.
        port: Port; 0 selects a free one.
        folder: Folder for selections and edited objects.

    Raises:
        MissingDependencyError: viser is not installed.
        ConfigError: The port is in use or not allowed, or the host is not an address of this machine.
        BackendError: This version of viser cannot be prevented from answering other sites.

    Example:
        >>> with WebViewer(Layers.open(["scene.ply"]), port=0) as viewer:
        ...     viewer.run()
    """

    def __init__(self, layers: Layers, *, host: str = "127.0.0.1", port: int = 8080, folder: Path | str = ".") -> None:
        viser = _viser()
        port = free_port(host, port)
        self.layers = layers
        guard = Guard(host)
        with guard.installed(), contextlib.redirect_stdout(io.StringIO()):  # suppresses its banner
            self.server: Any = viser.ViserServer(host, port, label="vision3d", verbose=False)
        try:
            guard.check_used()
        except BackendError:
            _stop(self.server)
            raise
        if self.server.get_port() != port:  # it was taken in between, and viser chose the next one
            _stop(self.server)
            raise _in_use(host, port)
        self.url = guard.url(port)
        self._wake = threading.Event()
        self.is_closed = False
        self.drawer = Drawer(self.server, layers, lambda *camera: self.panel.look_through(*camera))
        try:
            self._set_up(Path(folder))
        except BaseException:
            self.close()
            raise

    def _set_up(self, folder: Path) -> None:
        self.server.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=False)
        self.server.scene.world_axes.visible = False
        self.panel = Panel(self.server, self.layers, self.drawer)
        self.selection = SelectionTool(self.server, self.drawer, folder)
        self.edit = EditTool(self.server, self.drawer, lambda: self.selection.selection, lambda: self.panel.time_s, folder)
        self.drawer.draw(self.panel.time_s)
        self._place_camera()
        self.server.on_client_connect(self._connected)

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Serves until Ctrl-C: plays animations and updates growing files.

        Args:
            until: Checked after every iteration; stops when it returns True.
        """
        next_look = time.monotonic() + _REFRESH_SECONDS
        while until is None or not until():
            if self.panel.is_playing:
                began = time.monotonic()
                self.panel.advance()
                self._wake.wait(max(0.0, self.panel.frame_seconds - (time.monotonic() - began)))
            else:
                self._wake.wait(0.1)
            if self.layers.is_followed and time.monotonic() >= next_look:
                self.refresh()
                next_look = time.monotonic() + _REFRESH_SECONDS

    def refresh(self) -> list[str]:
        """Checks run folders and growing sequences for new content and shows it.

        Returns:
            Names of the layers that changed.
        """
        with self.drawer.lock:
            was_empty = len(self.layers) == 0
            changed = self.layers.refresh()
            if changed:
                self.drawer.draw(self.panel.time_s, is_new=was_empty)
            self.panel.rebuild()
            if changed and was_empty:
                self._place_camera()
                for client in self.server.get_clients().values():
                    self.panel.look(client, self.layers.start)
        return changed

    def close(self) -> None:
        """Stop serving."""
        self.is_closed = True
        self.drawer.close()
        self._wake.set()
        _stop(self.server)

    def _place_camera(self) -> None:
        up, radius = self.layers.up, self.drawer.bounds.radius
        view = start_viewpoint(list(self.layers), self.drawer.bounds, up)
        self.server.scene.set_up_direction(tuple(up.tolist()))
        first = self.server.initial_camera
        first.position, first.look_at = view.position.double().numpy(), view.target.double().numpy()
        first.up, first.fov = view.up.double().numpy(), math.radians(view.fov_deg)
        first.near, first.far = 1e-3 * radius, 1e3 * radius

    def _connected(self, client: Any) -> None:
        radius = self.drawer.bounds.radius
        client.camera.max_orbit_distance = max(1e3 * radius, client.camera.min_orbit_distance)
        client.camera.min_orbit_distance = 1e-3 * radius
        client.camera.on_update(lambda camera: self.drawer.clear_view(camera.position))
        self.drawer.clear_view(client.camera.position)

    def __enter__(self) -> "WebViewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_port(host: str, port: int) -> int:
    """The port if it is available, or a free one for 0.

    Raises:
        ConfigError: It is in use or not allowed, or the host is not an address of this machine.
    """
    if not 0 <= port <= 65535:
        raise ConfigError("port", f"got {port}, want 1 to 65535, or 0 for a free one")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            if os.name == "posix":  # a port whose last connection has just ended is available
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            return int(listener.getsockname()[1])
    except socket.gaierror as error:
        raise ConfigError("host", f"got {host!r}, which is not an address of this machine ({error.strerror})") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _in_use(host, port) from error
        if error.errno == errno.EACCES:
            raise ConfigError("port", f"{port} needs more permissions; use one above 1023") from error
        raise ConfigError("host", f"got {host!r}, which is not an address of this machine ({error.strerror})") from error


def open_browser(url: str) -> None:
    """Opens a page in the desktop's browser; does nothing without a desktop."""
    has_desktop = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_desktop:
        webbrowser.open(url)


def warn_if_public(host: str) -> None:
    """Warns if other machines can reach the address."""
    if not is_loopback(host):
        logger.warning(
            "%s: anyone with the printed address and its token sees the scene and can write selections and edit it, "
            "without encryption",
            host,
        )


def _stop(server: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # suppresses its message
        server.stop()


def _in_use(host: str, port: int) -> ConfigError:
    return ConfigError("port", f"{port} is in use on {host}; use another --port, or --port 0 for a free one")


def _viser() -> Any:
    try:
        import viser
    except ImportError as error:
        raise MissingDependencyError("viser", "viewer", "the viewer in a browser") from error
    return viser
