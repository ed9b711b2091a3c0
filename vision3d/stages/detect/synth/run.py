"""Write a folder of synthetic frames in the layout of KITTI's object set."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import ConfigError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.io.kitti import KittiLabels, write_calibration, write_labels
from vision3d.scene.points import PointCloud
from vision3d.stage import stage
from vision3d.stages.detect.synth.config import SynthConfig
from vision3d.stages.detect.synth.frames import Frame, frame
from vision3d.stages.detect.synth.models import load_models

_FEW = 32  # frames of a process that are worth its start: it makes all shapes anew
_QUEUED = 4096  # frames that wait for a process


@dataclass(frozen=True, eq=False)
class SynthResult:
    """A folder of frames."""

    folder: Path
    """Contains training/velodyne, calib and label_2, and ImageSets."""
    summary: dict[str, Any]
    """Plain numbers."""


@stage("detect synth", {}, resumable=("workers",), grows=("frames",))
def synthesize(
    config: SynthConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> SynthResult:
    """Write synthetic frames as a data set in the layout of KITTI, which any detector reads.

    Args:
        config: Options.
        run_folder: Receives training/{velodyne,calib,label_2}, and ImageSets/{train,val}.txt.
        progress: Progress callback, called for every frame.

    Raises:
        ConfigError: No folder is given, or the sensor has invalid values.
        MissingDependencyError: embreex is not installed.

    Example:
        >>> from vision3d.stages.detect.synth import SynthConfig, synthesize
        >>> synthesize(SynthConfig(frames=100, val_frames=20), run_folder="runs/streets")
    """
    if not isinstance(run_folder, RunFolder):
        raise ConfigError("run_folder", "got None, want a folder for the frames")
    root = run_folder.path
    total = config.frames + config.val_frames
    splits = [config.split] * config.frames + ["val"] * config.val_frames
    options = {"train": config, "val": replace(config, split="val")}
    jobs, of_split = [], Counter[str]()
    for number, split in enumerate(splits):
        name = f"{number:06d}"
        if not (root / "training" / "label_2" / f"{name}.txt").is_file():
            jobs.append(_Job(root / "training", name, options[split], of_split[split]))
        of_split[split] += 1
    counts, points, cpu_s = Counter[str](), 0, 0.0
    with Progress(total, "synth", progress) as bar:
        bar.update(total - len(jobs))
        for number, (names, num_points, seconds) in enumerate(_written(jobs, config.workers), total - len(jobs) + 1):
            counts.update(names)
            points += num_points
            cpu_s += seconds
            bar.update(number)
    for split in ("train", "val"):
        names = [f"{number:06d}\n" for number, own in enumerate(splits) if own == split]
        with atomic_write(root / "ImageSets" / f"{split}.txt") as temporary:
            temporary.write_text("".join(names), encoding="utf-8")
    if config.models is not None:
        used = {(one.archive, one.name, one.creator) for split in set(splits) for one in load_models(config.models, split)[1]}
        with atomic_write(root / "credits.txt") as temporary:
            temporary.write_text(_CREDITS + "".join(f"{a}: {n}, by {c}\n" for a, n, c in sorted(used)), encoding="utf-8")
    summary = {
        "frames": total,
        "written": len(jobs),
        "points_per_frame": round(points / max(len(jobs), 1)),
        "objects": dict(sorted(counts.items())),
        "cpu_s": round(cpu_s, 2),
    }
    return SynthResult(root, summary)


@dataclass(frozen=True)
class _Job:
    """A frame to be written."""

    folder: Path
    name: str
    config: SynthConfig
    index: int


def _written(jobs: list[_Job], workers: int | None) -> Iterator[tuple[tuple[str, ...], int, float]]:
    """Writes frames; classes, number of points and CPU-seconds of each."""
    if workers is None:
        workers = min(torch.get_num_threads(), len(jobs) // _FEW)
    if workers < 2:
        yield from map(_write, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for start in range(0, len(jobs), _QUEUED):
            yield from pool.map(_write, jobs[start : start + _QUEUED])


def _write(job: _Job) -> tuple[tuple[str, ...], int, float]:
    started = time.process_time()
    made = frame(job.config.seed, job.config, job.index)
    write_frame(job.folder, job.name, made, min_points=job.config.min_points)
    return made.names, len(made.points), time.process_time() - started


_CREDITS = """Models of the Debian package sweethome3d-furniture that these frames were cast from, with their creators.
BlendSwap-CC-0: CC0 1.0. BlendSwap-CC-BY, Scopia: CC BY 3.0. KatorLegaz, Reallusion: CC BY 3.0 US.

"""


def write_frame(folder: Path, name: str, made: Frame, *, min_points: int = 5) -> None:
    """Write one frame: velodyne/NAME.bin, calib/NAME.txt and, last, label_2/NAME.txt.

    As in KITTI only objects in the image are labelled; those with fewer than `min_points` points become DontCare regions.

    Args:
        folder: `training` of the data set; created if missing.
        name: Six digits.
        made: The frame.
        min_points: Minimum number of points of a labelled object.
    """
    PointCloud(made.points[:, :3].contiguous(), intensity=made.points[:, 3].contiguous()).save(
        folder / "velodyne" / f"{name}.bin"
    )
    calibration = torch.from_numpy(made.camera.to_camera)
    write_calibration(folder / "calib" / f"{name}.txt", calibration, torch.from_numpy(made.camera.P2))
    write_labels(folder / "label_2" / f"{name}.txt", kitti_labels(made, min_points=min_points), calibration)


def kitti_labels(made: Frame, *, min_points: int = 5) -> KittiLabels:
    """The labels of a frame as KITTI has them: only objects in the image, those with few points as DontCare."""
    is_seen = made.truncation < 1
    is_labelled = is_seen & (made.num_points >= min_points)
    own = made.labels
    return KittiLabels(
        own.boxes[is_labelled],
        truncation=own.truncation[is_labelled],
        occlusion=own.occlusion[is_labelled],
        alpha=own.alpha[is_labelled],
        boxes_2d=own.boxes_2d[is_labelled],
        dont_care=own.boxes_2d[is_seen & ~is_labelled],
    )
