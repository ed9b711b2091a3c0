"""`vision3d fit`: photos with cameras -> scene.ply, metrics and renders."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.fit.config import GROWS, RESUMABLE, FitConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions(RunOptions):
    """Fit a Gaussian scene to photos with cameras, or without by --sfm."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder with a COLMAP model, a transforms.json or NeRF-synthetic files; or a transforms.json; with --sfm plain photos or a
    video."""
    settings: Settings[FitConfig] = dataclasses.field(default_factory=FitConfig)


def _fit(options: FitOptions, run_folder: "RunFolder | None", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.fit import fit

    return fit(options.settings, options.data, run_folder=run_folder, progress=progress).summary


run = stage_verb("fit", FitOptions, _fit, stage="fit", resumable=RESUMABLE, grows=GROWS, is_distributed=True)
