"""Average precision from matched detections: KITTI's curves of 41 points, and a sum over all true positives."""

import math
from typing import NamedTuple

import numpy as np

from vision3d.stages.detect.evaluation.matching import Case, count_at, greedy, true_scores

POINTS = 41


class Averages(NamedTuple):
    """In percent."""

    r11: float
    """Mean of the precision at recalls 0, 0.1, ..., 1 (until 2019)."""
    r40: float
    """Mean of the precision at recalls 1/40, 2/40, ..., 1."""
    exact: float
    """Mean over all valid labels of the precision at the score that finds each of them (0 if none does), without interpolation.
    Unlike the others it is 100 for a perfect detector even with fewer than 41 labels."""


def averages(case: Case) -> tuple[Averages, Averages]:
    """Averages of the precision, and of the orientation similarity; NaN if no label counts."""
    if case.valid == 0:
        nothing = Averages(math.nan, math.nan, math.nan)
        return nothing, nothing
    thresholds = recall_thresholds(true_scores(case), case.valid)
    counts = count_at(case, thresholds)
    total = counts.true + counts.false
    curves = [_envelope(value / np.maximum(total, 1)) for value in (counts.true, counts.similarity)]
    exact = _exact(case)
    found = [
        Averages(100 * float(curve[::4].mean()), 100 * float(curve[1:].mean()), 100 * value)
        for curve, value in zip(curves, exact)
    ]
    return found[0], found[1]


def recall_thresholds(scores: np.ndarray, valid: int) -> np.ndarray:
    """Scores of true positives at which the recall is closest to 0, 1/40, ..., 1, decreasing; at most 41."""
    thresholds: list[float] = []
    recall = 0.0
    ordered = np.sort(scores)[::-1]
    for i, score in enumerate(ordered):
        left = (i + 1) / valid
        is_last = i == len(ordered) - 1
        right = left if is_last else (i + 2) / valid
        if right - recall < recall - left and not is_last:
            continue
        thresholds.append(float(score))
        recall += 1 / (POINTS - 1.0)
    return np.array(thresholds)


def _envelope(values: np.ndarray) -> np.ndarray:
    """The largest value at each point or a later one; 0 at points that no detection reaches."""
    curve = np.zeros(max(POINTS, len(values)))
    curve[: len(values)] = np.maximum.accumulate(values[::-1])[::-1]
    return curve[:POINTS]


def _exact(case: Case) -> tuple[float, float]:
    detections, pairs = greedy(case)
    order = np.argsort(-case.scores[detections], kind="stable")
    scores, pairs = case.scores[detections][order], pairs[order]
    is_true = pairs >= 0
    last = np.searchsorted(-scores, -scores, "right") - 1  # equal scores share a threshold
    similarity = np.zeros(len(pairs))
    similarity[is_true] = case.similarity[pairs[is_true]]
    values = [np.cumsum(part)[last] / (last + 1) for part in (is_true, similarity)]
    return float(values[0][is_true].sum() / case.valid), float(values[1][is_true].sum() / case.valid)
