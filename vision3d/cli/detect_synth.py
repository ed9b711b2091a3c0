"""`vision3d detect synth`: a folder of synthetic LiDAR frames."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.detect.synth.config import SynthConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthOptions(RunOptions):
    """Generate labelled LiDAR frames of synthetic streets, as a folder in the layout of KITTI (in --out)."""

    settings: Settings[SynthConfig] = dataclasses.field(default_factory=SynthConfig)


def _synth(options: SynthOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.detect.synth import synthesize

    return synthesize(options.settings, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    objects = ", ".join(f"{count} {name}" for name, count in results["objects"].items())
    lines = [f"{results['frames']} frames in {out}, {results['written']} of them new"]
    if results["written"]:
        lines.append(f"{results['points_per_frame']} points per frame; objects: {objects or 'none'}; {results['cpu_s']} CPU-s")
    return "\n".join(lines)


run = stage_verb("detect synth", SynthOptions, _synth, stage="detect", grows={"frames"}, text_of=_text)
"""Run the command."""
