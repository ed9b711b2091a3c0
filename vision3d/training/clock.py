"""How much of a run is over: steps, wall time, or both."""

import time


class Clock:
    """Progress of a run from 0 to 1; the time runs from `start` on, so that nothing before the first step counts.

    Args:
        total_steps: Steps of the run, or None.
        total_seconds: Wall time of the run, or None. With both, what ends first counts.
        seconds: Wall time that earlier sessions of the run took.
    """

    def __init__(self, total_steps: int | None, total_seconds: float | None, seconds: float = 0.0) -> None:
        self.total_steps, self.total_seconds = total_steps, total_seconds
        self._earlier = seconds
        self._start: float | None = None

    def start(self) -> None:
        """The first step of this session begins."""
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Wall time of the steps so far, earlier sessions included."""
        return self._earlier + (0.0 if self._start is None else time.perf_counter() - self._start)

    def progress(self, step: int) -> float:
        """The part of the run that is over after `step` steps; 1 when it is at its end."""
        parts = []
        if self.total_steps is not None:
            parts.append(step / self.total_steps)
        if self.total_seconds is not None:
            parts.append(self.seconds() / self.total_seconds)
        return min(max(parts, default=1.0), 1.0)

    def steps_expected(self, step: int, progress: float) -> int:
        """Steps that the whole run will have taken."""
        if self.total_seconds is None and self.total_steps is not None:
            return self.total_steps
        guess = round(step / progress) if progress > 0 else step + 1
        return max(step, guess if self.total_steps is None else min(guess, self.total_steps))
