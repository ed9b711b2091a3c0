"""Schedules of a fit as functions of progress, from 0 at the first step to 1 at the last.

The argument is progress instead of a step number, so that the same schedule works for a budget of steps or minutes, and
nothing (opacity resets, SH increases) happens right before the end of a short run.
"""

import math
from collections.abc import Sequence

from vision3d.core.errors import InputError


def exponential_decay(fraction: float, final_ratio: float = 0.01, delay: float = 0.0) -> float:
    """Factor of a learning rate: 1 until `delay`, then exponential decay to `final_ratio` at the end.

    Args:
        fraction: Progress in [0, 1].
        final_ratio: Factor at the end, > 0. 0.01 is the value for positions in Kerbl et al. 2023.
        delay: Progress at which the decay starts, in [0, 1).

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
    """Learning rate that rises in a cosine from 1/25 of `highest` and then falls to 1/10000 of it (Smith & Topin 2019).

    Args:
        highest: Peak learning rate.
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
    """Downscale factor of images at this progress: `start`, halved at every fraction in `doublings`, at least 1.

    Args:
        fraction: Progress in [0, 1].
        start: Initial factor, a power of two.
        doublings: Progress at each doubling of the resolution, ascending.

    Raises:
        InputError: `start` is not a power of two or `doublings` does not ascend.

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
    """Active degree of the spherical harmonics: 0 at first, then one more after each `every` of the run.

    The default is that of Kerbl et al. 2023: one degree per 1000 of 30000 steps.

    Example:
        >>> [sh_degree(f) for f in (0.0, 0.04, 0.2)]
        [0, 1, 3]
    """
    if every <= 0:
        return max_degree
    return min(max_degree, int(fraction / every + 1e-9))  # tolerance for rounding at step k * every * total
