"""`vision3d edit reconstruct`: an object from one image, to edit."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.progress import ProgressCallback
from vision3d.stages.edit.run_config import ReconstructConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditReconstructOptions(RunOptions):
    """Reconstruct an object from one image by TripoSR, with weights that you have, as planes and as a mesh to edit by text."""

    image: Annotated[Path, tyro.conf.Positional]
    """An image (.png, .webp) of an object that is cut out, or on gray."""
    settings: Settings[ReconstructConfig] = dataclasses.field(default_factory=ReconstructConfig)


def _reconstruct(options: EditReconstructOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.edit import reconstruct

    return reconstruct(options.settings, options.image, run_folder=run_folder, progress=progress).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    edit = f'vision3d edit run {out / "planes.safetensors"} --text "make it red"'
    return f"{results['faces']:,} faces in {results['reconstruct_s']:.1f} s\nnow run {edit}"


run = stage_verb("edit reconstruct", EditReconstructOptions, _reconstruct, stage="edit", text_of=_text)
"""Run the command."""
