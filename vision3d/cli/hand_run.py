"""`vision3d hand run`: the hands in images and videos."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.app import UsageError
from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.hand.run_config import HandConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandOptions(RunOptions):
    """Find the hands in images: 21 joints in 2D and 3D, a mesh of 778 vertices, left or right, in the camera's space."""

    path: Annotated[Path | None, tyro.conf.Positional] = None
    """An image, a folder of images, or a video."""
    webcam: int | None = None
    """Instead of PATH: number of a webcam, the first is 0; Ctrl-C ends it."""
    boxes: Path | None = None
    """Boxes of the hands instead of the finder, as .json: {"NAME": [{"box": [x, y, w, h], "side": "right"}]}."""
    settings: Settings[HandConfig] = dataclasses.field(default_factory=HandConfig)


def _hand(options: HandOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    if (options.path is None) == (options.webcam is None):
        raise UsageError("want either PATH or --webcam 0 (vision3d hand run --help lists the options)")
    from vision3d.stages.hand import hand

    return hand(
        options.settings,
        options.path,
        boxes=options.boxes,
        webcam=options.webcam,
        run_folder=run_folder,
        progress=progress,
    ).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    images, hands = results["images"], results["hands"]
    sides = f"({results['right']} right, {results['left']} left)"
    seen = f"{hands} hand{'s' if hands != 1 else ''} {sides} in {images} image{'s' if images != 1 else ''}"
    if not hands:
        seen = f"no hand found in {images} image{'s' if images != 1 else ''}"
    speed = f", {results['fps']} frames/s without decoding and drawing" if "fps" in results else ""
    return f"{seen}{speed}\nintrinsics {results['intrinsics']}\nnow open {out / 'report.html'}"


run = stage_verb("hand run", HandOptions, _hand, stage="hand_run", text_of=_text)
"""Run the command."""
