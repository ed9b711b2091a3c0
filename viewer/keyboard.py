"""Keys of the window: flying, Esc and Ctrl Q, and an action for each other key."""

import time
from collections.abc import Callable
from typing import Any

from vision3d.viewer.panels import Panel
from vision3d.viewer.session import Session

_FLY_SHARE = 0.8  # fraction of the distance to the center per second
_FLYING = ("W", "A", "S", "D", "Q", "E", "LEFT", "RIGHT", "UP", "DOWN")
_REPEATING = ("COMMA", "PERIOD", "N", "P")
_ESCAPE_S = 0.8  # longer than a key is pressed, and than the delay before it repeats


class Keyboard:
    """Reacts to keys.

    Args:
        gui: The module `open3d.visualization.gui`.
        session: Moved by flying.
        panel: Its actions have keys.
        leave: Closes the window.
    """

    def __init__(self, gui: Any, session: Session, panel: Panel, leave: Callable[[], None]) -> None:
        self._gui, self._session, self._panel, self._leave = gui, session, panel, leave
        self._held: set[int] = set()
        self._controls: set[int] = set()
        self._flew = time.perf_counter()
        self._asked: float | None = None
        keys = gui.KeyName
        actions = {
            keys.HOME: lambda: session.move(session.home),
            keys.C: self._toggle_cameras,
            keys.N: lambda: panel.next_camera(1),
            keys.P: lambda: panel.next_camera(-1),
            keys.SPACE: lambda: panel.toggle_path() if panel.time_bar is None else panel.toggle_time(),
            keys.COMMA: lambda: session.step_frame(-1),
            keys.PERIOD: lambda: session.step_frame(1),
            keys.K: lambda: panel.act(session.add_key),
            keys.L: panel.toggle_path,
            keys.X: panel.screenshot,
            keys.V: panel.toggle_recording,
            keys.ESCAPE: self._escape,
        }
        self._actions = {int(key): action for key, action in actions.items()}

    def _codes(self, *names: str) -> set[int]:
        return {int(getattr(self._gui.KeyName, name)) for name in names}

    def on_key(self, event: Any) -> bool:
        """Handles an event; returns whether it was one of ours."""
        key, flying = int(event.key), self._codes(*_FLYING)
        if key in self._codes("ESCAPE"):
            self._asked = None
        if event.type == self._gui.KeyEvent.Type.UP:
            self._held.discard(key)
            self._controls.discard(key)
            return key in flying
        if key in self._codes("LEFT_CONTROL", "RIGHT_CONTROL"):
            self._controls.add(key)
            return False
        if self._controls and key in self._codes("Q"):
            self._leave()
            return True
        if key in flying:
            if not self._held:
                self._flew = time.perf_counter()
            self._held.add(key)
            self._session.flight.stop()
            return True
        if key not in self._actions or (event.is_repeat and key not in self._codes(*_REPEATING)):
            return False
        self._actions[key]()
        self._panel.update()
        return True

    def asked(self) -> None:
        """Notes a request to close the window.

        Open3D makes one for Esc, too, and reports that key afterwards; in a text field, only when it is released.
        """
        self._asked = time.perf_counter()

    def tick(self) -> None:
        """Flies while keys are held, and closes the window if that was requested otherwise than by Esc."""
        now = time.perf_counter()
        if self._asked is not None and now - self._asked > _ESCAPE_S:
            self._leave()
            return
        passed, self._flew = min(now - self._flew, 0.1), now
        if not self._held:
            return
        session = self._session
        held = {name: bool(self._codes(name) & self._held) for name in _FLYING}
        step = _FLY_SHARE * session.view.distance * passed
        view = session.view.flown(
            step * (held["D"] - held["A"]), step * (held["Q"] - held["E"]), step * (held["W"] - held["S"])
        )
        turn = 1.2 * passed
        session.move(view.orbited(turn * (held["LEFT"] - held["RIGHT"]), turn * (held["DOWN"] - held["UP"])))

    def _escape(self) -> None:
        """Closes a dialog, or stops what plays, but never the program."""
        if self._panel.has_dialog:
            self._panel.close_dialog()
            return
        self._session.is_playing = False
        if self._session.flight.time is not None:
            self._panel.toggle_path()

    def _toggle_cameras(self) -> None:
        self._session.with_cameras = not self._session.with_cameras
        self._session.request(is_moving=False)
