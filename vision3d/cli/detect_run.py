"""`vision3d detect run`: the objects in sweeps."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.detect.config import DetectConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectOptions(RunOptions):
    """Find the objects in LiDAR sweeps: boxes as .json, KITTI labels where there is a calibration, and images."""

    path: Annotated[Path, tyro.conf.Positional]
    """A sweep (.bin, .npy, .pcd, .ply), a folder of sweeps, or a folder in KITTI's layout; x forward, z up."""
    settings: Settings[DetectConfig] = dataclasses.field(default_factory=DetectConfig)


def _detect(options: DetectOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.detect import detect

    return detect(options.settings, options.path, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    found = ", ".join(f"{count} {name}" for name, count in results["by_class"].items())
    return f"{results['sweeps']} sweeps: {found} ({results['median_s']:.2f} s per sweep)\nnow open {out / 'report.html'}"


run = stage_verb("detect run", DetectOptions, _detect, stage="detect_run", text_of=_text)
