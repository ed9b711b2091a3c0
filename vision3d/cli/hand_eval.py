"""`vision3d hand eval`: errors of a network of hands."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.hand.run_config import EvalConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandEvalOptions(RunOptions):
    """Evaluate a network of hands by the protocol of FreiHAND: errors after alignment, F-scores, areas under PCK curves."""

    data: Annotated[Path, tyro.conf.Positional]
    """A folder in FreiHAND's layout, or `synth` for generated images that are not trained on."""
    settings: Settings[EvalConfig] = dataclasses.field(default_factory=EvalConfig)


def _eval(options: HandEvalOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.hand import evaluate_hands

    return evaluate_hands(options.settings, options.data, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    return f"{(out / 'evaluation.txt').read_text('utf-8')}now open {out / 'report.html'}"


run = stage_verb("hand eval", HandEvalOptions, _eval, stage="hand_eval", text_of=_text)
"""Run the command."""
