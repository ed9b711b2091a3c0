"""`vision3d detect check`: what a labelled data set holds, and what would make a training fail."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from vision3d.cli.options import VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.progress import TerminalProgress


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectCheckOptions(VerbOptions):
    """Check labelled sweeps before a training: points per box, sizes, heights above the ground, splits. The exit code is 3 if
    something would make the training fail."""

    data: tyro.conf.Positional[Path]
    """A folder in KITTI's layout."""
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")
    """Classes to train."""
    frames: int = 200
    """Maximum number of frames to read."""


def run(arguments: Sequence[str]) -> int:
    """Check a data set and print what was found."""
    options = parse(DetectCheckOptions, arguments, "detect check")
    set_up_output(options)

    from vision3d.stages.detect.check import check_data

    with TerminalProgress(quiet=options.quiet) as progress:
        result = check_data(options.data, options.classes, max_frames=options.frames, progress=progress)
    print_summary(options, _text(result.summary, result.problems), {**result.summary, "problems": list(result.problems)})
    return 3 if result.problems else 0


def _text(summary: Mapping[str, Any], problems: Sequence[str]) -> str:
    splits = ", ".join(f"{name} {count}" for name, count in summary["splits"].items()) or "none (ImageSets)"
    lines = [
        f"{summary['frames']} frames ({summary['read']} read), {summary['points_per_sweep']:,} points per sweep, "
        f"{100 * summary['share_in_front']:.0f} % in front; sensor {summary['sensor_height']:.2f} m above the ground",
        f"splits: {splits}",
        f"{'class':<16}{'boxes':>7}{'points':>8}{'< 5':>7}{'length':>8}{'width':>7}{'height':>8}{'above ground':>14}",
    ]
    for name, row in summary["classes"].items():
        size = row["size"]
        lines.append(
            f"{name:<16}{row['boxes']:>7}{row['points_median']:>8}{100 * row['few_points']:>6.0f}%"
            f"{size[0]:>8.2f}{size[1]:>7.2f}{size[2]:>8.2f}{row['above_ground']:>14.2f}"
        )
    lines += [f"problem: {problem}" for problem in problems] or ["nothing would make a training fail"]
    return "\n".join(lines)
