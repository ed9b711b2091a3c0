"""`vision3d.view`: shows Python objects in a window, a notebook or a web page."""

import contextlib
import logging
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vision3d.core.errors import BackendError, ConfigError, MissingDependencyError
from vision3d.viewer.layers import Layers
from vision3d.viewer.navigation import UP_AXES
from vision3d.viewer.sources import source_of

if TYPE_CHECKING:
    from vision3d.viewer.web import WebViewer

logger = logging.getLogger("vision3d.view")

_HEIGHT = 600  # height of the page in a notebook [px]


def view(
    *objects: Any,
    web: bool | None = None,
    wait: bool | None = None,
    up: str | None = None,
    size: tuple[int, int] = (1280, 720),
    port: int = 0,
    **named: Any,
) -> "WebViewer | None":
    """Shows scenes, meshes, Gaussians, points, boxes, cameras and animations, together in one world.

    In a notebook, the page appears below the cell and the call returns. Elsewhere a window opens, or if that is not possible, a
    page is served; the call returns when it is closed.

    Args:
        objects: Types of `vision3d.scene`, or paths of files and run folders.
        web: Serve a page instead of a window; None: in notebooks, and if no window can be opened.
        wait: Whether to serve a page until Ctrl-C; None: outside notebooks.
        up: Up axis of the world, such as "z" or "-y"; guessed when None.
        size: Size of the window [px].
        port: Port of the page; 0 selects a free one.
        named: More objects, with their names in the list of layers.

    Returns:
        The page if it is still served, to `close()` it; otherwise None.

    Raises:
        InputError: An object cannot be shown, or none are given.
        ConfigError: `up` is not an axis.
        MissingDependencyError: viser is not installed, which a page needs.

    Example:
        >>> vision3d.view(scene, cameras=cameras)
    """
    if up is not None and up not in UP_AXES:
        raise ConfigError("up", f"got {up!r}, want {', '.join(UP_AXES)}")
    parts = [source_of(value, _name(value, number)) for number, value in enumerate(objects)]
    parts += [source_of(value, name) for name, value in named.items()]
    layers = Layers(parts, up=None if up is None else torch.tensor(UP_AXES[up]))
    is_notebook = _is_notebook()
    if web is None:
        web = is_notebook or not _can_open_window()
    if not web:
        from vision3d.viewer.window import open_window

        open_window(layers, size=size, out=Path(), background=(0.0, 0.0, 0.0), use_open3d=False)
        return None
    from vision3d.viewer.web import WebViewer

    viewer = WebViewer(layers, port=port)
    if is_notebook if wait is None else not wait:
        threading.Thread(target=viewer.run, args=(lambda: viewer.is_closed,), daemon=True).start()
        if is_notebook:
            from IPython.display import IFrame, display

            display(IFrame(viewer.url, "100%", _HEIGHT))
        return viewer
    logger.warning("%s  (Ctrl-C to stop)", viewer.url)
    with viewer, contextlib.suppress(KeyboardInterrupt):  # stops it
        viewer.run()
    return None


def _name(value: Any, number: int) -> str:
    return f"{type(value).__name__.lower()}_{number}" if number else type(value).__name__.lower()


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def _can_open_window() -> bool:
    from vision3d.viewer.probe import Probe

    try:
        probe = Probe()
        try:
            probe.result()
        finally:
            probe.close()
    except (BackendError, MissingDependencyError) as error:
        logger.info("no window: %s", error)
        return False
    return True
