"""`vision3d render`: render images and videos of a scene."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro

from vision3d.cli.inputs import cameras_beside, load_cameras, load_moving, parse_color, parse_size
from vision3d.cli.options import Flag, VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.device import BackendName
from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import TerminalProgress

if TYPE_CHECKING:
    from vision3d.render.timeline import Timeline

_UP = {
    "x": (1.0, 0.0, 0.0), "-x": (-1.0, 0.0, 0.0),
    "y": (0.0, 1.0, 0.0), "-y": (0.0, -1.0, 0.0),
    "z": (0.0, 0.0, 1.0), "-z": (0.0, 0.0, -1.0),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderVerbOptions(VerbOptions):
    """Render images or a video of Gaussians and meshes, from given cameras or along a path."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("cameras", "path", "frames", "size", "background"),
        "camera path": ("fov", "up", "elevation", "zoom", "turns"),
        "moving scenes": ("at", "fps"),
        "output and shading": ("shading", "depth", "normals", "sh_degree", "alpha_max", "backend", "device"),
    }

    scene: tyro.conf.Positional[Path]
    """Gaussian scene (.ply, .spz, ...), mesh (.glb, .obj, .ply, .stl), run folder, frames (.zarr), or folder with scene.json,
    whose objects are rendered together. Moving scenes give one image per frame."""
    out: Path | None = None
    """Folder of images, video (.mp4, .mkv, .mov), or one image (.png, .jpg, ...) [default: next to the scene]."""
    cameras: Path | None = None
    """Cameras: cameras.json, transforms.json or a data set folder. Without --path one image is rendered from each [default: for
    paths, cameras.json next to the scene]."""
    path: Literal["orbit", "spiral", "flythrough"] | None = None
    """Camera path: around the scene (orbit), around one photo (spiral), or from photo to photo (flythrough) [default: orbit
    without --cameras]."""
    frames: int | None = None
    """Images along the path [default: 120, or 1 for one image; of moving scenes, their frames]."""
    at: float | None = None
    """Time of a moving scene to render, instead of all frames [s]."""
    fps: float | None = None
    """Frames per second of a video [default: those of the moving scene, or 30]."""
    size: str | None = None
    """WIDTHxHEIGHT in pixels [default: that of the cameras, or 640x480]."""
    fov: float | None = None
    """Vertical field of view [degrees] [default: that of the cameras, or 50]."""
    up: Literal["x", "-x", "y", "-y", "z", "-z"] | None = None
    """Upward axis of the world for a path [default: that of the cameras, or by convention: y for meshes, z for .stl and
    .ply meshes, boxes and points, -y for Gaussians]."""
    elevation: float | None = None
    """Elevation of an orbit above the center [degrees] [default: the median of the cameras, or 20]."""
    zoom: float = 1.0
    """Divide the distance of an orbit by this."""
    turns: float = 1.0
    """Revolutions of an orbit; negative ones reverse the direction."""
    background: str = "black"
    """Background color: black, white, gray, #rrggbb, or r,g,b in 0 to 1."""
    shading: Literal["smooth", "flat", "none", "normals", "uvs", "depth"] = "smooth"
    """Shading of meshes: with vertex normals (smooth), face normals (flat), unlit (none), or a visualization of their normals,
    texture coordinates or depth."""
    depth: Flag = False
    """Also write depth [m], as colors, and as .npy for folders and single images."""
    normals: Flag = False
    """Also write normals in camera axes, as colors."""
    sh_degree: int | None = None
    """Maximum degree of view-dependent colors to use [default: all]."""
    alpha_max: float = 0.99
    """Maximum alpha of a Gaussian."""
    backend: BackendName = "auto"
    """Rasterizer."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to render."""
    overwrite: Flag = False
    """Replace existing files."""


