"""Evaluation of a detector by the protocol of KITTI."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.device import resolve_device
from vision3d.core.plain import to_json
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.geometry.rotated_boxes import box_iou
from vision3d.io.images import write_image
from vision3d.io.kitti import DONT_CARE
from vision3d.scene.boxes import Boxes
from vision3d.stage import stage
from vision3d.stages.detect.camera import Camera, observed
from vision3d.stages.detect.config import EvalConfig, StreetsConfig
from vision3d.stages.detect.data.sources import KittiFolder, Streets, is_generated
from vision3d.stages.detect.data.sweeps import EvalFrame
from vision3d.stages.detect.evaluation import Evaluation, FrameObjects, evaluate
from vision3d.stages.detect.images import from_above
from vision3d.stages.detect.network.files import Detector, load_detector
from vision3d.stages.detect.sectors import detect_boxes

_LOWEST = 0.05
"""Scores below this hardly change an average precision."""
_TALL = 25
"""Height in the image from which a missed label counts as a mistake [px]."""


class EvalSource(Protocol):
    """Frames to evaluate on."""

    def __len__(self) -> int: ...

    def eval_frame(self, index: int) -> EvalFrame:
        """One of the frames."""
        ...


@dataclass(frozen=True)
class EvalResult:
    """Result of an evaluation."""

    evaluation: Evaluation
    summary: dict[str, Any]
    run_folder: Path | None = None


@stage("detect eval", {"data": "data"})
def evaluate_detector(
    config: EvalConfig,
    data: EvalSource | Path | str,
    *,
    detector: Detector | None = None,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> EvalResult:
    """Evaluate a detector on labelled sweeps.

    Args:
        config: Options.
        data: A folder in KITTI's layout, "synth" for generated streets of validation, or a source of frames.
        detector: The detector; None loads `config.weights`.
        run_folder: Receives the table as evaluation.txt and .json, and images of the frames with the most mistakes.
        progress: Progress callback, called for every frame.

    Raises:
        InputError: The data are incomplete or have unknown classes.
    """
    device = resolve_device(config.device)
    detector = (load_detector(config.weights) if detector is None else detector).to(device)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    path = None if run_folder is None else run_folder.path
    source = eval_source(data, config, detector.config.classes) if isinstance(data, Path | str) else data
    evaluation = evaluate_to(path, detector, source, config, progress)
    summary = {"frames": len(source), **mean_precision(evaluation), "device": str(device)}
    return EvalResult(evaluation, {**summary, "table": evaluation.records()}, path)


def evaluate_to(
    path: Path | None, detector: Detector, source: EvalSource, config: EvalConfig, progress: ProgressCallback | None = None
) -> Evaluation:
    """Evaluate, and write the table as evaluation.txt and .json and images of the frames with the most mistakes.

    Args:
        path: Folder for the files; None: nothing is written.
        detector: In evaluation mode.
        source: The frames.
        config: Number of images, and the score from which a box counts as a mistake.
        progress: Progress callback, called for every frame.
    """
    mistakes: list[tuple[int, int]] = []
    evaluation = average_precision(
        detector, source, lambda index, frame, found: mistakes.append((_mistakes(frame, found, config.score), index)), progress
    )
    if path is None:
        return evaluation
    with atomic_write(path / "evaluation.txt") as temporary:
        temporary.write_text(evaluation.table() + "\n", "utf-8")
    with atomic_write(path / "evaluation.json") as temporary:
        temporary.write_text(to_json(evaluation.records(), indent=2) + "\n", "utf-8")
    for rank, (_, index) in enumerate(sorted(mistakes, reverse=True)[: config.worst]):
        frame = source.eval_frame(index)
        boxes = detect_in_view(detector, frame, config.score)
        image = from_above(frame.points[:, :3], boxes, truth=frame.labels.boxes, title=frame.name)
        write_image(path / "worst" / f"{rank:02}_{frame.name}.png", image)
    return evaluation


def average_precision(
    detector: Detector,
    source: EvalSource,
    seen: Callable[[int, EvalFrame, Boxes], None] | None = None,
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Detect in all frames and evaluate.

    Args:
        detector: In evaluation mode.
        source: The frames.
        seen: Called with the index, the frame and its boxes.
        progress: Progress callback, called for every frame.
    """
    labels, detections = [], []
    with Progress(len(source), "evaluate", progress) as bar:
        for index in range(len(source)):
            frame = source.eval_frame(index)
            found = detect_in_view(detector, frame)
            labels.append(label_objects(frame))
            detections.append(found_objects(frame, found))
            if seen is not None:
                seen(index, frame, found)
            bar.update(index + 1)
    return evaluate(labels, detections, classes=detector.config.classes)


