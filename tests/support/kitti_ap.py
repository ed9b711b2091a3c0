"""Average precision of KITTI in loops over frames, labels, detections and thresholds, from the description of the benchmark."""

import math
from typing import Any

from tests.geometry.test_rotated_boxes import clipped_iou
from vision3d.stages.detect.evaluation import DIFFICULTIES, FrameObjects

SIMILAR = {"Car": "Van", "Pedestrian": "Person_sitting"}
OVERLAPS = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}


def slow_ap(labels: list[FrameObjects], detections: list[FrameObjects], name: str, metric: str) -> dict[str, tuple[float, ...]]:
    """(R11, R40, orientation R11, orientation R40, valid labels) by difficulty; percent."""
    frames = [_Frame(truth, found, name, metric) for truth, found in zip(labels, detections)]
    return {difficulty.name: _ap(frames, difficulty) for difficulty in DIFFICULTIES}


class _Frame:
    def __init__(self, truth: FrameObjects, found: FrameObjects, name: str, metric: str) -> None:
        self.truth, self.found, self.name, self.metric = truth, found, name, metric
        self.overlaps = [
            [self._overlap(i, j) for j in range(len(found.names))] if label != "DontCare" else []
            for i, label in enumerate(truth.names)
        ]

    def _overlap(self, i: int, j: int) -> float:
        if self.metric != "2d":
            return clipped_iou(list(self.truth.boxes[i]), list(self.found.boxes[j]), self.metric)
        a, b = self.truth.boxes_2d[i], self.found.boxes_2d[j]
        shared = _shared(a, b)
        return shared / (_area(a) + _area(b) - shared)

    def match(self, difficulty: Any, threshold: float | None) -> dict[str, Any]:
        """Without a threshold: each label takes the detection with the highest score. Else: that with the largest overlap."""
        truth, found = self.truth, self.found
        state_of_found = []
        for j in range(len(found.names)):
            height = abs(found.boxes_2d[j][3] - found.boxes_2d[j][1])
            other = "counts" if found.names[j] == self.name else "other"
            state_of_found.append("ignored" if height < difficulty.min_height else other)
        used: set[int] = set()
        result: dict[str, Any] = {"scores": [], "true": 0, "false": 0, "similarity": 0.0, "valid": 0}
        for i, label in enumerate(truth.names):
            if label not in (self.name, SIMILAR.get(self.name)):
                continue
            is_hard = (
                truth.occlusion[i] > difficulty.max_occlusion
                or truth.truncation[i] > difficulty.max_truncation
                or truth.boxes_2d[i][3] - truth.boxes_2d[i][1] <= difficulty.min_height
            )
            counts = label == self.name and not is_hard
            result["valid"] += counts
            options = [
                j for j in range(len(found.names))
                if state_of_found[j] != "other" and j not in used and self.overlaps[i][j] > OVERLAPS[self.name]
                and (threshold is None or found.scores[j] >= threshold)
            ]  # fmt: skip
            if not options:
                continue
            if threshold is None:
                best = max(options, key=lambda j: (found.scores[j], -j))
            else:
                good = [j for j in options if state_of_found[j] == "counts"]
                best = max(good, key=lambda j: (self.overlaps[i][j], -j)) if good else options[0]
            used.add(best)
            if counts and state_of_found[best] == "counts":
                result["scores"].append(found.scores[best])
                result["true"] += 1
                result["similarity"] += (1 + math.cos(truth.alphas[i] - found.alphas[best])) / 2
        for j in range(len(found.names)):
            if state_of_found[j] != "counts" or j in used or (threshold is not None and found.scores[j] < threshold):
                continue
            regions = [truth.boxes_2d[i] for i, label in enumerate(truth.names) if label == "DontCare"]
            own = found.boxes_2d[j]
            if self.metric == "2d" and any(_shared(own, region) / _area(own) > OVERLAPS[self.name] for region in regions):
                continue
            result["false"] += 1
        return result


def _ap(frames: list[_Frame], difficulty: Any) -> tuple[float, ...]:
    first = [frame.match(difficulty, None) for frame in frames]
    valid = sum(found["valid"] for found in first)
    scores = sorted((score for found in first for score in found["scores"]), reverse=True)
    thresholds: list[float] = []
    target = 0.0  # summed as in KITTI's program: where both recalls are equally near, the rounding decides
    for i, score in enumerate(scores):
        here, after = (i + 1) / valid, (i + 2) / valid
        if i == len(scores) - 1 or after - target >= target - here:
            thresholds.append(score)
            target += 1 / 40
    precision, orientation = [0.0] * 41, [0.0] * 41
    for k, threshold in enumerate(thresholds):
        found = [frame.match(difficulty, threshold) for frame in frames]
        total = sum(f["true"] + f["false"] for f in found)
        precision[k] = sum(f["true"] for f in found) / total
        orientation[k] = sum(f["similarity"] for f in found) / total
    curves = [[max(curve[k:]) for k in range(41)] for curve in (precision, orientation)]
    values = [100 * value for curve in curves for value in (sum(curve[::4]) / 11, sum(curve[1:]) / 40)]
    return (*values, valid)


def _area(box: Any) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _shared(a: Any, b: Any) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return float(width * height) if width > 0 and height > 0 else 0.0
