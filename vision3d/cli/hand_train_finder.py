"""`vision3d hand train-finder`: train the finder of hands."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.hand.finder.config import FinderTrainConfig
from vision3d.training.options import GROWS, RESUMABLE

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandTrainFinderOptions(RunOptions):
    """Train the finder of hands on generated images."""

    settings: Settings[FinderTrainConfig] = dataclasses.field(default_factory=FinderTrainConfig)


def _train(options: HandTrainFinderOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.hand.finder import train_finder

    return train_finder(options.settings, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    error = f", {100 * results['found']:.1f} % of the hands of held-out images found" if "found" in results else ""
    return f"{results['steps']} steps, {results['parameters']:,} parameters{error}\nnow open {out / 'report.html'}"


run = stage_verb(
    "hand train-finder",
    HandTrainFinderOptions,
    _train,
    stage="hand",
    resumable=RESUMABLE,
    grows=GROWS,
    text_of=_text,
    is_distributed=True,
)
"""Run the command."""
