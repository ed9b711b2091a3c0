"""Progress of a run in steps, wall time, or both."""

import time


class Clock:
    """Progress of a run from 0 to 1; time is measured from `start` on, so that setup before the first step does not count.

    Args:
        total_steps: Steps of the run, or None.
        total_seconds: Wall time of the run, or None. With both, whichever ends first.
        seconds: Wall time of earlier sessions of the run.
    """

    def __init__(self, total_steps: int | None, total_seconds: float | None, seconds: float = 0.0) -> None:
        self.total_steps, self.total_seconds = total_steps, total_seconds
        self._earlier = seconds
        self._start: float | None = None

    def start(self) -> None:
        """Mark the beginning of the first step of this session."""
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Wall time of the steps so far, including earlier sessions."""
        return self._earlier + (0.0 if self._start is None else time.perf_counter() - self._start)

    def progress(self, step: int) -> float:
        """Completed fraction of the run after `step` steps; 1 at the end."""
        parts = []
        if self.total_steps is not None:
            parts.append(step / self.total_steps)
        if self.total_seconds is not None:
            parts.append(self.seconds() / self.total_seconds)
        return min(max(parts, default=1.0), 1.0)

    def steps_expected(self, step: int, progress: float) -> int:
        """Expected total number of steps."""
        if self.total_seconds is None and self.total_steps is not None:
            return self.total_steps
        guess = round(step / progress) if progress > 0 else step + 1
        return max(step, guess if self.total_steps is None else min(guess, self.total_steps))
