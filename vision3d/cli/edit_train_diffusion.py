"""`vision3d edit train-diffusion`: train the diffusion model that edits planes by text."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.edit.diffusion_config import DiffusionTrainConfig
from vision3d.training.options import GROWS, RESUMABLE

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditTrainDiffusionOptions(RunOptions):
    """Train the diffusion model that edits latents of planes by text."""

    settings: Settings[DiffusionTrainConfig] = dataclasses.field(default_factory=DiffusionTrainConfig)


def _train(options: EditTrainDiffusionOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.edit import train_diffusion

    return train_diffusion(options.settings, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    error = f", accuracy {100 * results['accuracy']:.1f} % on held-out objects" if "accuracy" in results else ""
    return f"{results['steps']} steps, {results['parameters']:,} parameters{error}\nnow open {out / 'report.html'}"


run = stage_verb(
    "edit train-diffusion", EditTrainDiffusionOptions, _train, stage="edit", resumable=RESUMABLE, grows=GROWS, text_of=_text
)
"""Run the command."""
