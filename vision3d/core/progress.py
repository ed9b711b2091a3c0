"""Progress of long loops: a bar on a terminal, else a line every ten seconds; or a callback of the caller."""

import math
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, SupportsFloat, TextIO, runtime_checkable

if TYPE_CHECKING:
    import rich.progress


@runtime_checkable
class ProgressCallback(Protocol):
    """Called at every step of a loop: `task` ("fit"), `step` of `total` done, and `values` such as the loss."""

    def __call__(self, task: str, step: int, total: int, values: Mapping[str, SupportsFloat]) -> None: ...


def silent(task: str, step: int, total: int, values: Mapping[str, SupportsFloat]) -> None:
    """A callback that shows nothing."""


class Progress:
    """One loop that reports its steps.

    Args:
        total: Number of steps of the loop.
        task: What it does, in one word.
        callback: Called at every step; None shows progress on standard error.
        quiet: Without a callback, show nothing.

    Example:
        >>> with Progress(3, "fit", quiet=True) as bar:
        ...     for step in range(3):
        ...         bar.update(step + 1, loss=0.1)
    """

    def __init__(self, total: int, task: str, callback: ProgressCallback | None = None, *, quiet: bool = False) -> None:
        self.total, self.task = total, task
        self._own = None if callback is not None or quiet else TerminalProgress()
        self._callback = callback or self._own or silent

    def update(self, step: int, **values: SupportsFloat) -> None:
        """Report that `step` steps are done, with values to show (numbers, or tensors of one number)."""
        self._callback(self.task, step, self.total, values)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._own is not None:
            self._own.close()


class TerminalProgress:
    """Shows any number of tasks: rich bars with the time left where `stream` is a terminal, else plain lines.

    Args:
        stream: Where to write; standard error when None.
        quiet: Show nothing.
        interval: Seconds between two plain lines.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False, interval: float = 10.0) -> None:
        self.stream, self.quiet, self.interval = stream or sys.stderr, quiet, interval
        self._bars: rich.progress.Progress | None = None
        self._ids: dict[str, Any] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._shown: dict[str, float] = {}

    def __call__(self, task: str, step: int, total: int, values: Mapping[str, SupportsFloat]) -> None:
        if self.quiet:
            return
        if self.stream.isatty():
            self._show_bar(task, step, total, values)
        else:
            self._show_line(task, step, total, values)

    def close(self) -> None:
        """Close the bars; their last state stays on the screen."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._ids.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _show_line(self, task: str, step: int, total: int, values: Mapping[str, SupportsFloat]) -> None:
        now = time.monotonic()
        start, first = self._started.setdefault(task, (now, step))
        if step < total and now - self._shown.setdefault(task, now) < self.interval:
            return
        self._shown[task] = now
        left = (total - step) * (now - start) / (step - first) if step > first else math.nan
        times = [f"{_clock(now - start)} so far", *([f"{_clock(left)} left"] if left > 0 else [])]
        self.stream.write(", ".join([f"{task}: step {step}/{total}", *_texts(values), *times]) + "\n")
        self.stream.flush()

    def _show_bar(self, task: str, step: int, total: int, values: Mapping[str, SupportsFloat]) -> None:
        bars = self._bars = self._bars or self._new_bars()
        if task not in self._ids:
            self._ids[task] = bars.add_task(task, total=total, metrics="")
            bars.start()
        now = time.monotonic()
        # Reading a value may wait for the device, so the display is updated only a few times per second.
        if step >= total or now - self._shown.get(task, -math.inf) >= 0.1:
            self._shown[task] = now
            bars.update(self._ids[task], completed=step, total=total, metrics="  ".join(_texts(values)))

    def _new_bars(self) -> "rich.progress.Progress":
        from rich import progress
        from rich.console import Console

        columns = [
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[metrics]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
        ]
        return progress.Progress(*columns, console=Console(file=self.stream), redirect_stdout=False)


def _texts(values: Mapping[str, SupportsFloat]) -> list[str]:
    return [f"{name} {_number(float(value))}" for name, value in values.items()]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e12 else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
