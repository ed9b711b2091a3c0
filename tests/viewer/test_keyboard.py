"""Keys of the window, without a window: what Esc, Ctrl Q and the frame of the window request."""

from enum import IntEnum
from types import SimpleNamespace

import pytest

from vision3d.viewer import keyboard
from vision3d.viewer.keyboard import Keyboard

NAMES = "W A S D Q E LEFT RIGHT UP DOWN COMMA PERIOD N P HOME C SPACE K L X V ESCAPE LEFT_CONTROL RIGHT_CONTROL"
KeyName = IntEnum("KeyName", NAMES)
Type = IntEnum("Type", ["UP", "DOWN"])
GUI = SimpleNamespace(KeyName=KeyName, KeyEvent=SimpleNamespace(Type=Type))


class Recorded:
    """A session and a panel that record calls."""

    def __init__(self):
        self.calls = []
        self.has_dialog, self.is_playing, self.time_bar = False, True, None
        self.flight = SimpleNamespace(time=None, stop=lambda: None)
        self.view = SimpleNamespace(distance=1.0, flown=lambda *steps: self.view, orbited=lambda *turns: self.view)

    def __getattr__(self, name):
        return lambda *arguments, **options: self.calls.append(name)


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(keyboard.time, "perf_counter", lambda: now.seconds)
    return now


@pytest.fixture
def keys(clock):
    both = Recorded()
    both.keys = Keyboard(GUI, both, both, lambda: both.calls.append("leave"))
    both.press = lambda name, kind=Type.DOWN: both.keys.on_key(SimpleNamespace(key=KeyName[name], type=kind, is_repeat=False))
    return both


def test_escape_closes_a_dialog_first(keys):
    keys.has_dialog = True
    keys.press("ESCAPE")
    assert "close_dialog" in keys.calls and keys.is_playing


def test_escape_stops_what_plays(keys):
    keys.flight.time = 1.0
    keys.press("ESCAPE")
    assert "toggle_path" in keys.calls and not keys.is_playing
    keys.calls.clear()
    keys.flight.time = None
    keys.press("ESCAPE")
    assert "toggle_path" not in keys.calls and "leave" not in keys.calls


@pytest.mark.parametrize("kinds", [[Type.DOWN, Type.UP], [Type.UP]])
def test_escape_never_closes_the_window(keys, clock, kinds):
    """Open3D requests to close at each event of Esc; a text field keeps the first one."""
    for kind in (Type.DOWN, Type.UP):
        keys.keys.asked()
        if kind in kinds:
            keys.press("ESCAPE", kind)
        clock.seconds += 0.4
        keys.keys.tick()
    clock.seconds += 10
    keys.keys.tick()
    assert "leave" not in keys.calls


def test_the_frame_of_the_window_closes_it(keys, clock):
    keys.keys.asked()
    keys.keys.tick()
    assert keys.calls == []
    clock.seconds += 1
    keys.keys.tick()
    assert keys.calls == ["leave"]


def test_ctrl_q_closes_and_q_flies(keys, clock):
    keys.press("Q")
    clock.seconds += 0.1
    keys.keys.tick()
    assert keys.calls == ["move"]
    keys.press("Q", Type.UP)
    keys.press("LEFT_CONTROL")
    clock.seconds += 0.1
    keys.keys.tick()
    assert keys.calls == ["move"]  # Ctrl alone does not fly
    keys.press("Q")
    assert keys.calls[-1] == "leave"
    keys.calls.clear()
    keys.press("LEFT_CONTROL", Type.UP)
    keys.press("Q")
    assert "leave" not in keys.calls
