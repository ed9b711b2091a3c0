"""What the program says when it refuses something."""


def assert_refused(result, *parts, code=3):
    """One line on the error stream with these parts, and the exit code."""
    got, out, err = result
    assert (got, out) == (code, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for part in parts:
        assert str(part) in err, err
