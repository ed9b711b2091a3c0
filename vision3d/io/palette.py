"""Tables of 256 numbers and palettes of rows that stand for many: what SOG files index into."""

import numpy as np

_SAMPLE = 1 << 20  # values that a table is made of


def codebook_of(values: np.ndarray) -> np.ndarray:
    """256 sorted numbers, half of them evenly over the range and half at quantiles: none of `values` is farther than 1/254
    of the range from the nearest, and where many are, much less.

    Args:
        values: Finite numbers of any shape, at least one.
    """
    flat = values.ravel()
    low, high = float(flat.min()), float(flat.max())
    sample = np.sort(flat[:: max(1, len(flat) // _SAMPLE)])
    places = np.rint(np.linspace(0, len(sample) - 1, 128)).astype(np.int64)
    return np.sort(np.concatenate([np.linspace(low, high, 128, dtype=np.float32), sample[places].astype(np.float32)]))


def nearest_entries(codebook: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index (uint8, shape of `values`) of the nearest number of a sorted table."""
    return np.searchsorted((codebook[1:] + codebook[:-1]) / 2, values).astype(np.uint8)


def palette_of(rows: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `largest` rows that stand for all, and the index (uint32) of each row's.

    As many rows as fit are their own palette. Otherwise all are split in two at the mean of the dimension of largest variance,
    and each part again, until there are `largest` parts (a power of two); the mean of a part stands for it. (A tree of
    splits takes seconds where k-means of as many centres would take hours.)

    Args:
        rows: (N, D).
        largest: A power of two.
    """
    if len(rows) <= largest:
        return rows, np.arange(len(rows), dtype=np.uint32)
    order, starts = np.arange(len(rows)), np.array([0])
    ordered = rows
    while len(starts) < largest:
        counts = np.diff(starts, append=len(rows))
        sums, squares = np.add.reduceat(ordered, starts), np.add.reduceat(ordered * ordered, starts)
        means = sums / counts[:, None]
        axis = (squares / counts[:, None] - means * means).argmax(1)
        part = np.repeat(np.arange(len(starts)), counts)
        is_high = ordered[np.arange(len(rows)), axis[part]] > means[np.arange(len(starts)), axis][part]
        shuffle = np.argsort(2 * part + is_high, kind="stable")
        order, ordered = order[shuffle], ordered[shuffle]
        keys = (2 * part + is_high)[shuffle]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        if len(starts) == len(counts):  # all parts hold equal rows
            break
    counts = np.diff(starts, append=len(rows))
    labels = np.empty(len(rows), np.uint32)
    labels[order] = np.repeat(np.arange(len(starts), dtype=np.uint32), counts)
    return np.add.reduceat(ordered, starts) / counts[:, None].astype(rows.dtype), labels
