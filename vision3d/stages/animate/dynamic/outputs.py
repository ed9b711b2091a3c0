"""Output of a motion fit for users: a video and a sheet of target and fitted frames."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vision3d.core.progress import Progress, ProgressCallback
from vision3d.geometry.rotation import so3_exp
from vision3d.io.images import write_image
from vision3d.io.video import VideoWriter
from vision3d.optim.metrics import psnr
from vision3d.report import Pair, write_contact_sheet
from vision3d.report.curves import Curve, draw_curves
from vision3d.report.sheets import spread
from vision3d.scene import Cameras
from vision3d.stages.animate.dynamic.footage import Footage
from vision3d.stages.animate.dynamic.painters import Painter, over, with_views

_HEIGHT = 256  # minimum height of the video [px]
_TURN_DEG = 60.0
_MAX = 12  # maximum number of frames on the sheet


@torch.no_grad()
def write_comparison(
    path: Path,
    painter: Painter,
    vertices: Float[Tensor, "t v 3"],
    footage: Footage,
    cameras: Cameras,
    seen: Int64[Tensor, " m"],
    background: Float[Tensor, " 3"],
    progress: ProgressCallback | None = None,
) -> None:
    """Write a video of all frames: target, fit, and the fit from a camera rotated by 60 degrees."""
    name = footage.camera_names[int(seen[0])]
    views = [i for i in range(len(footage)) if footage.camera_names[i] == name]
    views.sort(key=lambda i: int(footage.frames[i]))
    factor = -(-_HEIGHT // footage.size[1])
    times = footage.times
    fps = (len(times) - 1) / float(times[-1] - times[0])
    center = (vertices[0].amax(0) + vertices[0].amin(0)) / 2
    with VideoWriter(path, fps=fps) as video, Progress(len(views), "video", progress) as bar:
        for done, view in enumerate(views, 1):
            one = torch.tensor([view], device=vertices.device)
            given = footage.read(one, 1, background)[0][0].repeat_interleave(factor, 0).repeat_interleave(factor, 1)
            camera = with_views(cameras, one, 1).scaled(factor)
            sides = [_drawn(painter, vertices, footage.frames[one], c, background) for c in (camera, _turned(camera, center))]
            video.append(torch.cat([given, *sides], 1).clamp(0, 1))
            bar.update(done)


@torch.no_grad()
def write_sheet(
    path: Path,
    painter: Painter,
    vertices: Float[Tensor, "t v 3"],
    footage: Footage,
    cameras: Cameras,
    seen: Int64[Tensor, " m"],
    background: Float[Tensor, " 3"],
) -> None:
    """Write a sheet of fitted images next to their targets."""
    pairs = []
    for view in spread(seen.tolist(), _MAX):
        one = torch.tensor([view], device=vertices.device)
        image = _drawn(painter, vertices, footage.frames[one], with_views(cameras, one, 1), background).clamp(0, 1)
        given = footage.read(one, 1, background)[0][0]
        caption = f"{footage.camera_names[view]}, frame {int(footage.frames[view])}   {psnr(image, given):.1f} dB"
        pairs.append(Pair(given.cpu(), image.cpu(), caption))
    write_contact_sheet(path, pairs, title="Fitted frames")


def write_iou_curves(path: Path, times: Float64[Tensor, " t"], rows: Sequence[Mapping[str, float]]) -> None:
    """Write charts of the mask IoU over the clip, of the fit and of the frozen mesh.

    Args:
        path: The image file.
        times: Times of the frames [s].
        rows: For each training frame: `frame`, `fitted` and `frozen`.
    """
    if len(rows) > 1:
        at = [float(times[int(row["frame"])]) for row in rows]
        curves = [Curve(f"mask IoU, {name}", at, [row[name] for row in rows]) for name in ("fitted", "frozen")]
        write_image(path, draw_curves(curves))


def _drawn(painter: Painter, vertices: Tensor, frame: Tensor, camera: Cameras, background: Tensor) -> Float[Tensor, "h w 3"]:
    colors, alphas = painter.paint(vertices, frame, camera)
    return over(colors, alphas, background)[0]


def _turned(camera: Cameras, center: Float[Tensor, " 3"]) -> Cameras:
    """The camera rotated around a point, about its own up axis."""
    up = -camera.viewmats[0, 1, :3]
    matrix = torch.eye(4).to(camera.viewmats)
    matrix[:3, :3] = so3_exp(math.radians(_TURN_DEG) * up)
    matrix[:3, 3] = center.to(matrix) - matrix[:3, :3] @ center.to(matrix)
    return camera.transform(matrix)