def run(arguments: Sequence[str]) -> None:
    """Render a scene to files."""
    options = parse(RenderVerbOptions, arguments, "render")
    set_up_output(options)
    _check(options)
    size = None if options.size is None else parse_size("--size", options.size)
    background = parse_color("--background", options.background)

    import torch

    from vision3d.core.device import resolve_backend, resolve_device
    from vision3d.io.glb import scene_up
    from vision3d.render import path_cameras, refit_cameras
    from vision3d.report.renders import output_kind, write_renders
    from vision3d.scene.scene import at_moment
    from vision3d.scene.upright import up_by_convention

    device = resolve_device(options.device, backend=options.backend)
    backend = resolve_backend(options.backend, device)
    scene = load_moving(options.scene).to(device)
    kind = output_kind(options.out) if options.out is not None else "video"
    timeline = _timeline(scene, options, kind)
    shown = at_moment(scene, options.at) if options.at is not None else timeline or scene
    photos = None if options.cameras is None else load_cameras(options.cameras)
    path = options.path or ("orbit" if photos is None else None)
    out = options.out or _default_out(options.scene, path)
    if path is None:
        assert photos is not None
        cameras = refit_cameras(photos, size, options.fov)
    else:
        photos = photos or cameras_beside(options.scene)
        up = options.up
        if up is None and photos is None:
            up = (scene_up(options.scene) if options.scene.is_file() else None) or up_by_convention(scene, options.scene.suffix)
        cameras = path_cameras(
            timeline or scene,
            path,
            photos,
            num=options.frames
            or (1 if output_kind(out) == "image" else 120 if timeline is None or options.at is not None else len(timeline)),
            size=size,
            fov_deg=options.fov,
            up=None if up is None else torch.tensor(_UP[up]),
            elevation_deg=options.elevation,
            zoom=options.zoom,
            turns=options.turns,
        )
    with TerminalProgress(quiet=options.quiet) as progress:
        written = write_renders(
            shown,
            cameras.to(device),
            out,
            depth=options.depth,
            normals=options.normals,
            fps=options.fps,
            background=background,
            shading=options.shading,
            sh_degree=options.sh_degree,
            alpha_max=options.alpha_max,
            backend=backend,
            overwrite=options.overwrite,
            progress=progress,
        )
    text = f"{len(cameras)} view{'s' if len(cameras) > 1 else ''} in {', '.join(map(str, written))}"
    values = {
        "views": len(cameras),
        "files": [str(file) for file in written],
        "backend": backend,
        "device": str(device),
    }
    print_summary(options, text, values)


def _timeline(scene: Any, options: RenderVerbOptions, kind: str) -> "Timeline | None":
    """The frames of animated objects; None if nothing is animated."""
    from vision3d.render.timeline import Timeline

    timeline = Timeline.of(scene)
    if timeline is None:
        if options.at is not None:
            raise ConfigError("--at", f"is for moving scenes, and nothing moves in {options.scene}")
        return None
    if options.at is not None or (options.path is None and options.cameras is not None):
        return timeline
    count = options.frames or (1 if kind == "image" else len(timeline))
    return timeline if count == len(timeline) else timeline.resampled(count)


def _default_out(scene: Path, path: str | None) -> Path:
    folder = scene if scene.is_dir() else scene.parent
    return folder / ("views" if path is None else f"{path}.mp4")


def _check(options: RenderVerbOptions) -> None:
    frames, fov, elevation, degree = options.frames, options.fov, options.elevation, options.sh_degree
    for name, value, is_right, want in (
        ("--frames", frames, frames is None or frames >= 1, "1 or more"),
        ("--fps", options.fps, options.fps is None or 0 < options.fps <= 1000, "a number > 0"),
        ("--at", options.at, options.at is None or math.isfinite(options.at), "a number of seconds"),
        ("--fov", fov, fov is None or 0 < fov < 180, "degrees between 0 and 180"),
        ("--elevation", elevation, elevation is None or abs(elevation) <= 90, "degrees from -90 to 90"),
        ("--zoom", options.zoom, 0 < options.zoom < math.inf, "a number > 0"),
        ("--turns", options.turns, abs(options.turns) < math.inf, "a number"),
        ("--sh-degree", degree, degree is None or 0 <= degree <= 4, "0 to 4"),
        ("--alpha-max", options.alpha_max, 0 < options.alpha_max < 1, "a number between 0 and 1"),
    ):
        if not is_right:
            raise ConfigError(name, f"got {value}, want {want}")
    if options.cameras is not None and options.path is None:
        for name, value in (("--frames", frames), ("--up", options.up), ("--elevation", elevation)):
            if value is not None:
                raise ConfigError(name, "is for paths; give --path, or leave it out to render each of the --cameras")
