"""`vision3d detect train`: train a detector."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.detect.config import GROWS, RESUMABLE, TrainConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """Train a detector on labelled sweeps, or on streets that are generated while it trains."""

    data: Annotated[Path, tyro.conf.Positional]
    """A folder in KITTI's layout, or `synth` for generated streets."""
    settings: Settings[TrainConfig] = dataclasses.field(default_factory=TrainConfig)


def _train(options: TrainOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.detect import train_detector

    return train_detector(options.settings, options.data, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    return f"{results['steps']} steps, {results['parameters']:,} parameters\nnow open {out / 'report.html'}"


run = stage_verb(
    "detect train",
    TrainOptions,
    _train,
    stage="detect",
    resumable=RESUMABLE,
    grows=GROWS,
    text_of=_text,
    is_distributed=True,
)
