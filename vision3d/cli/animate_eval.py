"""`vision3d animate eval`: compare videos of moving objects with the ground truth."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.animate.evaluation.config import EvalConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalClipsOptions(RunOptions):
    """Measure rendered videos of moving objects against the true ones by the protocol of Consistent4D. With --resume, views
    that were measured before are skipped."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Images as {gt,pred}/OBJECT/eval_VIEW/NUMBER.png, with or without alpha."""
    settings: Settings[EvalConfig] = dataclasses.field(default_factory=EvalConfig)


def _eval(options: EvalClipsOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.animate import evaluate_clips

    return evaluate_clips(options.settings, options.folder, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    from vision3d.stages.animate.evaluation.run import METRICS

    shown = [name for name in METRICS if any(row[name] is not None for row in results["objects"])]
    width = max(len("all objects"), *(len(row["object"]) for row in results["objects"]))
    lines = [" " * width + "".join(f"{name:>10}" for name in shown)]
    for row in (*results["objects"], {"object": "all objects", **results}):
        metrics = (f"{row[name]:10.4f}" if row.get(name) is not None else f"{'-':>10}" for name in shown)
        lines.append(f"{row['object']:{width}}" + "".join(metrics))
    lines += ["", *results["not_computed"]]
    if results["missing"]:
        lines.append(f"skipped, missing in gt or pred: {len(results['missing'])}, listed in {out / 'eval.json'}")
    return "\n".join([*lines, f"now open {out / 'report.html'}"])


run = stage_verb("animate eval", EvalClipsOptions, _eval, stage="animate", text_of=_text)
