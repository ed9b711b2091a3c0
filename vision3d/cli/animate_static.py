"""`vision3d animate static`: a mesh -> Gaussians on its faces that look like pictures of it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vision3d.cli.inputs import load_cameras
from vision3d.cli.options import Flag, RunOptions, Settings
from vision3d.cli.output import now_open
from vision3d.cli.stage import stage_verb
from vision3d.progress import ProgressCallback
from vision3d.stages.animate.static.config import GROWS, RESUMABLE, StaticConfig

if TYPE_CHECKING:
    from vision3d.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class StaticOptions(RunOptions):
    """Bind Gaussians to the faces of a mesh, and refine them to photographs with cameras or to one picture. Without a mesh the
    outline of the picture is inflated; with --guidance that shape is refined from all sides."""

    mesh: Annotated[Path | None, tyro.conf.Positional] = None
    """Mesh (.glb, .obj, .ply, .stl), Gaussians on one (.safetensors), or a folder with mesh.glb as of `vision3d mesh`
    [default: the outline of --image, inflated]."""
    data: Path | None = None
    """Photographs with cameras in the mesh's world, as `vision3d fit` takes them."""
    image: Path | None = None
    """One picture with an alpha channel or a plain background, in place of --data; --view.* tells its camera."""
    camera: Path | None = None
    """cameras.json with the camera of --image, in place of --view.*."""
    guidance: Path | None = None
    """Folder of a Zero123-class pipeline of diffusers (safetensors alone), which says how the object of --image looks from
    other sides. None is included, and their results were not measured."""
    force: Flag = False
    """Run --guidance on a CPU even if it takes long."""
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
