"""Checks of error output."""

from vision3d.cli.app import with_short_paths


def assert_refused(result, *parts, code=3):
    """One line on stderr with these parts, and the exit code."""
    got, out, err = result
    assert (got, out) == (code, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for part in parts:
        assert str(part) in err or with_short_paths(str(part)) in err, err
