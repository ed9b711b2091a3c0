"""The part of `vision3d convert` for animated objects: sequences, and animated .glb files."""

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from vision3d.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from vision3d.scene import Clip, FrameSequence, Mesh, SkinnedMesh

logger = logging.getLogger("vision3d")

STORES = (".npz", ".zarr", ".usd", ".usda", ".usdc")
"""Suffixes of formats that only store motion."""
WRITTEN = (".glb", ".gltf", *STORES)
_INDEX = "frames.json"
_PADDING = 2  # texels around each chart


class MotionOptions(Protocol):
    """The options of `vision3d convert` used here."""

    @property
    def motion(self) -> str | None: ...
    @property
    def clip(self) -> str | None: ...
    @property
    def rate(self) -> float | None: ...
    @property
    def joints(self) -> int: ...
    @property
    def morphs(self) -> int | None: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def frames(self) -> str | None: ...
    @property
    def texture_size(self) -> int: ...


def check_options(options: MotionOptions) -> None:
    """Raise a ConfigError that names the option with an invalid value."""
    wants = {
        "--joints": (options.joints, options.joints >= 1, "1 or more"),
        "--morphs": (options.morphs, (options.morphs or 0) >= 0, "0 or more"),
        "--tolerance": (options.tolerance, options.tolerance >= 0, "0 or more"),
        "--rate": (options.rate, options.rate is None or 0 < options.rate < math.inf, "frames per second"),
        "--texture-size": (options.texture_size, 0 <= options.texture_size <= 16384, "0 to 16384 texels"),
    }
    for name, (value, is_right, want) in wants.items():
        if not is_right:
            raise ConfigError(name, f"got {value}, want {want}")


def is_sequence(path: Path) -> bool:
    """Whether a path contains frames: a .npz, or a folder of ours."""
    return path.suffix.lower() == ".npz" or any((path / name).is_file() for name in (".zgroup", _INDEX))


def read_moving(source: Path, target: Path, options: MotionOptions, *, is_still: bool) -> "FrameSequence | SkinnedMesh | None":
    """The animated object in a file or folder; None for static input, or if motion is not requested.

    Args:
        source: The input.
        target: The output.
        options: Options of the verb.
        is_still: Whether options are given that only apply to static objects.

    Raises:
        InputError: Motion is requested but missing, or cannot be read.
    """
    from vision3d.io import gltf
    from vision3d.io.mesh_frames import read_frames
    from vision3d.scene import FrameSequence, SkinnedMesh, load

    if is_sequence(source):
        value = load(source)
        assert isinstance(value, FrameSequence)
        return value
    is_wanted = bool(options.motion or options.clip or options.frames) or target.suffix.lower() in STORES
    if source.is_dir():
        return read_frames(source, options.rate) if options.rate is not None else None
    if source.suffix.lower() not in (".glb", ".gltf"):
        if is_wanted:
            raise InputError(
                f"{source}: does not move; want a .zarr, .npz, an animated .glb, or a folder of frames with --rate"
            )
        return None
    if is_wanted:
        return SkinnedMesh.load(source)
    if target.suffix.lower() not in (".glb", ".gltf") or not gltf.can_move(source):
        return None
    if is_still:
        logger.warning("%s: --crop and --transform apply to the rest pose; the animation is dropped", source)
        return None
    try:
        return SkinnedMesh.load(source)
    except InputError as error:
        logger.warning("%s; only the rest pose is written", error)
        return None


def write_moving(path: Path, value: "FrameSequence | SkinnedMesh", options: MotionOptions) -> dict[str, Any]:
    """Write an animated object in the format of the suffix of `path`, or as a folder of frames; returns statistics."""
    from vision3d.scene import SkinnedMesh, codecs

    if options.frames is not None:
        from vision3d.io.mesh_frames import write_frames

        sequence = _as_sequence(value, options)
        write_frames(path, _colored(sequence, options) if options.frames == "obj" else sequence, f".{options.frames}")
        return {"frames": len(sequence)}
    if path.suffix.lower() not in (".glb", ".gltf"):
        sequence = _as_sequence(value, options)
        codecs.save(path, sequence if path.suffix.lower() == ".zarr" else _colored(sequence, options))
        return {"frames": len(sequence)}
    if isinstance(value, SkinnedMesh) and options.motion in (None, "keep"):
        value.save(path)
        return {"joints": len(value), "morphs": value.num_morphs, "clips": len(value.clips)}
    skin, metrics = _as_skin(_colored(_as_sequence(value, options), options), options)
    skin.save(path)
    return {"joints": len(skin), "morphs": skin.num_morphs, **metrics}


def _as_sequence(value: "FrameSequence | SkinnedMesh", options: MotionOptions) -> "FrameSequence":
    from vision3d.scene import FrameSequence

    if isinstance(value, FrameSequence):
        if options.clip is not None:
            raise ConfigError("--clip", "is for an animated .glb; a sequence is one clip")
        return value
    clip = _clip(value, options)
    return value.to_sequence(clip, clip.times(options.rate or value.fps or 30.0))


def _clip(skin: "SkinnedMesh", options: MotionOptions) -> "Clip":
    if options.clip is not None:
        return skin.clip(options.clip)
    first, *others = skin.clips or (None,)
    if first is None:
        raise InputError("the file has no clips; want one with animations")
    if others:
        logger.warning("using the clip %s; --clip can select %s", first.name, ", ".join(clip.name for clip in others if clip))
    return first


def _as_skin(sequence: "FrameSequence", options: MotionOptions) -> "tuple[SkinnedMesh, dict[str, float]]":
    """A clip of the frames in the representation of --motion, and its maximum and mean error."""
    from vision3d.optim.motion.skin_fit import fit_joints, fit_morphs
    from vision3d.scene import SkinnedMesh

    vertices, times = sequence.vertices(), sequence.times.double() - min(0.0, float(sequence.times[0]))
    mesh, name = cast("Mesh", sequence.base), options.clip or "frames"
    if options.motion == "pca":
        found = fit_morphs(mesh, vertices, times, name, tolerance=options.tolerance, max_morphs=options.morphs)
    elif options.motion == "skin":
        found = fit_joints(
            mesh,
            vertices,
            times,
            name,
            num_joints=options.joints,
            tolerance=options.tolerance,
            max_morphs=options.morphs,
        )
    else:
        return SkinnedMesh.from_frames(mesh, vertices, times, name), {}
    return found.skin, {"max_error": found.max_error, "mean_error": found.mean_error}


def _colored(sequence: "FrameSequence", options: MotionOptions) -> "FrameSequence":
    """Frames of the mesh with the colors of its Gaussians, if there are any."""
    from vision3d.render.meshes.gaussian_colors import bake_texture, bake_vertex_colors
    from vision3d.scene import MeshGaussians

    bound = sequence.base
    if not isinstance(bound, MeshGaussians):
        return sequence
    if options.texture_size:
        if bound.mesh.uvs is None:
            from vision3d.render.baking.atlas import unwrap

            charts = unwrap(bound.mesh, options.texture_size, _PADDING)
            bound = replace(bound, mesh=replace(bound.mesh, uvs=charts.corner_uvs))
        return replace(sequence, base=bake_texture(bound, options.texture_size))
    return replace(sequence, base=bake_vertex_colors(bound))
