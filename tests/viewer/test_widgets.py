"""Callbacks of the window never raise into Open3D's loop."""

from vision3d.core.errors import InputError
from vision3d.viewer.widgets import guarded


def test_errors_in_a_callback_are_reported():
    said = []

    def fail(error):
        raise error

    assert guarded(fail, "otherwise", said.append)(InputError("no such camera")) == "otherwise"
    assert guarded(fail, False, said.append)(ZeroDivisionError("x")) is False
    assert guarded(lambda a, b: a + b, None, said.append)(1, 2) == 3
    assert said == ["no such camera", "internal error: ZeroDivisionError: x"]
