"""`vision3d animate rig`: pose a mesh with joints or play an animation on it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from vision3d.cli.app import UsageError
from vision3d.cli.inputs import load_cameras
from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.output import now_open
from vision3d.cli.stage import stage_verb
from vision3d.core.config import read_yaml
from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import ProgressCallback
from vision3d.stages.animate.rig.config import RigConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class RigOptions(RunOptions):
    """Pose a mesh with joints, or play a clip of it or motion capture on it; write it, splats that follow it, and a video."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("bvh", "motion"),
        "video": ("cameras",),
    }

    skin: Annotated[Path, tyro.conf.Positional]
    """Mesh with joints or clips (.glb, .gltf)."""
    bvh: Path | None = None
    """Motion capture (.bvh), instead of a clip; joints are matched by their names (those of Mixamo, Rokoko, CMU and others)."""
    motion: Path | None = None
    """Mesh with joints whose first clip moves the hands of this one (.glb, .gltf), such as hands.glb of `hand run`; joints are
    matched by their names (those of WebXR, Mixamo, VRM, Unity, Unreal, Rigify, MANO and others)."""
    joints: Path | None = None
    """YAML file with pairs of joints whose names do not match, `joint of the motion: joint of the mesh` each."""
    cameras: Path | None = None
    """Cameras of the video: cameras.json, transforms.json or a data set folder; one video each [default: a camera in front of
    it, or an orbit around a still pose]."""
    settings: Settings[RigConfig] = dataclasses.field(default_factory=RigConfig)


def _rig(options: RigOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.scene import Motion, SkinnedMesh
    from vision3d.stages.animate import play_skin

    skin = SkinnedMesh.load(options.skin)
    if options.bvh is not None and options.motion is not None:
        raise UsageError("--bvh and --motion are mutually exclusive: both move the mesh")
    motion = None if options.bvh is None else Motion.load(options.bvh)
    motion = motion if options.motion is None else SkinnedMesh.load(options.motion)
    cameras = None if options.cameras is None else load_cameras(options.cameras)
    joints = None if options.joints is None else _pairs(options.joints)
    settings, given = options.settings, {"cameras": cameras, "joints": joints}
    return play_skin(settings, skin, motion, **given, run_folder=run_folder, progress=progress).summary


def _pairs(path: Path) -> dict[str, str]:
    """Joint of the motion -> joint of the mesh."""
    if not path.is_file():
        raise MissingFileError(path, "a YAML file of joints")
    pairs = read_yaml(path)
    for theirs, ours in pairs.items():
        if not isinstance(theirs, str) or not isinstance(ours, str):
            raise FileFormatError(path, "want a name (in quotes if it is a number) of a joint of the mesh", str(theirs))
    return pairs


def _text(out: Path, results: Mapping[str, Any]) -> str:
    what = "a still pose" if results["clip"] is None else f"{results['clip']}: {results['frames']} frames"
    line = f"{what} of {results['vertices']:,} vertices on {results['joints']} joints by {results['method']}"
    if "smallest_volume" in results:
        line += f"; volume {results['smallest_volume']:.3f} to {results['largest_volume']:.3f} of the rest pose"
    names = {
        "video.mp4": "the video",
        "image.png": "the pose",
        "rig.glb": "the pose as a new rest pose" if results["clip"] is None else "the clip, for any glTF viewer",
        "gaussians.ply": "the pose as splats",
        "frames.zarr": "the frames, for `vision3d view`",
        "report.html": "everything on one page",
    }
    names |= {path.name: "a video" for path in sorted(out.glob("video_*.mp4"))}
    return "\n".join([line, *now_open(out, names)])


run = stage_verb("animate rig", RigOptions, _rig, stage="animate", text_of=_text)
