"""Schedules of a fit as functions of its progress, 0 at the first step and 1 at the last.

Progress and not a step number is the argument, so that the same schedule serves a budget of steps and one of minutes,
and nothing (opacity resets, SH raises) falls right before the end of a short run.
"""

import math
from collections.abc import Sequence

from vision3d.core.errors import InputError


def exponential_decay(fraction: float, final_ratio: float = 0.01, delay: float = 0.0) -> float:
    """Factor on a learning rate: 1 until `delay`, then exponentially down to `final_ratio` at the end.

    Args:
        fraction: Progress in [0, 1].
        final_ratio: Factor at the end, > 0. 0.01 is the rate of the positions of Kerbl et al. 2023.
        delay: Progress at which the decay begins, in [0, 1).

    Raises:
        InputError: `final_ratio` or `delay` is out of range.

    Example:
        >>> round(exponential_decay(0.5, 0.01), 6)
        0.1
    """
    if final_ratio <= 0:
        raise InputError(f"final_ratio: got {final_ratio}, want a number > 0")
    if not 0 <= delay < 1:
        raise InputError(f"delay: got {delay}, want a number in [0, 1)")
    return final_ratio ** (min(max(fraction - delay, 0.0), 1 - delay) / (1 - delay))


def one_cycle(highest: float, fraction: float, warmup: float = 0.3) -> float:
    """Learning rate that goes up in a cosine from a 25th of `highest` and then down to a ten-thousandth (Smith & Topin 2019).

    Args:
        highest: The rate at its peak.
        fraction: Progress in [0, 1].
        warmup: Progress at the peak, in (0, 1).

    Example:
        >>> one_cycle(1e-3, 0.3)
        0.001
    """
    if fraction < warmup:
        low, high, part = highest / 25, highest, fraction / warmup
    else:
        low, high, part = highest, highest / 10_000, (fraction - warmup) / (1 - warmup)
    return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


def downscale_factor(fraction: float, start: int = 4, doublings: Sequence[float] = (0.15, 0.35)) -> int:
    """By how much images are shrunk at this progress: `start`, halved at every fraction in `doublings`, never below 1.

    Args:
        fraction: Progress in [0, 1].
        start: Factor at the beginning, a power of two.
        doublings: Progress at each doubling of the resolution, ascending.

    Raises:
        InputError: `start` is no power of two or `doublings` does not ascend.

    Example:
        >>> [downscale_factor(f) for f in (0.0, 0.2, 0.5)]
        [4, 2, 1]
    """
    if start < 1 or start & (start - 1):
        raise InputError(f"start: got {start}, want a power of two (1, 2, 4, ...)")
    if list(doublings) != sorted(doublings):
        raise InputError(f"doublings: got {tuple(doublings)}, want ascending fractions")
    return max(1, start >> sum(fraction >= at for at in doublings))


def sh_degree(fraction: float, max_degree: int = 3, every: float = 1 / 30) -> int:
    """Active degree of the spherical harmonics: 0 at first, one more after each `every` of the run.

    The default is that of Kerbl et al. 2023: a degree each 1000 of 30000 steps.

    Example:
        >>> [sh_degree(f) for f in (0.0, 0.04, 0.2)]
        [0, 1, 3]
    """
    if every <= 0:
        return max_degree
    return min(max_degree, int(fraction / every + 1e-9))  # the allowance makes step k * every * total count as reached