def mean_precision(evaluation: Evaluation) -> dict[str, float]:
    """AP R40 of the volumes at moderate difficulty, by class, and its mean; without interpolation for few labels."""
    rows = [row for row in evaluation.rows if row.metric == "3d" and row.difficulty == "moderate" and row.valid]
    values = {row.name: row.r40 if row.is_reliable else row.exact for row in rows}
    return {**{f"ap_{name}": value for name, value in values.items()}, "map": float(np.mean(list(values.values()) or [0.0]))}


def eval_source(data: Path | str, config: EvalConfig, classes: Sequence[str]) -> EvalSource:
    """The frames of a path, or generated ones."""
    if is_generated(data):
        return Streets(StreetsConfig(config.sensors, config.frames or 200), tuple(classes), config.seed, "val")
    folder = KittiFolder.open(data, tuple(classes), config.split or None)
    return replace(folder, frames=folder.frames[: config.frames or None])


def detect_in_view(detector: Detector, frame: EvalFrame, lowest: float = _LOWEST) -> Boxes:
    """The boxes of a frame from the points that its camera sees."""
    return detect_boxes(detector, frame.points[in_view(frame.camera, frame.points)], lowest=lowest)


def in_view(camera: Camera, points: Tensor) -> Tensor:
    """Which points the camera sees."""
    pixels = project(camera, points[:, :3].double())
    inside = (pixels[:, 2] > 0) & (pixels[:, :2] >= 0).all(1)
    return inside & (pixels[:, 0] < camera.size[0]) & (pixels[:, 1] < camera.size[1])


def label_objects(frame: EvalFrame) -> FrameObjects:
    """The labels of a frame for the evaluation."""
    labels, count = frame.labels, len(frame.labels.dont_care)
    blank = np.zeros(count)
    return FrameObjects(
        [*labels.boxes.names, *[DONT_CARE] * count],
        np.concatenate([_upright(frame.camera, labels.boxes), np.zeros((count, 7))]),
        torch.cat([labels.boxes_2d, labels.dont_care]),
        np.concatenate([labels.truncation, blank]),
        np.concatenate([labels.occlusion, blank]),
        np.concatenate([labels.alpha, blank]),
    )


def found_objects(frame: EvalFrame, found: Boxes) -> FrameObjects:
    """Detected boxes of a frame for the evaluation."""
    boxes_2d, _, alphas = observed(found.boxes.double().numpy(), frame.camera)
    assert found.scores is not None
    return FrameObjects(found.names, _upright(frame.camera, found), boxes_2d, None, None, alphas, found.scores.numpy())


def project(camera: Camera, xyz: Tensor) -> Tensor:
    """Pixels and depth of positions."""
    matrix = torch.from_numpy(camera.P2 @ camera.to_camera)
    pixels = xyz @ matrix[:, :3].T + matrix[:, 3]
    return torch.cat([pixels[:, :2] / pixels[:, 2:].clamp(min=1e-6), pixels[:, 2:]], 1)


def _upright(camera: Camera, boxes: Boxes) -> np.ndarray:
    """Boxes in the frame of the camera, with its axes named as those of the LiDAR: what KITTI's program compares."""
    values = boxes.boxes.double().numpy()
    centers = values[:, :3] @ camera.to_camera[:3, :3].T + camera.to_camera[:3, 3]
    return np.concatenate([centers[:, 2:], -centers[:, :2], values[:, 3:]], 1)


def _mistakes(frame: EvalFrame, found: Boxes, score: float) -> int:
    """Confident boxes without a label, and visible labels without a box, to rank frames."""
    assert found.scores is not None
    sure = found.boxes[found.scores >= score].double()
    labels = frame.labels
    overlap = box_iou(sure, labels.boxes.boxes.double())
    visible = (labels.occlusion <= 1) & (labels.boxes_2d[:, 3] - labels.boxes_2d[:, 1] > _TALL)
    missed = int((visible & (overlap.amax(0) < 0.25)).sum()) if len(sure) else int(visible.sum())
    return missed + (int((overlap.amax(1) < 0.1).sum()) if overlap.numel() else len(sure))
