"""What a labelled data set holds, and what would make a training on it fail."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.core.errors import InputError, Vision3DError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.stages.detect.config import GridConfig
from vision3d.stages.detect.data.sources import KittiFolder, split_folder
from vision3d.stages.detect.data.sweeps import EvalFrame, inside
from vision3d.stages.detect.ground import ground_plane

_FEW, _EMPTY = 5, 0.3
_FLOATING = 0.5  # m between the bottom of boxes and the ground
_USUAL = {"Car": (3.9, 1.6, 1.56), "Van": (5.1, 1.9, 2.2), "Pedestrian": (0.8, 0.6, 1.73), "Cyclist": (1.76, 0.6, 1.73)}
_FACTOR = 1.6


@dataclass
class ClassFacts:
    """What the boxes of one class are like."""

    count: int = 0
    points: list[int] = field(default_factory=list)
    sizes: list[np.ndarray] = field(default_factory=list)
    above: list[float] = field(default_factory=list)
    """Height of the bottom above the ground [m]."""
    outside: int = 0
    """Centers outside the region of the network, in whatever direction."""


@dataclass(frozen=True)
class CheckResult:
    """Result of a check."""

    summary: dict[str, Any]
    problems: tuple[str, ...]
    """What to correct, one sentence each; empty if nothing is wrong."""


def check_data(
    data: Path | str,
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist"),
    *,
    grid: GridConfig | None = None,
    max_frames: int = 200,
    progress: ProgressCallback | None = None,
) -> CheckResult:
    """Look at a data set in KITTI's layout before training on it.

    Args:
        data: The folder.
        classes: Classes to train.
        grid: Region of the network; None: the default.
        max_frames: Frames to read, spread over the set.
        progress: Progress callback.

    Raises:
        InputError: The folder has no frames or labels, or a frame cannot be read.
    """
    grid = grid or GridConfig()
    folder = KittiFolder.open(data, classes)
    rows = np.unique(np.linspace(0, len(folder) - 1, min(len(folder), max_frames)).astype(int))
    facts: dict[str, ClassFacts] = defaultdict(ClassFacts)
    heights, counts, in_view, blank, errors = [], [], [], 0, []
    with Progress(len(rows), "check", progress) as bar:
        for number, row in enumerate(rows.tolist(), 1):
            try:
                frame = folder.eval_frame(row)
            except Vision3DError as error:
                errors.append(str(error))
                continue
            plane = ground_plane(frame.points[:, :3])
            heights.append(-plane[2])
            counts.append(len(frame.points))
            in_view.append(float((frame.points[:, 0] > 0).float().mean()))
            blank += int((frame.labels.boxes_2d.abs().sum(1) == 0).sum())
            _add(facts, frame, plane, grid)
            bar.update(number)
    if not counts:
        raise InputError(f"{folder.path}: no frame can be read; the first error: {errors[0]}")
    summary = {
        "frames": len(folder),
        "read": len(counts),
        "points_per_sweep": int(np.median(counts)),
        "share_in_front": round(float(np.mean(in_view)), 2),
        "sensor_height": round(float(np.median(heights)), 2),
        "splits": _splits(Path(data)),
        "classes": {name: _row(facts[name]) for name in sorted(facts)},
    }
    return CheckResult(summary, (*errors[:3], *_problems(facts, classes, blank, summary)))


def _add(facts: dict[str, ClassFacts], frame: EvalFrame, plane: tuple[float, float, float], grid: GridConfig) -> None:
    boxes = frame.labels.boxes
    counts = inside(frame.points[:, :3], boxes.boxes, 0.05).sum(1).tolist() if len(boxes) else []
    for box, name, points in zip(boxes.boxes.tolist(), boxes.names, counts):
        own = facts[name]
        own.count += 1
        own.points.append(points)
        own.sizes.append(np.array(box[3:6]))
        own.above.append(box[2] - box[5] / 2 - (plane[0] * box[0] + plane[1] * box[1] + plane[2]))
        own.outside += float(np.hypot(box[0], box[1])) > max(grid.high[0], abs(grid.low[0]))


def _row(facts: ClassFacts) -> dict[str, Any]:
    length, width, height = np.mean(facts.sizes, 0).round(2).tolist()
    return {
        "boxes": facts.count,
        "points_median": int(np.median(facts.points)),
        "few_points": round(float(np.mean(np.array(facts.points) < _FEW)), 3),
        "size": [length, width, height],
        "above_ground": round(float(np.median(facts.above)), 2),
        "out_of_range": round(facts.outside / facts.count, 3),
    }


def _problems(facts: dict[str, ClassFacts], classes: tuple[str, ...], blank: int, summary: dict[str, Any]) -> list[str]:
    found = []
    total = sum(own.count for own in facts.values())
    for name in classes:
        if name not in facts:
            found.append(f"{name}: no labels; the data set has {', '.join(sorted(facts)) or 'none'}")
    for name, own in facts.items():
        if name not in classes:
            continue
        row = _row(own)
        if row["few_points"] > _EMPTY:
            found.append(
                f"{name}: {100 * row['few_points']:.0f} % of the boxes have fewer than {_FEW} points inside: boxes and points "
                "may not be in the same frame (calibration, axes), or yaw and sizes are exchanged"
            )
        if abs(row["above_ground"]) > _FLOATING:
            where = "above" if row["above_ground"] > 0 else "below"
            found.append(
                f"{name}: boxes begin {abs(row['above_ground']):.2f} m {where} the ground: KITTI's labels give the bottom of a "
                "box, not its center, in the frame of the camera"
            )
        usual = _USUAL.get(name)
        if usual is not None:
            ratios = np.array(row["size"]) / usual
            if (ratios > _FACTOR).any() or (ratios < 1 / _FACTOR).any():
                found.append(
                    f"{name}: boxes are {' x '.join(f'{v:g}' for v in row['size'])} m on average, usual are "
                    f"{' x '.join(f'{v:g}' for v in usual)} m (length, width, height): KITTI's order is height width length"
                )
        if row["out_of_range"] > 0.5:
            found.append(f"{name}: {100 * row['out_of_range']:.0f} % of the boxes are out of range (--model.grid.high)")
    if total and blank == total:
        found.append("no label has a 2D box: KITTI's evaluation then ignores all of them and reports an AP of 0")
    if not 0.3 <= summary["sensor_height"] <= 5:
        found.append(f"the ground is {summary['sensor_height']:.2f} m below the sensor: want the third axis up, in meters")
    return found


def _splits(data: Path) -> dict[str, int]:
    folder = split_folder(data)
    files = [] if folder is None else sorted(folder.glob("*.txt"))
    return {file.stem: sum(bool(line.strip()) for line in file.read_text("utf-8").splitlines()) for file in files}
