"""Pairs of a label and a detection of the same frame that overlap, and by how much."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from vision3d.geometry.rotated_boxes import paired_box_iou
from vision3d.stages.detect.evaluation.difficulties import DONT_CARE
from vision3d.stages.detect.evaluation.frames import Objects

_CHUNK = 200_000  # pairs
Indices = tuple[np.ndarray, np.ndarray]
Overlap = Callable[[Objects, Objects, np.ndarray, np.ndarray], np.ndarray]


class Pairs(NamedTuple):
    """Ordered by label, then by detection."""

    labels: np.ndarray
    detections: np.ndarray
    overlaps: np.ndarray


def overlapping(labels: Objects, detections: Objects, metrics: tuple[str, ...]) -> dict[str, Pairs]:
    """The pairs with a positive IoU in "2d" (boxes in the image), "bev" and "3d"; without DontCare regions."""
    found: dict[str, list[Pairs]] = {metric: [] for metric in metrics}
    for chunk in _pairs(labels, detections, labels.names != DONT_CARE):
        for metric in metrics:
            found[metric].append(_positive(chunk, _iou_2d if metric == "2d" else _iou(metric), labels, detections))
    return {metric: _joined(parts) for metric, parts in found.items()}


def inside_regions(labels: Objects, detections: Objects) -> np.ndarray:
    """The largest fraction of each detection's 2D box that one DontCare region covers."""
    covered = np.zeros(len(detections))
    for label, detection in _pairs(labels, detections, labels.names == DONT_CARE):
        shared, _, area = _shared_2d(labels, detections, label, detection)
        np.maximum.at(covered, detection, shared / np.where(area > 0, area, 1))
    return covered


def _pairs(labels: Objects, detections: Objects, which: np.ndarray) -> Iterator[Indices]:
    """All pairs of the selected labels with the detections of their frames, in chunks."""
    firsts = np.concatenate([[0], np.cumsum(detections.counts)])
    rows = which.nonzero()[0]
    frames = labels.frames[rows]
    counts = detections.counts[frames]
    begin, ends = 0, np.cumsum(counts)
    while begin < len(rows):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
        some = counts[begin:end]
        offsets = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
        yield np.repeat(rows[begin:end], some), np.repeat(firsts[frames[begin:end]], some) + offsets
        begin = end


def _positive(chunk: Indices, overlap: Overlap, labels: Objects, detections: Objects) -> Pairs:
    label, detection = chunk
    values = overlap(labels, detections, label, detection)
    kept = values > 0
    return Pairs(label[kept], detection[kept], values[kept])


def _joined(parts: list[Pairs]) -> Pairs:
    empty = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(arrays) for arrays in zip(empty, *parts)))


def _shared_2d(labels: Objects, detections: Objects, label: np.ndarray, detection: np.ndarray) -> tuple[np.ndarray, ...]:
    assert labels.boxes_2d is not None and detections.boxes_2d is not None
    a, b = labels.boxes_2d[label], detections.boxes_2d[detection]
    sizes = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b)]
    return np.where((sizes > 0).all(1), sizes.prod(1), 0), *areas


def _iou_2d(labels: Objects, detections: Objects, label: np.ndarray, detection: np.ndarray) -> np.ndarray:
    shared, first, second = _shared_2d(labels, detections, label, detection)
    both = first + second - shared
    return shared / np.where(both > 0, both, 1)


def _iou(metric: str) -> Overlap:
    def overlap(labels: Objects, detections: Objects, label: np.ndarray, detection: np.ndarray) -> np.ndarray:
        a, b = labels.boxes[label], detections.boxes[detection]
        reach = np.hypot(a[:, 3], a[:, 4]) + np.hypot(b[:, 3], b[:, 4])
        near = 2 * np.hypot(a[:, 0] - b[:, 0], a[:, 1] - b[:, 1]) <= reach
        values = np.zeros(len(label))
        first, second = (torch.from_numpy(np.ascontiguousarray(boxes[near])) for boxes in (a, b))
        values[near] = paired_box_iou(first, second, mode="3d" if metric == "3d" else "bev").numpy()
        return values

    return overlap
