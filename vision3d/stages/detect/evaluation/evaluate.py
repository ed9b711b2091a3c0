"""The evaluation of a set of frames."""

from collections.abc import Mapping, Sequence

import numpy as np

from vision3d.core.errors import InputError
from vision3d.stages.detect.evaluation.average_precision import averages
from vision3d.stages.detect.evaluation.difficulties import DIFFICULTIES, MIN_OVERLAPS, NEIGHBORS, Difficulty
from vision3d.stages.detect.evaluation.frames import FrameObjects, Objects, gather
from vision3d.stages.detect.evaluation.matching import COUNTS, IGNORED, OTHER, Case
from vision3d.stages.detect.evaluation.overlaps import Pairs, inside_regions, overlapping
from vision3d.stages.detect.evaluation.results import Evaluation, Row


def evaluate(
    labels: Sequence[FrameObjects],
    detections: Sequence[FrameObjects],
    *,
    classes: Sequence[str] = ("Car", "Pedestrian", "Cyclist"),
    min_overlaps: Mapping[str, float] | None = None,
    difficulties: Sequence[Difficulty] = DIFFICULTIES,
) -> Evaluation:
    """Average precision as the KITTI benchmark computes it, and without interpolation for small sets.

    A detection is a true positive if its IoU with a label of its class is larger than `min_overlap`, in the image ("2d"), seen
    from above ("bev") or of the volumes ("3d"). Ignored are labels that are too small, occluded or truncated for the
    difficulty, labels of similar classes (a van for a car, a sitting person for a pedestrian), and detections that are too
    small: the 2D box decides that for all metrics. In "2d" alone, false positives in DontCare regions are ignored, too. "aos"
    weights the precision of "2d" with the orientation similarity.

    Args:
        labels: One per frame.
        detections: One per frame, in the same order, with scores.
        classes: Names to evaluate.
        min_overlaps: By class; by default 0.7 for Car, Van and Truck, 0.5 for Pedestrian, Person_sitting and Cyclist.

    Raises:
        InputError: The numbers of frames differ, values are invalid, or a class has no `min_overlaps`.
        ShapeError: An array does not have a row per object.
    """
    if len(labels) != len(detections):
        raise InputError(f"detections: got {len(detections)} frames, want {len(labels)}, as many as labels")
    limits = {name: _min_overlap(name, min_overlaps or {}) for name in classes}
    truth, found = gather("labels", labels, have_scores=False), gather("detections", detections, have_scores=True)
    in_image = truth.boxes_2d is not None and found.boxes_2d is not None
    metrics = ("2d", "bev", "3d") if in_image else ("bev", "3d")
    pairs = overlapping(truth, found, metrics)
    covered = inside_regions(truth, found) if in_image else np.zeros(len(found))
    have_alphas = truth.alphas is not None and found.alphas is not None
    rows: dict[tuple[str, str, str], Row] = {}
    for name in classes:
        for difficulty in difficulties:
            states = _label_state(truth, name, difficulty, in_image), _detection_state(found, name, difficulty, in_image)
            for metric in metrics:
                case = _case(pairs[metric], truth, found, states, limits[name], covered if metric == "2d" else None)
                precision, similarity = averages(case)
                for key, values in ((metric, precision), ("aos", similarity)):
                    if key == metric or (metric == "2d" and have_alphas):
                        rows[name, key, difficulty.name] = Row(name, key, difficulty.name, limits[name], case.valid, *values)
    order = [(name, metric, d.name) for name in classes for metric in (*metrics, "aos") for d in difficulties]
    return Evaluation(tuple(rows[key] for key in order if key in rows))


def _min_overlap(name: str, given: Mapping[str, float]) -> float:
    found = {key.lower(): value for key, value in {**MIN_OVERLAPS, **given}.items()}
    if name.lower() not in found:
        raise InputError(f"min_overlaps: got none for the class {name}, want a number from 0 to 1")
    if not 0 <= found[name.lower()] < 1:
        raise InputError(f"min_overlaps: got {found[name.lower()]} for {name}, want at least 0 and less than 1")
    return found[name.lower()]


def _label_state(truth: Objects, name: str, difficulty: Difficulty, in_image: bool) -> np.ndarray:
    is_hard = (truth.occlusion > difficulty.max_occlusion) | (truth.truncation > difficulty.max_truncation)
    if in_image and truth.boxes_2d is not None:
        is_hard |= truth.boxes_2d[:, 3] - truth.boxes_2d[:, 1] <= difficulty.min_height
    state = np.where(truth.names == name.lower(), np.where(is_hard, IGNORED, COUNTS), OTHER)
    return np.where(np.isin(truth.names, NEIGHBORS.get(name.lower(), ())), IGNORED, state)


def _detection_state(found: Objects, name: str, difficulty: Difficulty, in_image: bool) -> np.ndarray:
    state = np.where(found.names == name.lower(), COUNTS, OTHER)
    if not in_image or found.boxes_2d is None:
        return state
    # KITTI's program looks at the height first: small detections of all classes are ignored, and may be assigned.
    return np.where(np.abs(found.boxes_2d[:, 3] - found.boxes_2d[:, 1]) < difficulty.min_height, IGNORED, state)


def _case(
    pairs: Pairs,
    truth: Objects,
    found: Objects,
    states: tuple[np.ndarray, np.ndarray],
    min_overlap: float,
    covered: np.ndarray | None,
) -> Case:
    kept = (pairs.overlaps > min_overlap) & (states[0][pairs.labels] != OTHER) & (states[1][pairs.detections] != OTHER)
    pairs = Pairs(*(part[kept] for part in pairs))
    similarity = np.zeros(len(pairs.labels))
    if truth.alphas is not None and found.alphas is not None:
        similarity = (1 + np.cos(truth.alphas[pairs.labels] - found.alphas[pairs.detections])) / 2
    excused = np.zeros(len(found), dtype=bool) if covered is None else covered > min_overlap
    return Case(pairs, *states, truth.frames, found.frames, found.scores, excused, similarity)
