"""`vision3d animate static`: a mesh -> Gaussians on its faces that reproduce its images."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from vision3d.cli.inputs import load_cameras
from vision3d.cli.options import Flag, RunOptions, Settings
from vision3d.cli.output import now_open
from vision3d.cli.stage import stage_verb
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import ProgressCallback
from vision3d.stages.animate.static.config import GROWS, RESUMABLE, StaticConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class StaticOptions(RunOptions):
    """Bind Gaussians to the faces of a mesh and refine them on photos with cameras or on one image. Without a mesh the outline
    of the image is inflated; with --guidance that shape is refined from all sides."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("image", "data"),
        "photos": ("camera",),
        "guidance": ("guidance", "force"),
    }

    mesh: Annotated[Path | None, tyro.conf.Positional] = None
    """Mesh (.glb, .obj, .ply, .stl), Gaussians on one (.safetensors), or a folder with mesh.glb as of `vision3d mesh`
    [default: the outline of --image, inflated]."""
    data: Path | None = None
    """Photos with cameras in the world of the mesh, as for `vision3d fit`."""
    image: Path | None = None
    """One image with an alpha channel or a plain background, instead of --data; its camera is --view.*."""
    camera: Path | None = None
    """cameras.json with the camera of --image, instead of --view.*."""
    guidance: Path | None = None
    """Folder of a Zero123-class pipeline of diffusers (safetensors only) that guides the unseen sides of --image. None is
    bundled, and results with one were not measured."""
    force: Flag = False
    """Allow --guidance on a CPU, which takes long."""
    settings: Settings[StaticConfig] = dataclasses.field(default_factory=StaticConfig)


def _static(options: StaticOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.animate import bind_gaussians

    camera = None if options.camera is None else load_cameras(options.camera)
    return bind_gaussians(
        options.settings, options.mesh, data=options.data, image=options.image, camera=camera,
        guidance=options.guidance, force=options.force, run_folder=run_folder, progress=progress,
    ).summary  # fmt: skip


def _text(out: Path, results: Mapping[str, Any]) -> str:
    lines = [
        f"{results['gaussians']:,} Gaussians on {results['faces']:,} faces, {results['steps']} steps in "
        f"{results['training_s']:.1f} s; guidance: {results['guidance']}"
    ]
    if "shape" in results:
        lines.append(f"shape: {results['shape']}")
    if "psnr" in results:
        lines.append(
            f"held-out views ({results['held_out_views']}): PSNR {results['psnr_before']:.2f} dB before, "
            f"{results['psnr']:.2f} dB after; SSIM {results['ssim_before']:.3f}, {results['ssim']:.3f}"
        )
    if "psnr_of_the_fitted_view" in results:
        lines.append(f"the fitted image: {results['psnr_of_the_fitted_view']:.2f} dB; no held-out views")
    names = {
        "gaussians.safetensors": "for view, render, simulate and info",
        "gaussians.glb": "their mesh",
        "figures/before_after.png": "images before and after",
        "report.html": "everything on one page",
    }
    return "\n".join([*lines, *now_open(out, names)])


run = stage_verb("animate static", StaticOptions, _static, stage="animate", resumable=RESUMABLE, grows=GROWS, text_of=_text)
