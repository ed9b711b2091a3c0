"""`vision3d hand synth`: a folder of generated images of hands."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.hand.run_config import SynthConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandSynthOptions(RunOptions):
    """Generate images of right hands with joints, meshes, masks, depths and poses, in the layout of FreiHAND (in --out)."""

    settings: Settings[SynthConfig] = dataclasses.field(default_factory=SynthConfig)


def _synth(options: HandSynthOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.hand import synthesize_hands

    return synthesize_hands(options.settings, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    line = f"{results['images']} images in {out}, {results['written']} of them new"
    return line + (f" ({results['images_per_cpu_s']} per CPU-second, files included)" if results["written"] else "")


run = stage_verb("hand synth", HandSynthOptions, _synth, stage="hand_synth", grows={"images"}, text_of=_text)
"""Run the command."""
