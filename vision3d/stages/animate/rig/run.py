"""Pose or play a mesh with joints: frames, splats, a file with the new rest pose or the clip, images."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from vision3d.core.device import resolve_device
from vision3d.core.errors import InputError
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.geometry.mesh import is_closed, volume
from vision3d.optim.motion.hands import retarget_hands
from vision3d.optim.motion.retarget import retarget
from vision3d.render.meshes.shading import first_of_each, smooth_normals
from vision3d.scene import Cameras, Clip, FrameSequence, Mesh, MeshGaussians, Motion, SkinnedMesh
from vision3d.scene.clip import frame_rate
from vision3d.scene.posing import baked_clip, parse_pose, rest_at
from vision3d.stage import stage
from vision3d.stages.animate.rig.config import RigConfig
from vision3d.stages.animate.rig.images import check_seen, write_images

logger = logging.getLogger("vision3d.animate")

FRAMES, SKIN, SPLATS = "frames.zarr", "rig.glb", "gaussians.ply"
_FPS = 24.0  # if neither the options nor the file have a frame rate
_MAX_BYTES = 2e9  # maximum size of the vertices of all frames


@dataclass(frozen=True, eq=False)
class RigResult:
    """A posed or animated skin."""

    skin: SkinnedMesh
    """The pose as a new rest pose; or the skin with the clip that was played, which glTF viewers show identically: as joints
    for lbs, as one morph target per frame for the other methods."""
    frames: FrameSequence
    """The mesh, or the Gaussians on it, with its vertices in each frame."""
    summary: dict[str, Any]
    """Plain figures."""


@stage("animate rig", {"skin": "skin", "motion": "bvh", "cameras": "cameras", "joints": "joints"})
def play_skin(
    config: RigConfig,
    skin: SkinnedMesh,
    motion: Motion | SkinnedMesh | None = None,
    *,
    cameras: Cameras | None = None,
    joints: Mapping[str, str] | None = None,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> RigResult:
    """Pose a skin, or play a clip of it or motion capture on it.

    Args:
        config: Options.
        skin: A mesh with joints, or with morph targets and clips.
        motion: Motion capture of joints with the same names up to prefixes, instead of a clip; or another mesh with joints,
            whose first clip moves the hands of the skin.
        cameras: For the video: one video each. Without them the camera is in front, or orbits.
        joints: Joints of the motion -> joints of the skin, where their names do not match.
        run_folder: Receives rig.glb, frames.zarr, video.mp4, images; for a still pose also gaussians.ply.
        progress: Progress callback, called for every frame of the video.

    Raises:
        InputError: A joint or clip does not exist, or the skin has fewer than half of the joints of the motion; the message has
            the names. Or a camera never sees the mesh.

    Example:
        >>> from vision3d import SkinnedMesh
        >>> from vision3d.stages.animate import RigConfig, play_skin
        >>> result = play_skin(RigConfig(pose=("head=0,30,0",), method="dqs"), SkinnedMesh.load("fox.glb"))
        >>> result.skin.save("posed.glb")
    """
    started = time.monotonic()
    device = resolve_device(config.device)
    skin = skin.to(device)
    fps = config.fps or (skin.fps if motion is None else motion.fps if isinstance(motion, SkinnedMesh) else None) or _FPS
    played, times = _played(config, skin, motion, fps, joints)
    name = "pose" if played is None else played.name
    clip = baked_clip(skin, played, times, parse_pose(config.pose), order=config.order, axes=config.axes, name=name)
    times = times - times[0]
    blends = skin.translations.new_full((len(skin),), config.blend)
    vertices = skin.posed(clip, times, method=config.method, blends=blends)
    mesh = replace(skin.mesh, normals=None)
    base = MeshGaussians.from_mesh(mesh, config.per_face) if config.render == "gaussians" else mesh
    frames = FrameSequence(base, times, {"vertices": vertices})
    if cameras is not None:
        check_seen(vertices, mesh.faces, cameras.to(device))
    result = RigResult(_exported(config, skin, clip, played is None, vertices, times), frames, {})
    summary = {
        "clip": None if played is None else name,
        "frames": len(times),
        "seconds": round(float(times[-1]), 4),
        "joints": len(skin),
        "vertices": mesh.num_vertices,
        "faces": mesh.num_faces,
        "gaussians": len(base) if isinstance(base, MeshGaussians) else 0,
        "method": config.method,
        **_volumes(mesh, vertices),
        "device": str(device),
    }
    if isinstance(run_folder, RunFolder):
        _write(run_folder.path, result, is_still=played is None)
        write_images(run_folder.path, frames, config, cameras, fps=fps, is_still=played is None, progress=progress)
    return replace(result, summary={**summary, "wall_s": round(time.monotonic() - started, 3)})


def _played(
    config: RigConfig, skin: SkinnedMesh, motion: Motion | SkinnedMesh | None, fps: float, joints: Mapping[str, str] | None
) -> tuple[Clip | None, Float64[Tensor, " t"]]:
    """What animates the skin (None: a still pose), and the times of its frames."""
    if motion is not None and config.clip is not None:
        raise InputError(f"clip: got {config.clip!r} and a motion; want one of the two")
    if joints and motion is None:
        raise InputError("joints: got pairs of joints, but no motion to match them with")
    if isinstance(motion, SkinnedMesh):
        if not motion.clips:
            raise InputError("motion: the mesh has joints but no clip; want one that moves, such as hands.glb of `hand run`")
        clip = retarget_hands(motion.to(skin.device), motion.clips[0], skin, scale=config.scale, joints=joints)
    elif motion is not None:
        clip = retarget(motion.to(skin.device), skin, scale=config.scale, joints=joints)
    elif config.clip is not None:
        clip = skin.clip(config.clip)
    else:
        clip = skin.clips[0] if skin.clips and not config.pose else None
    if clip is None:
        return None, torch.zeros(1, dtype=torch.float64)
    count = (clip.end - clip.start) * fps
    if 12 * count * skin.mesh.num_vertices > _MAX_BYTES:
        what = f"{count:.4g} frames of {skin.mesh.num_vertices:,} vertices do not fit in {_MAX_BYTES / 1e9:g} GB"
        raise InputError(f"fps: clip {clip.name} lasts {clip.end - clip.start:.4g} s, and {what}; want fewer frames per second")
    return clip, clip.times(fps)


def _exported(
    config: RigConfig, skin: SkinnedMesh, clip: Clip, is_still: bool, vertices: Tensor, times: Float64[Tensor, " t"]
) -> SkinnedMesh:
    if is_still:
        rest = rest_at(skin, clip, 0.0, method=config.method, blend=config.blend)
        return replace(rest, mesh=replace(rest.mesh, normals=smooth_normals(rest.mesh)))
    if config.method == "lbs":
        return replace(skin, clips=(clip,), fps=frame_rate(times))
    return SkinnedMesh.from_frames(skin.mesh, vertices, times.to(skin.device), clip.name)


def _volumes(mesh: Mesh, vertices: Tensor) -> dict[str, float]:
    """Smallest and largest volume of the frames relative to the rest pose, for a closed mesh."""
    _, place = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    faces, first = place[mesh.faces], first_of_each(place)
    if not is_closed(faces) or not (rest := float(volume(mesh.vertices[first].double(), faces))):
        return {}
    ratios = [float(volume(frame[first].double(), faces)) / rest for frame in vertices]
    return {"smallest_volume": round(min(ratios), 4), "largest_volume": round(max(ratios), 4)}


def _write(folder: Path, result: RigResult, *, is_still: bool) -> None:
    result.skin.save(folder / SKIN)
    shutil.rmtree(folder / FRAMES, ignore_errors=True)
    result.frames.to("cpu").save(folder / FRAMES)
    if is_still and isinstance(result.frames.base, MeshGaussians):
        splats = result.frames.frame(0)
        splats.save(folder / SPLATS)  # pyright: ignore[reportAttributeAccessIssue]
