"""`vision3d edit train-vae`: train the VAE of planes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.edit.diffusion_config import VaeTrainConfig
from vision3d.training.options import GROWS, RESUMABLE

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditTrainVaeOptions(RunOptions):
    """Train the VAE of the color channels of planes, whose latents a diffusion model edits."""

    settings: Settings[VaeTrainConfig] = dataclasses.field(default_factory=VaeTrainConfig)


def _train(options: EditTrainVaeOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.edit import train_vae

    return train_vae(options.settings, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    error = ""
    if "psnr" in results:
        error = f", {results['latent_psnr']:.1f} dB of {results['psnr']:.1f} dB on held-out objects"
    return f"{results['steps']} steps, {results['parameters']:,} parameters{error}\nnow open {out / 'report.html'}"


run = stage_verb("edit train-vae", EditTrainVaeOptions, _train, stage="edit", resumable=RESUMABLE, grows=GROWS, text_of=_text)
"""Run the command."""
