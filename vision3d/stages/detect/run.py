"""Detection in sweeps: files in, boxes and images out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision3d.core.atomic import make_folder
from vision3d.core.device import resolve_device
from vision3d.core.errors import ConfigError, InputError, MissingFileError, nearest_names
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.io.images import read_image, write_image
from vision3d.io.kitti import read_calibration, read_projection, write_labels
from vision3d.io.sweep_files import SUFFIXES, read_sweep
from vision3d.io.video import VideoWriter
from vision3d.scene import Boxes, PointCloud
from vision3d.stage import stage
from vision3d.stages.detect.config import DetectConfig
from vision3d.stages.detect.data.sweeps import rows_of
from vision3d.stages.detect.images import from_above, on_image
from vision3d.stages.detect.network.files import Detector, load_detector, load_operator
from vision3d.stages.detect.sectors import detect_boxes

_MAX_IMAGES = 50
"""Sweeps with images of their own; longer sequences have the video."""


@dataclass(frozen=True)
class Found:
    """The boxes of a sweep."""

    name: str
    boxes: Boxes
    seconds: float
    """Wall time of the detection, without files and images."""


@dataclass(frozen=True)
class DetectResult:
    """Result of a detection."""

    sweeps: tuple[Found, ...]
    summary: dict[str, Any]
    run_folder: Path | None = None

    @property
    def boxes(self) -> Boxes:
        """The boxes of the first sweep."""
        return self.sweeps[0].boxes


@stage("detect run", {"inputs": "path"})
def detect(
    config: DetectConfig,
    inputs: PointCloud | Path | str,
    *,
    detector: Detector | None = None,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> DetectResult:
    """Find the objects in a sweep, or in every sweep of a folder.

    Args:
        config: Options.
        inputs: A sweep (.bin, .npy, .pcd, .ply), a folder of sweeps, a folder in KITTI's layout, or points: x forward, z up.
        detector: The detector; None loads `config.weights`.
        run_folder: Receives boxes/NAME.json for every sweep, labels/NAME.txt where there is a calibration, images and, for
            several sweeps, a video. None: nothing is written.
        progress: Progress callback, called for every sweep.

    Raises:
        InputError: A file cannot be read, or no sweep is found.
        ConfigError: A class is unknown to the weights, or they have another operator.

    Example:
        >>> from vision3d import DetectConfig, detect
        >>> detect(DetectConfig(), "000008.bin").boxes
    """
    device = resolve_device(config.device)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    sweeps = [inputs] if isinstance(inputs, PointCloud) else find_sweeps(inputs)
    if detector is None:
        detector = load_operator(config.weights, config.operator) if config.operator else load_detector(config.weights)
    detector = detector.to(device)
    kept = _kept_labels(config, detector)
    path = None if run_folder is None else run_folder.path
    found = []
    with Progress(len(sweeps), "detect", progress) as bar, _Outputs(path, config, len(sweeps)) as outputs:
        for number, sweep in enumerate(sweeps, 1):
            cloud = sweep if isinstance(sweep, PointCloud) else read_sweep(sweep, config.columns)
            if not len(cloud):
                raise InputError("points: got 0 points, want at least one")
            started = time.perf_counter()
            boxes = detect_boxes(detector, rows_of(cloud), lowest=config.score, sensor_height=config.sensor_height)
            boxes = boxes[torch.isin(boxes.labels, kept)] if boxes.labels is not None else boxes
            name = "sweep" if isinstance(sweep, PointCloud) else sweep.stem
            found.append(Found(name, boxes, time.perf_counter() - started))
            outputs.add(found[-1], cloud, sweep if isinstance(sweep, Path) else None)
            bar.update(number, boxes=len(boxes))
    counts = {
        name: sum(int((item.boxes.labels == i).sum()) for item in found) for i, name in enumerate(detector.config.classes)
    }
    seconds = sorted(item.seconds for item in found)
    summary = {
        "sweeps": len(found),
        "boxes": sum(len(item.boxes) for item in found),
        "by_class": counts,
        "median_s": round(seconds[len(seconds) // 2], 3),
        "device": str(device),
    }
    return DetectResult(tuple(found), summary, path)


def find_sweeps(path: Path | str) -> list[Path]:
    """The sweeps of a file, a folder, or a folder in KITTI's layout, by name.

    Raises:
        MissingFileError: The path does not exist.
        InputError: The folder has no sweeps.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MissingFileError(path, f"a sweep ({', '.join(SUFFIXES)}) or a folder of sweeps")
    places = [path / "training" / "velodyne", path / "testing" / "velodyne", path / "velodyne", path]
    for place in places:
        found = sorted(file for file in place.glob("*") if file.suffix.lower() in SUFFIXES) if place.is_dir() else []
        if found:
            return found
    raise InputError(f"{path}: has no sweeps ({', '.join(SUFFIXES)}), also not in velodyne/")


class _Outputs:
    """Files of a run: boxes, labels, images and the video."""

    def __init__(self, path: Path | None, config: DetectConfig, count: int) -> None:
        self.path, self.config, self.count = path, config, count
        self._video: VideoWriter | None = None

    def __enter__(self) -> "_Outputs":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._video is not None:
            self._video.__exit__(*error)

    def add(self, found: Found, cloud: PointCloud, source: Path | None) -> None:
        """Write the files of a sweep."""
        if self.path is None:
            return
        make_folder(self.path / "boxes")
        found.boxes.save(self.path / "boxes" / f"{found.name}.json")
        calibration = None if source is None else _beside(source, "calib", (".txt",))
        if calibration is not None:
            write_labels(self.path / "labels" / f"{found.name}.txt", found.boxes, read_calibration(calibration))
        if not self.config.images:
            return
        words = ", ".join(f"{int((found.boxes.labels == i).sum())} {name}" for i, name in enumerate(found.boxes.classes))
        above = from_above(cloud.points, found.boxes, reach=self.config.reach, title=f"{found.name}: {words}")
        if self.count > 1:
            if self._video is None:
                self._video = VideoWriter(self.path / "video.mp4", fps=self.config.fps).__enter__()
            self._video.append(above)
        if self.count <= _MAX_IMAGES:
            write_image(self.path / "images" / f"{found.name}_above.png", above)
            photo = None if source is None else _beside(source, "image_2", (".png", ".jpg"))
            if calibration is not None and photo is not None:
                matrix = read_projection(calibration) @ read_calibration(calibration)
                write_image(self.path / "images" / f"{found.name}_camera.png", on_image(read_image(photo), found.boxes, matrix))


def _beside(sweep: Path, folder: str, suffixes: tuple[str, ...]) -> Path | None:
    """A file of the same frame in a folder of KITTI's layout."""
    if sweep.parent.name != "velodyne":
        return None
    files = (sweep.parent.parent / folder / f"{sweep.stem}{suffix}" for suffix in suffixes)
    return next((file for file in files if file.is_file()), None)


def _kept_labels(config: DetectConfig, detector: Detector) -> Tensor:
    classes = detector.config.classes
    for name in config.classes:
        if name not in classes:
            raise ConfigError("classes", f"got {name!r}; {nearest_names(name, classes)}")
    return torch.tensor([i for i, name in enumerate(classes) if not config.classes or name in config.classes])
