"""`vision3d detect eval`: average precision of a detector."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.detect.config import EvalConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectEvalOptions(RunOptions):
    """Evaluate a detector on labelled sweeps by the protocol of KITTI: average precision in the image, from above, and of
    volumes, at 11 and 40 points, and without interpolation for small sets."""

    data: Annotated[Path, tyro.conf.Positional]
    """A folder in KITTI's layout, or `synth` for generated streets whose vehicles and layouts are not trained on."""
    settings: Settings[EvalConfig] = dataclasses.field(default_factory=EvalConfig)


def _eval(options: DetectEvalOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.detect import evaluate_detector

    return evaluate_detector(options.settings, options.data, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    return f"{(out / 'evaluation.txt').read_text('utf-8')}now open {out / 'report.html'}"


run = stage_verb("detect eval", DetectEvalOptions, _eval, stage="detect_eval", text_of=_text)
