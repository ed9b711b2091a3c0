"""Callbacks of the window never raise into Open3D's loop."""

from vision3d.core.errors import InputError
from vision3d.viewer.widgets import guarded, shortened


def test_errors_in_a_callback_are_reported():
    said = []

    def fail(error):
        raise error

    assert guarded(fail, "otherwise", said.append)(InputError("no such camera")) == "otherwise"
    assert guarded(fail, False, said.append)(ZeroDivisionError("x")) is False
    assert guarded(lambda a, b: a + b, None, said.append)(1, 2) == 3
    assert said == ["no such camera", "internal error: ZeroDivisionError: x"]


def test_long_names_keep_their_ends():
    assert shortened("creature", 8) == "creature"
    assert shortened("a_cloud_with_a_long_name", 12) == "a_clou...ame"
    assert shortened("a_cloud_with_a_long_name", -5) == shortened("a_cloud_with_a_long_name", 8) == "a_cl...e"
