"""`vision3d reproduce rotation {sanity,pointcloud,ik}`: compare rotation representations for networks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from vision3d.cli.menu import menu
from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import ProgressCallback
from vision3d.stages.rotation.config import GROWS, RESUMABLE, IkConfig, PointCloudConfig, SanityConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class SanityOptions(RunOptions):
    """Train a small network for every representation and seed to reproduce its input rotation, and evaluate it on uniform
    rotations. With --resume, finished trainings are skipped, and representations or seeds can be added."""

    settings: Settings[SanityConfig] = dataclasses.field(default_factory=SanityConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointCloudOptions(RunOptions):
    """Train a PointNet for every representation and seed to estimate the rotation between a point cloud and its rotated copy,
    and evaluate it on unseen clouds. With --resume, finished trainings are skipped, and representations or seeds can be
    added."""

    data: Annotated[Path, tyro.conf.Positional]
    """An .npz with train and test (clouds, points, 3), or a folder with points/ and points_test/ of .pts or .xyz files."""
    settings: Settings[PointCloudConfig] = dataclasses.field(default_factory=PointCloudConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IkOptions(RunOptions):
    """Train a network for every representation and seed to estimate joint rotations from joint positions, and evaluate the
    position errors on unseen clips. With --resume, finished trainings are skipped, and representations or seeds can be
    added."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("test",),
    }

    clips: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Motion to train on, .bvh files of one skeleton."""
    test: tuple[Path, ...]
    """Motion of the same skeleton to evaluate on."""
    settings: Settings[IkConfig] = dataclasses.field(default_factory=IkConfig)


def _sanity(options: SanityOptions, run_folder: "RunFolder | None", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.rotation import reproduce_rotation_sanity

    return reproduce_rotation_sanity(options.settings, run_folder=run_folder, progress=progress).summary


def _pointcloud(options: PointCloudOptions, run_folder: "RunFolder | None", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.rotation import reproduce_rotation_pointcloud

    return reproduce_rotation_pointcloud(options.settings, options.data, run_folder=run_folder, progress=progress).summary


def _ik(options: IkOptions, run_folder: "RunFolder | None", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.rotation import reproduce_rotation_ik

    return reproduce_rotation_ik(
        options.settings, options.clips, options.test, run_folder=run_folder, progress=progress
    ).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    from vision3d.stages.rotation.run import table

    lines = [
        table(dict(results)),
        "differences from the publication:",
        *(f"- {words}" for words in results["differs_from_publication"]),
    ]
    return "\n".join([*lines, f"now open {out / 'report.html'}"])


def _verb(name: str, options: type[Any], execute: Callable[..., Mapping[str, Any]]) -> Callable[[Sequence[str]], None]:
    verb = f"reproduce rotation {name}"
    return stage_verb(
        verb, options, execute, stage=f"rotation_{name}", resumable=RESUMABLE, grows=GROWS, text_of=_text, is_distributed=True
    )


PARTS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "sanity": (_verb("sanity", SanityOptions, _sanity), "reproduce the input rotation; half a minute per training"),
    "pointcloud": (
        _verb("pointcloud", PointCloudOptions, _pointcloud),
        "estimate the rotation between two clouds; 25 minutes per training",
    ),
    "ik": (_verb("ik", IkOptions, _ik), "estimate joint rotations from joint positions; three minutes per training"),
}
"""Name -> (its `run`, description)."""


def _choose(name: str, arguments: Sequence[str]) -> None:
    PARTS[name][0](arguments)


run = menu(
    "reproduce rotation",
    "PART",
    "Compare rotation representations for networks (Zhou et al. 2019).",
    {name: text for name, (_, text) in PARTS.items()},
    _choose,
)
