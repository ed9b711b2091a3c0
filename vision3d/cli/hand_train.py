"""`vision3d hand train`: train a network of hands."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.hand.train_config import TrainConfig
from vision3d.training.options import GROWS, RESUMABLE

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandTrainOptions(RunOptions):
    """Train the network of hands on generated images."""

    settings: Settings[TrainConfig] = dataclasses.field(default_factory=TrainConfig)


def _train(options: HandTrainOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.hand import train_hand

    return train_hand(options.settings, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    error = f", PA-MPJPE {results['pa_mpjpe_mm']:.2f} mm on held-out images" if "pa_mpjpe_mm" in results else ""
    return f"{results['steps']} steps, {results['parameters']:,} parameters{error}\nnow open {out / 'report.html'}"


run = stage_verb(
    "hand train",
    HandTrainOptions,
    _train,
    stage="hand",
    resumable=RESUMABLE,
    grows=GROWS,
    text_of=_text,
    is_distributed=True,
)
"""Run the command."""
