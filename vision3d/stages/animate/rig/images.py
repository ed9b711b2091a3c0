"""Images of a posed or animated skin: a video from an orbit or from given cameras, a sheet of frames."""

import math
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.geometry import paths
from vision3d.geometry.cameras import intrinsics
from vision3d.io.images import write_image
from vision3d.io.video import VideoWriter
from vision3d.render import render_scene
from vision3d.report.sheets import frame_sheet, spread
from vision3d.scene import Cameras, FrameSequence
from vision3d.stages.animate.rig.config import RigConfig

_SHEET = (256, 192)
_MAX = 12
_MARGIN = 1.08
_LOOKS = 24  # cameras of an orbit used to determine its distance


@torch.no_grad()
def write_images(
    folder: Path,
    frames: FrameSequence,
    config: RigConfig,
    cameras: Cameras | None,
    *,
    fps: float,
    is_still: bool,
    progress: ProgressCallback | None = None,
) -> None:
    """Write figures/frames.png, and with `config.video` video.mp4 (video_NAME.mp4 for several cameras), and image.png for a
    still pose.

    Args:
        folder: Run folder.
        frames: The sequence; one frame for a still pose.
        config: Options.
        cameras: One video each; an orbit when None.
        fps: Frame rate of the videos.
        is_still: Whether there is only one pose.
        progress: Progress callback, called for every frame of the videos.
    """
    device = frames.device
    _write_sheet(folder / "figures" / "frames.png", frames, config, is_still=is_still)
    if not config.video:
        return
    if cameras is None:
        num = config.frames if is_still else len(frames)
        shots = {"video.mp4": orbit(frames, config, num, config.video_size)}
    else:
        num = len(frames)
        names = [Path(name).stem for name in cameras.names] if cameras.names else [f"{i:03d}" for i in range(len(cameras))]
        files = ["video.mp4"] if len(cameras) == 1 else [f"video_{name}.mp4" for name in names]
        shots = {file: cameras[[i] * num] for i, file in enumerate(files)}
    with Progress(num * len(shots), "render", progress) as bar:
        for number, (file, views) in enumerate(shots.items()):
            path = folder / file
            if is_still:
                still = path.with_suffix(".png").with_stem(path.stem.replace("video", "image", 1))
                write_image(still, render_frame(frames, 0, views[:1].to(device), config))
                if len(views) == 1:
                    continue
            with VideoWriter(path, fps=fps) as video:
                for index in range(num):
                    video.append(render_frame(frames, min(index, len(frames) - 1), views[index : index + 1].to(device), config))
                    bar.update(number * num + index + 1)


def check_seen(vertices: Float[Tensor, "t v 3"], faces: Int64[Tensor, "f 3"], cameras: Cameras) -> None:
    """Raise an error for a camera that has every face of every shown frame beyond one side of its view.

    Raises:
        InputError: The message names the first such camera and where the mesh is.
    """
    frames = vertices[spread(range(len(vertices)), _LOOKS)].float()
    for i in range(len(cameras)):
        local = frames @ cameras.viewmats[i, :3, :3].mT + cameras.viewmats[i, :3, 3]
        depth = local[..., 2] if cameras.model != "ortho" else torch.ones_like(local[..., 2])
        beyond = [local[..., 2] <= 0] if cameras.model != "fisheye" else []
        if cameras.model != "fisheye" and cameras.distortion is None:
            u, v = (torch.stack([local[..., 0], local[..., 1], depth], -1) @ cameras.Ks[i].mT)[..., :2].unbind(-1)
            beyond += [u < 0, v < 0, u > cameras.width[i] * depth, v > cameras.height[i] * depth]
        if beyond and bool(torch.stack([side[:, faces].all(-1) for side in beyond]).any(0).all()):
            name = f"camera {i}" + (f" ({cameras.names[i]})" if cameras.names else "")
            points = frames.flatten(0, 1)
            low, high = (", ".join(f"{x:.3g}" for x in bound.tolist()) for bound in (points.amin(0), points.amax(0)))
            center = ", ".join(f"{x:.3g}" for x in cameras.centers[i].tolist())
            raise InputError(f"{name} at ({center}) sees nothing of the mesh, which is in the box from ({low}) to ({high})")


def render_frame(frames: FrameSequence, index: int, camera: Cameras, config: RigConfig) -> Float[Tensor, "h w 3"]:
    """One frame in one camera, in [0, 1]."""
    (view,) = render_scene(frames.frame(index), camera, backgrounds=config.background, shading=config.shading)  # pyright: ignore[reportArgumentType]
    assert view.image is not None
    return view.image.clamp(0, 1)


def orbit(frames: FrameSequence, config: RigConfig, num: int, size: tuple[int, int], turns: float | None = None) -> Cameras:
    """Cameras that see all frames, around their center or at a fixed position."""
    if turns is None:
        turns = config.turns if config.turns is not None else float(len(frames) == 1)
    vertices = torch.cat([frames.channels["vertices"][i] for i in spread(range(len(frames)), 64)]).float()
    center = (vertices.amin(0) + vertices.amax(0)) / 2
    axis = "xyz".index(config.up)
    up, first = torch.eye(3).to(vertices)[[axis, 1 if axis == 0 else 0]]
    azimuth = math.radians(config.azimuth)
    start = math.cos(azimuth) * first + math.sin(azimuth) * torch.linalg.cross(up, first)
    slope = math.tan(math.radians(config.fov) / 2)
    slopes = vertices.new_tensor([slope * size[0] / size[1], slope])

    def poses(distance: float, count: int) -> Float[Tensor, "count 4 4"]:
        return paths.orbit(center, distance, math.radians(config.elevation), count, up, turns, start=start)

    # As close as possible with all points visible: |across| <= slope (distance + along) for each.
    farthest = 0.0
    for rotmat in poses(1.0, min(num, _LOOKS))[:, :3, :3]:
        local = (vertices - center) @ rotmat
        farthest = max(farthest, float((local[:, :2].abs() / slopes - local[:, 2:]).max()))
    focal = 0.5 * size[1] / slope
    K = intrinsics(focal, focal, size[0] / 2, size[1] / 2).to(vertices)
    return Cameras.from_camtoworlds(poses(_MARGIN * (farthest or 1.0) / config.zoom, num), K, *size)


def _write_sheet(path: Path, frames: FrameSequence, config: RigConfig, *, is_still: bool) -> None:
    """Some of the frames with their times; for a still pose views from all sides."""
    if is_still:
        views = orbit(frames, config, 8, _SHEET, turns=1.0)
        shown = [render_frame(frames, 0, views[i], config) for i in range(8)]
        captions = [f"{45 * i} degrees" for i in range(8)]
    else:
        views = orbit(frames, config, 1, _SHEET, turns=0.0)
        chosen = spread(range(len(frames)), _MAX)
        shown = [render_frame(frames, i, views, config) for i in chosen]
        captions = [f"{float(frames.times[i]):.3g} s" for i in chosen]
    write_image(path, frame_sheet(shown, captions))
