"""Codebooks of 256 numbers and palettes of representative rows, which SOG files index into."""

import numpy as np
from scipy.sparse import csr_array

_SAMPLE = 1 << 20  # values used to build a codebook
_BINS = 1 << 12
_EVENLY = 0.25  # fraction of the entries that cover the range evenly
_ROUNDS = 8
_SAMPLE_ROWS = 1 << 18  # rows used for the first splits of a palette
_PART = 1 << 12  # rows of a part that fits the cache
_CHUNK = 1 << 14  # rows assigned to parts at a time


def codebook_of(values: np.ndarray) -> np.ndarray:
    """256 sorted numbers with small squared errors: the values themselves if there are no more, else entries whose density is
    that of the values to the power 1/3 (optimal for many entries; Panter and Dite 1951), improved by Lloyd's iteration.

    A quarter of the density is uniform, so that also the errors of rare values are about 1/128 of the range at most.

    Args:
        values: Finite numbers of any shape, at least one.
    """
    flat = values.ravel()
    sample = np.sort(flat[:: max(1, len(flat) // _SAMPLE)]).astype(np.float64)
    distinct = np.unique(sample)
    if len(distinct) <= 256 and len(sample) == len(flat):
        return np.pad(distinct, (0, 256 - len(distinct)), mode="edge").astype(np.float32)
    counts, edges = np.histogram(sample, _BINS, (float(flat.min()), float(flat.max())))
    density = np.cbrt(counts)
    density = (1 - _EVENLY) * density / density.sum() + _EVENLY / _BINS
    table = np.interp((np.arange(256) + 0.5) / 256, np.concatenate([[0], np.cumsum(density)]), edges)
    sums = np.concatenate([[0], np.cumsum(sample)])
    for _ in range(_ROUNDS):
        ends = np.concatenate([[0], np.searchsorted(sample, (table[1:] + table[:-1]) / 2), [len(sample)]])
        sizes = np.diff(ends)
        table = np.where(sizes > 0, np.diff(sums[ends]) / np.maximum(sizes, 1), table)
    return np.sort(table).astype(np.float32)


def nearest_entries(codebook: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index (uint8, shape of `values`) of the nearest number in a sorted codebook."""
    return np.searchsorted((codebook[1:] + codebook[:-1]) / 2, values).astype(np.uint8)


def palette_of(rows: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `largest` representative rows, and the index (uint32) of each row's representative.

    If there are few enough rows, they are the palette. Otherwise all are split in two at the mean of the dimension of largest
    variance, and each part again, until there are `largest` parts (a power of two); each is represented by its mean. The first
    splits are computed from a sample, the later ones part by part from all rows. (A tree of splits takes a second where k-means
    with as many centers would take hours.)

    Args:
        rows: (N, D).
        largest: A power of two, up to 2^16.
    """
    if len(rows) <= largest:
        return rows, np.arange(len(rows), dtype=np.uint32)
    depth = largest.bit_length() - 1
    first = min(depth, (len(rows) // _PART).bit_length())
    splits = _split(rows[:: -(-len(rows) // _SAMPLE_ROWS)], first)[0]
    parts = np.zeros(len(rows), np.uint16)
    for start in range(0, len(rows), _CHUNK):
        chunk, own = rows[start : start + _CHUNK], parts[start : start + _CHUNK]
        for axes, limits in splits:
            own[:] = 2 * own + (chunk[np.arange(len(chunk)), axes[own]] > limits[own])
    order, ends = np.argsort(parts, kind="stable"), np.cumsum(np.bincount(parts))
    palette: list[np.ndarray] = []
    labels, num_rows = np.empty(len(rows), np.uint32), 0
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist()):
        if start == end:
            continue
        part = rows[order[start:end]]
        leaves = np.unique(_split(part, depth - first)[1], return_inverse=True)[1]
        sums, counts = _sums(part, leaves, int(leaves.max()) + 1)
        palette.append(sums / counts[:, None].astype(rows.dtype))
        labels[order[start:end]] = num_rows + leaves
        num_rows += len(counts)
    return np.concatenate(palette), labels


def _split(rows: np.ndarray, depth: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Splits of each level (dimension and threshold of each part), and the part (N,) of each row after the last level."""
    width, both = rows.shape[1], np.concatenate([rows, rows * rows], 1)
    parts, splits = np.zeros(len(rows), np.uint16), []
    for level in range(depth):
        sums, counts = _sums(both, parts, 1 << level)
        sums /= np.maximum(counts, 1)[:, None].astype(rows.dtype)
        means = sums[:, :width]
        axes = (sums[:, width:] - means * means).argmax(1)
        limits = means[np.arange(1 << level), axes]
        parts = (2 * parts + (rows[np.arange(len(rows)), axes[parts]] > limits[parts])).astype(np.uint16)
        splits.append((axes, limits))
    return splits, parts


def _sums(rows: np.ndarray, parts: np.ndarray, num_parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the rows of each part: a sparse product, many times faster than `np.add.reduceat`."""
    counts = np.bincount(parts, minlength=num_parts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    members = csr_array((np.ones(len(rows), rows.dtype), np.argsort(parts, kind="stable"), starts), (num_parts, len(rows)))
    return members @ rows, counts
