"""Assignment of detections to labels. Frames are independent: the n-th label of every frame is assigned at the same time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vision3d.stages.detect.evaluation.overlaps import Pairs

COUNTS, IGNORED, OTHER = 0, 1, -1


class Case(NamedTuple):
    """One class, difficulty and metric."""

    pairs: Pairs
    """With more than the required overlap; neither side is OTHER."""
    label_state: np.ndarray
    """COUNTS, IGNORED or OTHER (of a different class) for each label."""
    detection_state: np.ndarray
    """The same for each detection."""
    label_frames: np.ndarray
    detection_frames: np.ndarray
    scores: np.ndarray
    excused: np.ndarray
    """Whether a detection lies in a DontCare region, so that it is not a false positive."""
    similarity: np.ndarray
    """Orientation similarity (1 + cos(difference)) / 2 of each pair."""

    @property
    def valid(self) -> int:
        """Number of labels that count."""
        return int((self.label_state == COUNTS).sum())


class Counts(NamedTuple):
    """At each score threshold."""

    true: np.ndarray
    false: np.ndarray
    similarity: np.ndarray
    """Sum over the true positives."""


def true_scores(case: Case) -> np.ndarray:
    """Scores of the true positives without a threshold: each label takes its free detection of the highest score."""
    taken = np.zeros(len(case.scores), dtype=bool)
    found = []
    for labels, columns in _rounds(case.pairs.labels, case.label_frames):
        chosen = np.full(len(labels), -1)
        for rows, pairs in columns:
            detection = case.pairs.detections[pairs]
            before = np.where(chosen[rows] < 0, -np.inf, case.scores[chosen[rows]])
            better = ~taken[detection] & (case.scores[detection] > before)
            chosen[rows] = np.where(better, detection, chosen[rows])
        is_matched = chosen >= 0
        taken[chosen[is_matched]] = True
        is_true = is_matched & (case.label_state[labels] == COUNTS) & (case.detection_state[chosen] == COUNTS)
        found.append(case.scores[chosen[is_true]])
    return np.concatenate(found) if found else np.zeros(0)


def count_at(case: Case, thresholds: np.ndarray) -> Counts:
    """True and false positives at each threshold.

    A label takes the free detection with the largest overlap, preferably one that counts. A detection that is taken is not a
    false positive, even if one of the two is ignored.
    """
    shape = (len(case.scores), len(thresholds))
    taken = np.zeros(shape, dtype=bool)
    passes = case.scores[:, None] >= thresholds
    true, similarity = np.zeros(shape[1], dtype=np.int64), np.zeros(shape[1])
    for labels, columns in _rounds(case.pairs.labels, case.label_frames):
        chosen = np.full((len(labels), shape[1]), -1)  # indices of pairs
        largest, is_ignored = np.zeros(chosen.shape), np.zeros(chosen.shape, dtype=bool)
        for rows, pairs in columns:
            detection = case.pairs.detections[pairs]
            free = passes[detection] & ~taken[detection]
            state, overlap = case.detection_state[detection][:, None], case.pairs.overlaps[pairs][:, None]
            better = free & (state == COUNTS) & ((overlap > largest[rows]) | is_ignored[rows])
            fallback = free & (state == IGNORED) & (chosen[rows] < 0)
            chosen[rows] = np.where(better | fallback, pairs[:, None], chosen[rows])
            largest[rows] = np.where(better, overlap, largest[rows])
            is_ignored[rows] = (is_ignored[rows] | fallback) & ~better
        row, column = (chosen >= 0).nonzero()
        pair = chosen[row, column]
        detection = case.pairs.detections[pair]
        taken[detection, column] = True
        is_true = (case.label_state[labels[row]] == COUNTS) & (case.detection_state[detection] == COUNTS)
        true += np.bincount(column[is_true], minlength=shape[1])
        similarity += np.bincount(column[is_true], case.similarity[pair[is_true]], shape[1])
    candidates = (case.detection_state == COUNTS) & ~case.excused
    false = (passes[candidates] & ~taken[candidates]).sum(0)
    return Counts(true, false, similarity)


def greedy(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Detections that count, by decreasing score: each takes the free label with the largest overlap, preferably one that
    counts.

    Returns:
        Indices of the detections that are true or false positives, and the pair of each true one (-1: false).
    """
    pairs = case.pairs
    order = np.lexsort(
        (pairs.labels, pairs.detections, -case.scores[pairs.detections], case.detection_frames[pairs.detections])
    )
    order = order[case.detection_state[pairs.detections[order]] == COUNTS]
    taken = np.zeros(len(case.label_state), dtype=bool)
    result = np.full(len(case.scores), -1)
    ignored = case.excused.copy()
    for detections, columns in _rounds(pairs.detections[order], case.detection_frames):
        chosen, largest = np.full(len(detections), -1), np.zeros(len(detections))
        is_ignored = np.zeros(len(detections), dtype=bool)
        for rows, places in columns:
            pair = order[places]
            label, overlap = pairs.labels[pair], pairs.overlaps[pair]
            counts, free = case.label_state[label] == COUNTS, ~taken[label]
            better = free & np.where(counts, is_ignored[rows] | (overlap > largest[rows]), (chosen[rows] < 0))
            chosen[rows] = np.where(better, pair, chosen[rows])
            largest[rows] = np.where(better & counts, overlap, largest[rows])
            is_ignored[rows] = np.where(better, ~counts, is_ignored[rows])
        is_matched = chosen >= 0
        taken[pairs.labels[chosen[is_matched]]] = True
        ignored[detections[is_matched & is_ignored]] = True
        is_true = is_matched & ~is_ignored
        ignored[detections[is_true]] = False
        result[detections[is_true]] = chosen[is_true]
    kept = ((case.detection_state == COUNTS) & ~ignored).nonzero()[0]
    return kept, result[kept]


def _rounds(owners: np.ndarray, frames: np.ndarray) -> Iterator[tuple[np.ndarray, Iterator[tuple[np.ndarray, np.ndarray]]]]:
    """Groups of owners (labels or detections), at most one per frame, in the order of `owners` within each frame.

    Args:
        owners: Owner of each pair; pairs of an owner are adjacent, and the owners of a frame too.
        frames: Frame of each owner.

    Yields:
        The owners of the round, and iterations over their pairs: rows of the round, and the next pair of each.
    """
    if len(owners) == 0:
        return
    firsts = np.concatenate([[0], (np.diff(owners) != 0).nonzero()[0] + 1])
    counts = np.diff(np.concatenate([firsts, [len(owners)]]))
    owner = owners[firsts]
    frame = frames[owner]
    starts = np.concatenate([[0], (np.diff(frame) != 0).nonzero()[0] + 1])
    ranks = np.arange(len(owner)) - np.repeat(starts, np.diff(np.concatenate([starts, [len(owner)]])))
    by_rank = np.argsort(ranks, kind="stable")
    ends = np.cumsum(np.bincount(ranks))
    for begin, end in zip(np.concatenate([[0], ends[:-1]]), ends):
        members = by_rank[begin:end]
        yield owner[members], _columns(firsts[members], counts[members])


def _columns(firsts: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for k in range(int(counts.max())):
        rows = (counts > k).nonzero()[0]
        yield rows, firsts[rows] + k
