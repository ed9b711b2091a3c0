"""`vision3d edit run`: change an object by text."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.option_marks import Repeated
from vision3d.core.progress import ProgressCallback
from vision3d.stages.edit.run_config import EditConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditOptions(RunOptions):
    """Change colors, patterns and material of a mesh or of Gaussians by text; the shape stays."""

    path: Annotated[Path, tyro.conf.Positional]
    """A mesh (.glb, .obj, .ply), Gaussians (.ply, .splat, .spz) or a triplane (.safetensors)."""
    text: Repeated[tuple[str, ...]] = ()
    """An instruction such as "make it red"; several are applied in order."""
    select: Repeated[tuple[str, ...]] = ()
    """What to change: box:CX,CY,CZ,HX,HY,HZ, sphere:CX,CY,CZ,R, plane:PX,PY,PZ,NX,NY,NZ, label:N, component:N, or the path
    of a selection (.json); several are united. Default: everything."""
    settings: Settings[EditConfig] = dataclasses.field(default_factory=EditConfig)


def _edit(options: EditOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.cli.app import UsageError

    if not options.text:
        raise UsageError('want an instruction: --text "make it red" (vision3d edit run --help lists the options)')
    from vision3d.stages.edit import edit

    return edit(
        options.settings, options.path, options.text, select=options.select, run_folder=run_folder, progress=progress
    ).summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    part = "" if results["selected"] == 1 else f" on {100 * results['selected']:.1f} % of the object"
    clipped = f", {100 * results['clipped']:.1f} % of the colors clipped" if results["clipped"] else ""
    sheet = out / ("variants.png" if "variants" in results else "before_after.png")
    return f"understood: {', then '.join(results['understood'])}{part} ({results['edit_s']:.1f} s{clipped})\nnow open {sheet}"


run = stage_verb("edit run", EditOptions, _edit, stage="edit", text_of=_text)
"""Run the command."""
