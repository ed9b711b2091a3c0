"""The window: Open3D widgets around an image rendered on the CPU, or around Open3D's own scene if there is a GPU."""

import logging
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision3d.geometry.cameras import project
from vision3d.geometry.se3 import transform_points
from vision3d.viewer.keyboard import Keyboard
from vision3d.viewer.layers import Layers
from vision3d.viewer.loop import Request, Shown
from vision3d.viewer.navigation import FreeCamera
from vision3d.viewer.panels import Panel
from vision3d.viewer.session import Session
from vision3d.viewer.widgets import guarded

logger = logging.getLogger("vision3d.view")

_TURN = 0.008  # radians per pixel of a drag
_CLICK_PX, _DOUBLE_S = 4, 0.35
_CAMERA_REACH = 12  # maximum distance of a click from a camera in pixels
_REDRAWS_S = (0.05, 0.3, 1.0)  # after an image, times of showing it again: Open3D sometimes loses one, and an older stays
_TEXTURE_TICKS = 20  # iterations of the window's loop: a texture must be drawn once before it is updated
_FIRST = "rendering the first image ..."
_PANEL_EM = 22
_PANEL_PX = 352  # width at the default font size


def open_window(
    layers: Layers,
    *,
    size: tuple[int, int],
    out: Path,
    background: tuple[float, float, float],
    use_open3d: bool,
    start: FreeCamera | None = None,
    title: str = "vision3d",
) -> bool:
    """Shows layers in a window until it is closed. A `Probe` must have confirmed that a window can be opened.

    Args:
        layers: The layers.
        size: Size of the image next to the panel [px].
        out: Folder for written files.
        background: Background color.
        use_open3d: Whether to render with Open3D, which needs a GPU, instead of the CPU.
        start: The first view; that of the layers when None.
        title: Title of the window.

    Returns:
        Whether Ctrl-C or SIGTERM closed it.
    """
    keep_output_clean()
    import open3d

    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    gui = open3d.visualization.gui
    app = gui.Application.instance
    app.initialize()
    window = _Window(open3d, app, layers, size, out, background, use_open3d, start, title)

    def stop(number: int, frame: object) -> None:
        window.is_interrupted = True

    for number in (signal.SIGINT, signal.SIGTERM):  # an exception inside Open3D's loop would crash the process
        signal.signal(number, stop)
    app.run()
    window.session.close()
    return window.is_interrupted


