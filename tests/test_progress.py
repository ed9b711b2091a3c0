import io
import re

import pytest
import torch

from vision3d.core import progress
from vision3d.core.progress import Progress, TerminalProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock controlled by the test."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_every_ten_seconds(clock):
    stream = io.StringIO()
    with TerminalProgress(stream) as show:
        for step in range(1, 31):
            show("fit", step, 30, {"loss": 0.123456, "gaussians": torch.tensor(12000)})
            clock[0] += 1
    lines = stream.getvalue().splitlines()
    assert lines == [
        "fit: step 11/30, loss 0.1235, gaussians 12,000, 0:10 so far, 0:19 left",
        "fit: step 21/30, loss 0.1235, gaussians 12,000, 0:20 so far, 0:09 left",
        "fit: step 30/30, loss 0.1235, gaussians 12,000, 0:29 so far",
    ]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", stream.getvalue())


def test_terminal_gets_a_bar_with_metrics(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with TerminalProgress(stream) as show:
        for step in range(1, 4):
            show("fit", step, 3, {"loss": 0.5})
    text = stream.getvalue()
    assert "fit" in text and "3/3" in text and "loss 0.5" in text and "\x1b[" in text


def test_quiet_writes_nothing():
    stream = Terminal()
    with TerminalProgress(stream, quiet=True) as show:
        show("fit", 1, 1, {})
    assert stream.getvalue() == ""


def test_callback_takes_every_step(capsys):
    seen = []
    with Progress(2, "fit", lambda *step: seen.append(step)) as bar:
        bar.update(1, loss=2.0)
        bar.update(2)
    assert seen == [("fit", 1, 2, {"loss": 2.0}), ("fit", 2, 2, {})]
    assert capsys.readouterr() == ("", "")


def test_progress_without_callback_writes_to_stderr(capsys):
    with Progress(1, "fit") as bar:
        bar.update(1, loss=2.0)
    with Progress(1, "fit", quiet=True) as bar:
        bar.update(1)
    assert capsys.readouterr() == ("", "fit: step 1/1, loss 2, 0:00 so far\n")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01")])
def test_clock(seconds, text):
    assert progress._clock(seconds) == text
