"""`vision3d edit eval`: accuracy and color errors of edits."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.edit.run_config import EditEvalConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditEvalOptions(RunOptions):
    """Evaluate edits by text on objects: accuracy of instructions, color errors, and what does without a network."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Meshes, or folders of them; default: generated objects, or those of --furniture."""
    settings: Settings[EditEvalConfig] = dataclasses.field(default_factory=EditEvalConfig)


def _eval(options: EditEvalOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.edit import evaluate_edits

    return evaluate_edits(options.settings, options.paths, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    return f"{(out / 'evaluation.txt').read_text('utf-8')}now open {out / 'report.html'}"


run = stage_verb("edit eval", EditEvalOptions, _eval, stage="edit_eval", text_of=_text)
"""Run the command."""