class _Window:
    def __init__(self, open3d, app, layers, size, out, background, use_open3d, start, title) -> None:
        self._o3d, self._gui, self._app = open3d, open3d.visualization.gui, app
        gui = self._gui
        self.window = app.create_window(title, size[0] + _PANEL_PX, size[1])
        em = self.window.theme.font_size
        extra = round(_PANEL_EM * em) - _PANEL_PX
        if extra:
            self.window.size = gui.Size(size[0] + _PANEL_PX + extra, size[1])
        self._canvas: Any = None
        self._is_open = True
        self.is_interrupted = False
        """Whether a signal requested to close the window."""
        self._pending: Shown | None = None
        self._request: Request | None = None
        self._is_handed = False
        self._texture: tuple[int, ...] = ()
        self._ticks = self._texture_ticks = 0
        self._is_posted = False
        self.session = Session(
            layers, size=size, out=out, background=background, show=self._shown, say=self._say_later, start=start
        )
        mouse = guarded(self._on_mouse, gui.Widget.EventCallbackResult.CONSUMED, self._say)
        self._image = gui.ImageWidget()
        self._image.visible = False  # Open3D draws an empty image widget red
        self._view: Any = self._image
        self.window.add_child(self._image)
        if use_open3d:
            from vision3d.viewer.hardware import HardwareView

            self._canvas = HardwareView(open3d, self.window, self.session, mouse)
            self._view = self._canvas.widget
            self.window.add_child(self._view)
            self.session.drawer = self._hand_over
        self.panel = Panel(gui, self.window, self.session)
        self.window.add_child(self.panel.widget)
        self.window.add_child(self.panel.foot)
        if self.panel.time_bar is not None:
            self.window.add_child(self.panel.time_bar)
        self._image.set_on_mouse(mouse)
        self._keyboard = Keyboard(gui, self.session, self.panel, self._quit)
        self.window.set_on_key(guarded(self._keyboard.on_key, False, self.panel.say))
        self.window.set_on_layout(guarded(self._on_layout, None, self.panel.say))
        self.window.set_on_tick_event(guarded(self._on_tick, False, self.panel.say))
        self.window.set_on_close(self._on_close)
        self._press: tuple[float, float] | None = None
        self._at = (0.0, 0.0)
        self._has_dragged = False
        self._clicked = -1e9
        self._frames: list[float] = []
        self._redraws: list[float] = []
        self._drawn: Any = None
        self.session.load_thumbnails()
        self.session.request(is_moving=True)
        self.panel.update()
        self.panel.say(_FIRST)

    # Images

    def _shown(self, shown: Shown) -> None:
        """Stores the newest image for the window; called in the rendering thread."""
        self._pending = shown
        if not self._is_posted and self._is_open:
            self._is_posted = True
            self._app.post_to_main_thread(self.window, guarded(self._put, None, self._say))

    def _put(self) -> None:
        self._is_posted = False
        shown, self._pending = self._pending, None
        is_hidden = shown is not None and self._canvas is not None and shown.request.finish is None  # is for a recording
        if shown is None or is_hidden or not self._is_open:
            return
        size = shown.pixels.shape
        if size == self._texture and self._ticks < self._texture_ticks:
            self._pending = self._pending or shown
            return
        self._say_first()
        if size != self._texture:
            self._texture, self._texture_ticks = size, self._ticks + _TEXTURE_TICKS
        self._image.visible = True
        if self._canvas is not None:
            self._view.visible = False
            self.window.set_needs_layout()
        self._drawn = self._o3d.geometry.Image(np.ascontiguousarray(shown.pixels))
        self._image.update_image(self._drawn)
        now = time.perf_counter()
        self._redraws = [now + delay for delay in _REDRAWS_S]
        self._frames = [*(moment for moment in self._frames if now - moment < 1), now]
        height, width = (round(side * shown.quality.scale) for side in shown.pixels.shape[:2])
        rate = "" if shown.is_whole else f", {len(self._frames)} per second"
        self.window.title = f"vision3d   {width} x {height}, {1000 * shown.seconds:.0f} ms{rate}"
        self.window.post_redraw()

    def _hand_over(self, request: Request) -> None:
        """Stores the newest request for Open3D's renderer, which belongs to the window's thread."""
        self._request = request
        if not self._is_handed and self._is_open:
            self._is_handed = True
            self._app.post_to_main_thread(self.window, guarded(self._draw, None, self._say))

    def _draw(self) -> None:
        self._is_handed = False
        if not self._is_open or self._request is None:
            return
        self._canvas.show(self._request)
        self._say_first()
        self.window.title = f"vision3d   {int(self._request.camera.width)} x {int(self._request.camera.height)}, Open3D"
        if not self._view.visible or self._image.visible:
            self._view.visible, self._image.visible = True, False
            self.window.set_needs_layout()
        self.window.post_redraw()

    def _say_first(self) -> None:
        """The first image is there."""
        if self.panel.status.text == _FIRST:
            self.panel.say("")

    def _say(self, text: str) -> None:
        self.panel.say(text)  # looked up when it is called: the first image may come before there is a panel

    def _say_later(self, text: str) -> None:
        if text and self._is_open:
            self._app.post_to_main_thread(self.window, guarded(lambda: self._said(text), None, logger.warning))

    def _said(self, text: str) -> None:
        self.panel.say(text)
        self.panel.update_layers()
        self.panel.update()

    # Events

    def _on_layout(self, context: Any) -> None:
        gui, rect = self._gui, self.window.content_rect
        em = self.window.theme.font_size
        wide = min(round(_PANEL_EM * em), rect.width // 2)
        bar = 0 if self.panel.time_bar is None else round(2.2 * em)
        foot = round(5.4 * em)
        left = rect.width - wide
        for widget in {self._image, self._view}:
            widget.frame = gui.Rect(rect.x, rect.y, left, rect.height - bar)
        if self.panel.time_bar is not None:
            self.panel.time_bar.frame = gui.Rect(rect.x, rect.y + rect.height - bar, left, bar)
        self.panel.widget.frame = gui.Rect(rect.x + left, rect.y, wide, rect.height - foot)
        self.panel.foot.frame = gui.Rect(rect.x + left, rect.y + rect.height - foot, wide, foot)
        self.session.resize(left, rect.height - bar)

    def _on_mouse(self, event: Any) -> Any:
        gui, session = self._gui, self.session
        kinds, answer = gui.MouseEvent.Type, gui.Widget.EventCallbackResult
        x, y = event.x - self._view.frame.x, event.y - self._view.frame.y
        if event.type == kinds.BUTTON_DOWN:
            self._press, self._at, self._has_dragged = (x, y), (x, y), False
        elif event.type == kinds.DRAG and self._press is not None:
            if math.dist(self._press, (x, y)) >= _CLICK_PX:
                self._has_dragged = True
            if self._has_dragged:
                self._drag(event, x - self._at[0], y - self._at[1])
                self._at = (x, y)
        elif event.type == kinds.BUTTON_UP and self._press is not None:
            if not self._has_dragged and math.dist(self._press, (x, y)) < _CLICK_PX:
                self._click(x, y)
            elif (x, y) != self._at:  # fast drags skip events
                self._drag(event, x - self._at[0], y - self._at[1])
            self._press = None
        elif event.type == kinds.WHEEL:
            session.flight.stop()
            session.move(session.view.zoomed(0.88 ** float(event.wheel_dy)))
        else:
            return answer.IGNORED
        return answer.CONSUMED

    def _drag(self, event: Any, right: float, down: float) -> None:
        gui, session = self._gui, self.session
        session.flight.stop()
        view, buttons = session.view, gui.MouseButton
        is_left = not (event.is_button_down(buttons.RIGHT) or event.is_button_down(buttons.MIDDLE))
        if event.is_modifier_down(gui.KeyModifier.CTRL):
            session.move(view.looked(_TURN * right / 2, -_TURN * down / 2))
        elif is_left and not event.is_modifier_down(gui.KeyModifier.SHIFT):
            session.move(view.orbited(-_TURN * right, -_TURN * down))
        else:
            session.move(view.panned(right, down, session.size[1]))

    def _click(self, x: float, y: float) -> None:
        now = time.perf_counter()
        is_double, self._clicked = now - self._clicked < _DOUBLE_S, now
        session = self.session
        camera = self._camera_at(x, y)
        if camera is not None and session.region_kind is None:
            session.choose_camera(*camera)
        else:
            picked = session.click(x, y)
            if is_double and picked is not None:
                session.move(session.view.centered(picked.position))
        self.panel.update()

    def _camera_at(self, x: float, y: float) -> tuple[str, int] | None:
        """The camera whose center is near an image position."""
        session = self.session
        if not session.with_cameras or session.is_at_camera:
            return None
        view, best = session.camera(), None
        for layer in session.content.camera_layers:
            cameras = layer.cameras
            if not layer.visible or cameras is None:
                continue
            seen = transform_points(view.viewmats[0], cameras.centers.cpu().float())
            pixels = project(seen[None], view.Ks)[0]
            away = (pixels - pixels.new_tensor([x, y])).norm(dim=-1)
            away[seen[:, 2] <= 0] = torch.inf
            index = int(away.argmin())
            if float(away[index]) < (best[0] if best else _CAMERA_REACH):
                best = (float(away[index]), (layer.name, index))
        return None if best is None else best[1]

    def _on_tick(self) -> bool:
        if not self._is_open:
            return False
        self._keyboard.tick()
        if self.is_interrupted:
            self._quit()
        if not self._is_open:
            return False
        self._ticks += 1
        if self._pending is not None and not self._is_posted:
            self._put()
        before = self.session.time
        self.session.tick()
        if self.session.time != before:
            self.panel.update()
            return True
        if self._redraws and time.perf_counter() >= self._redraws[0] and self._ticks >= self._texture_ticks:
            del self._redraws[0]
            self._image.update_image(self._drawn)
            return True
        time.sleep(0.004)  # the window's loop calls again immediately
        return False

    def _quit(self) -> None:
        self._is_open = False
        # Deferred: a window that is closed while it handles an event crashes the process.
        self._app.post_to_main_thread(self.window, self.window.close)

    def _on_close(self) -> bool:
        if self._is_open:
            self._keyboard.asked()
        return not self._is_open


def keep_output_clean() -> None:
    """Redirects output of the renderer to stderr if requested (VISION3D_DEBUG=1), otherwise discards it.

    Python's own streams are not affected: they get their own descriptors.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
    is_shown = os.environ.get("VISION3D_DEBUG") == "1"
    target = os.dup(2) if is_shown else os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)


def leave(code: int) -> None:
    """Exits immediately: Open3D's renderer does not survive the shutdown of the interpreter."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
