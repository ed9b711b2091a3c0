"""`vision3d edit synth`: pairs of an object and the same after an instruction."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.edit.run_config import EditSynthConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditSynthOptions(RunOptions):
    """Write pairs of an object and the same after an instruction: two .glb, the text, and an image (in --out)."""

    settings: Settings[EditSynthConfig] = dataclasses.field(default_factory=EditSynthConfig)


def _synth(options: EditSynthOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.edit import synthesize_edits

    return synthesize_edits(options.settings, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    return f"{results['pairs']} pairs in {out}, {results['written']} of them new ({results['cpu_s']} CPU-seconds)"


run = stage_verb("edit synth", EditSynthOptions, _synth, stage="edit_synth", grows={"pairs"}, text_of=_text)
"""Run the command."""
