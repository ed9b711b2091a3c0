"""`vision3d edit train-planes`: train encoder and decoder of planes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.edit.config import PlanesTrainConfig
from vision3d.training.options import GROWS, RESUMABLE

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditTrainPlanesOptions(RunOptions):
    """Train encoder and decoder of planes."""

    settings: Settings[PlanesTrainConfig] = dataclasses.field(default_factory=PlanesTrainConfig)


def _train(options: EditTrainPlanesOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.edit import train_planes

    return train_planes(options.settings, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    error = f", {results['psnr']:.1f} dB, IoU {results['iou']:.3f} on held-out objects" if "psnr" in results else ""
    return f"{results['steps']} steps, {results['parameters']:,} parameters{error}\nnow open {out / 'report.html'}"


run = stage_verb(
    "edit train-planes", EditTrainPlanesOptions, _train, stage="edit", resumable=RESUMABLE, grows=GROWS, text_of=_text
)
"""Run the command."""
