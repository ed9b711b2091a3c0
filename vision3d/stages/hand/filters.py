"""One-Euro filter: less jitter of a still hand, little lag of a moving one."""

import math

import numpy as np
from numpy.typing import NDArray

from vision3d.core.errors import InputError, ShapeError
from vision3d.stages.hand.config import FilterConfig


class OneEuroFilter:
    """Low-pass filter whose cutoff grows with the speed (Casiez et al. 2012, https://doi.org/10.1145/2207676.2208639).

    x' = a x + (1 - a) x'_before with a = 1 / (1 + 1 / (2 pi f dt)), f = min_cutoff + beta |speed'|; the speed is filtered in
    the same way, with a fixed cutoff. Each number of an array is filtered on its own.

    Args:
        config: Cutoffs; defaults when None.
    """

    def __init__(self, config: FilterConfig | None = None) -> None:
        self.config = config or FilterConfig()
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: the next array is returned as it is."""
        self._time = -math.inf
        self._values: NDArray[np.float64] | None = None
        self._speeds: NDArray[np.float64] | None = None

    def __call__(self, values: NDArray[np.floating], time: float) -> NDArray[np.float64]:
        """The filtered array.

        Args:
            values: Of the same shape in every call. Where it is NaN, so is the result, and the next number there is returned as
                it is.
            time: Time of the array [s], later than that of the call before.

        Raises:
            InputError: The time is not finite or not later.
            ShapeError: The shape has changed.
        """
        values = np.array(values, np.float64)
        if not math.isfinite(time) or time <= self._time:
            raise InputError(f"time: got {time} s after {self._time} s, want finite, ascending times")
        step, self._time = time - self._time, time
        if self._values is None or self._speeds is None:
            self._values, self._speeds = values, np.zeros_like(values)
            return values.copy()
        if values.shape != self._values.shape:
            raise ShapeError("values", values.shape, f"{self._values.shape} as before; call reset() in between")
        before = np.where(np.isnan(self._values), values, self._values)
        share = _share(self.config.derivative_cutoff, step)
        self._speeds = np.nan_to_num(self._speeds + share * ((values - before) / step - self._speeds))
        share = _share(self.config.min_cutoff + self.config.beta * np.abs(self._speeds), step)
        self._values = before + share * (values - before)
        return self._values.copy()


def _share(cutoff, step: float):
    """Share of the newest value, for a cutoff [Hz] and a time step [s]."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * step))
