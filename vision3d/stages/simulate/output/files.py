"""Output of a simulation for users: frames as files, a video, charts."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.edge_factors import factors_svd, factors_to_gaussians, gaussians_to_factors, split_long
from vision3d.geometry.vectors import unit
from vision3d.io.images import write_image
from vision3d.io.video import VideoWriter
from vision3d.render import path_cameras, render_scene
from vision3d.report.sheets import frame_sheet
from vision3d.scene import Cameras, FrameSequence, GaussianScene, Mesh
from vision3d.stages.simulate.config import SimulateConfig
from vision3d.stages.simulate.output.frame import Frame
from vision3d.stages.simulate.output.obstacle_meshes import obstacle_meshes
from vision3d.stages.simulate.output.plots import energy_plot
from vision3d.stages.simulate.setup.prepared import Setup

_BACKGROUND = (1.0, 1.0, 1.0)
_SHEET = (256, 192)  # image size on the contact sheet [px]
_MAX = 12  # maximum number of images on it
_LOOKS = 6  # frames used to place the camera
_FOV_DEG, _ELEVATION_DEG = 40.0, 12.0


@torch.no_grad()
def write_frame(folder: Path, frame: Frame, setup: Setup, config: SimulateConfig) -> Path:
    """Write one frame atomically as FOLDER/00012.ply, or .glb for a mesh."""
    base = setup.representation.base
    time = torch.tensor([frame.time], dtype=torch.float64)
    value = FrameSequence(base, time, {name: channel[None] for name, channel in frame.channels.items()}).frame(0)
    if isinstance(value, Mesh):
        path = folder / f"{frame.index:05d}.glb"
        value.save(path)
        return path
    assert isinstance(value, GaussianScene)
    if config.split_long and isinstance(base, GaussianScene):
        value = _split(value, base, config.max_stretch)
    path = folder / f"{frame.index:05d}.ply"
    value.save(path)
    return path


@torch.no_grad()
def write_video(
    path: Path, moving: FrameSequence, setup: Setup, config: SimulateConfig, progress: ProgressCallback | None = None
) -> None:
    """Write the frames as a video from a fixed camera, with obstacles depth-composited with the Gaussians."""
    camera = _camera(moving, setup, config.video_size)
    with VideoWriter(path, fps=config.fps) as video, Progress(len(moving), "render", progress) as bar:
        for index in range(len(moving)):
            video.append(_render(moving, index, setup, camera))
            bar.update(index + 1)


@torch.no_grad()
def write_images(run_folder: RunFolder, moving: FrameSequence, setup: Setup, config: SimulateConfig) -> None:
    """Write figures/energies.png (also momentum, time steps and particles) and figures/frames.png, which the report shows, and
    cameras.json with the camera of the video, the initial view of `vision3d view` and `render`."""
    folder = run_folder.path / "figures"
    lines = [line for line in run_folder.metrics() if "time_s" in line]
    if len(lines) > 1:
        write_image(folder / "energies.png", energy_plot(lines))
    write_image(folder / "frames.png", _sheet(moving, setup))
    _camera(moving, setup, config.video_size).save(run_folder.path / "cameras.json")


def _sheet(moving: FrameSequence, setup: Setup) -> Float[Tensor, "h w 3"]:
    """Some of the frames, evenly spaced, with their times."""
    count = min(len(moving), _MAX)
    chosen = [round(i * (len(moving) - 1) / max(count - 1, 1)) for i in range(count)]
    camera = _camera(moving, setup, _SHEET)
    shown = [_render(moving, index, setup, camera) for index in chosen]
    return frame_sheet(shown, [f"{float(moving.times[index]):.3g} s" for index in chosen])


def _render(moving: FrameSequence, index: int, setup: Setup, camera: Cameras) -> Float[Tensor, "h w 3"]:
    objects = [moving.frame(index), *obstacle_meshes(setup, float(moving.times[index]))]
    distance = float((camera.camtoworlds[0, :3, 3].double() - setup.center).norm())
    near = min(0.01, 0.01 * distance)  # millimeter-sized scenes are viewed from closer than the usual near plane
    (view,) = render_scene(objects, camera, backgrounds=_BACKGROUND, near_plane=near)  # pyright: ignore[reportArgumentType]
    assert view.image is not None
    return view.image.clamp(0, 1)


def _camera(moving: FrameSequence, setup: Setup, size: tuple[int, int]) -> Cameras:
    """A camera that sees the moving objects throughout; if there are photos, from their side."""
    up = setup.up.float()
    base = setup.representation.base
    if setup.cameras is not None and len(setup.cameras) > 1 and isinstance(base, GaussianScene):
        return path_cameras(base, "orbit", setup.cameras, num=1, size=size, up=up)
    rows = torch.cat([setup.core_rows, setup.followers.rows])
    seen = []
    for index in sorted({round(i * (len(moving) - 1) / (_LOOKS - 1)) for i in range(_LOOKS)}):
        frame = moving.frame(index)
        if isinstance(frame, GaussianScene):
            seen.append(frame.means[rows] if isinstance(base, GaussianScene) else frame.means)
        elif isinstance(frame, Mesh):
            seen.append(frame.vertices)
    points = torch.cat(seen).double()
    points = points[:: max(1, len(points) // 1_000_000)]  # a few far away are ignored
    low, high = torch.quantile(points, torch.tensor([0.01, 0.99], dtype=torch.float64), dim=0)
    radius = max(float((high - low).norm()), setup.representation.longest or 0.0, 1e-6) / 2
    # Facing the broad side of the moving objects, slightly from above.
    across = (high - low) - 1e9 * setup.up.abs()
    side = torch.zeros(3, dtype=torch.float64)
    side[int(torch.where(across > -1e8, across, torch.inf).argmin())] = 1.0
    side = unit(side - (side @ setup.up) * setup.up)
    half = math.radians(_FOV_DEG) / 2 * min(1.0, size[0] / size[1])
    rise = math.radians(_ELEVATION_DEG)
    eye = (low + high) / 2 + radius / math.sin(half) * (math.cos(rise) * side + math.sin(rise) * setup.up)
    focal = 0.5 * size[1] / math.tan(math.radians(_FOV_DEG) / 2)
    K = intrinsics(focal, focal, size[0] / 2, size[1] / 2)
    pose = look_at(eye.float(), ((low + high) / 2).float(), up)
    return Cameras.from_camtoworlds(pose[None], K.float(), *size)


def _split(frame: GaussianScene, base: GaussianScene, stretch: float) -> GaussianScene:
    """Split each Gaussian that is far longer than at rest into two."""
    if frame.mode != "3dgs":
        return frame
    factors = gaussians_to_factors(frame.quats, frame.scales)
    rest = factors_svd(gaussians_to_factors(base.quats, base.scales))[1]
    means, factors, opacities, rows = split_long(frame.means, factors, frame.opacities, rest, stretch / 2)
    quats, scales = factors_to_gaussians(factors)
    logits = torch.logit(opacities.clamp(1e-6, 1 - 1e-6))
    return replace(frame[rows], means=means, quats=quats, log_scales=scales.log(), opacity_logits=logits)
