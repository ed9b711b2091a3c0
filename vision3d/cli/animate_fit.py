"""`vision3d animate fit`: a mesh and a clip with masks -> the mesh with the clip's motion."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from vision3d.cli.options import Flag, RunOptions, Settings
from vision3d.cli.output import now_open
from vision3d.cli.stage import stage_verb
from vision3d.core.errors import FileFormatError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import ProgressCallback
from vision3d.stages.animate.dynamic.config import GROWS, RESUMABLE, AnimateConfig

if TYPE_CHECKING:
    from torch import Tensor

    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnimateFitOptions(RunOptions):
    """Fit the motion of a mesh to a short clip with masks, through its joints and the nodes of a deformation graph."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("mesh", "masks", "cameras"),
        "evaluation": ("truth",),
        "guidance": ("guidance", "force"),
    }

    clip: Annotated[Path, tyro.conf.Positional]
    """Folder of RGBA frames (or of folders, one per camera, with a cameras.json that names them), or a video with --masks."""
    mesh: Path
    """Mesh in its rest pose (.glb with or without joints, .obj), or Gaussians on a mesh (.safetensors)."""
    cameras: Path | None = None
    """cameras.json or transforms.json, in the world of the mesh [default: the one in the folder of the clip; else a camera
    in front of the mesh (--camera.*), moved so that the mesh fills the mask]."""
    masks: Path | None = None
    """Folder of masks for frames without alpha, white where the object is."""
    truth: Path | None = None
    """True motion for the evaluation: frames of vertices (.zarr), as many as the clip has."""
    guidance: Path | None = None
    """Folder of a Zero123-class pipeline of diffusers (safetensors only) that guides the unseen sides. None is bundled, and
    results with one were not measured."""
    force: Flag = False
    """Allow --guidance on a CPU, which takes long."""
    settings: Settings[AnimateConfig] = dataclasses.field(default_factory=AnimateConfig)


def _animate(options: AnimateFitOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.stages.animate import animate

    return animate(
        options.settings, options.clip, options.mesh, cameras=options.cameras, masks=options.masks,
        truth=None if options.truth is None else _truth(options.truth), guidance=options.guidance, force=options.force,
        run_folder=run_folder, progress=progress,
    ).summary  # fmt: skip


def _truth(path: Path) -> "Tensor":
    import torch

    from vision3d.scene import FrameSequence

    frames = FrameSequence.load(path)
    if "vertices" not in frames.channels:
        raise FileFormatError(path, f"has no frames of vertices, but of {', '.join(frames.channels) or 'nothing'}")
    return torch.stack([frames.channels["vertices"][i] for i in range(len(frames))])


def _text(out: Path, results: Mapping[str, Any]) -> str:
    names = {
        "animated.glb": "the mesh with its clip, for any glTF viewer",
        "frames.zarr": "Gaussians on the moving mesh, for `vision3d view`",
        "comparison.mp4": "target, fit, and another view",
        "report.html": "everything on one page",
    }
    joints = f"{results['joints']} joints, " if results["joints"] else ""
    lines = [
        f"{results['frames']} frames of {results['cameras']} cameras, {joints}{results['nodes']} nodes, "
        f"{results['steps']} steps, guidance: {results['guidance']}"
    ]
    for split, words in (
        ("fitted", "fitted images"),
        ("unseen_cameras", "unseen cameras"),
        ("unseen_frames", "unseen frames"),
    ):
        if f"{split}_psnr" in results:
            lines.append(f"{words}: {_metrics(results, split)} (frozen mesh: {_metrics(results, f'frozen_{split}')})")
    return "\n".join([*lines, *now_open(out, names)])


def _metrics(results: Mapping[str, Any], split: str) -> str:
    error = results.get(f"{split}_vertex_error")
    more = "" if error is None else f", vertex error {100 * error:.2f} % of the diagonal"
    return f"PSNR {results[f'{split}_psnr']:.2f} dB, mask IoU {results[f'{split}_iou']:.4f}{more}"


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    return _VERB(arguments)


_VERB = stage_verb("animate fit", AnimateFitOptions, _animate, stage="animate", resumable=RESUMABLE, grows=GROWS, text_of=_text)
