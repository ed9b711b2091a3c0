"""Rasterizes points and lines with a depth test."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.scene import Cameras
from vision3d.viewer.models import Dots, Lines

_NEAR = 0.01
_MAX_STEPS = 4096  # maximum pixels along one segment


def draw_dots(
    image: Float[Tensor, "h w 3"], depth: Float[Tensor, "h w"], dots: Dots, camera: Cameras, share: float = 1.0
) -> None:
    """Draws points as squares into an image and its depth map where they are nearer.

    Args:
        image: Changed in place.
        depth: Along z [m], infinite if empty; changed in place.
        dots: The points.
        camera: A pinhole camera of the image's size.
        share: Fraction of the points to draw.
    """
    count = max(1, round(share * len(dots))) if len(dots) else 0
    viewmat, K = camera.viewmats[0], camera.Ks[0]
    seen = dots.points[:count] @ viewmat[:3, :3].mT + viewmat[:3, 3]
    height, width = depth.shape
    z = seen[:, 2]
    x = K[0, 0] * seen[:, 0] / z + K[0, 2]
    y = K[1, 1] * seen[:, 1] / z + K[1, 2]
    inside = ((z > _NEAR) & (x > -8) & (x < width + 8) & (y > -8) & (y < height + 8)).nonzero()[:, 0]
    side = max(1, round(dots.size * height / 720))
    x, y, z, colors = x[inside], y[inside], z[inside], dots.colors[inside]
    column, row = ((value - (side - 1) / 2).floor().long() for value in (x, y))
    offsets = torch.arange(side)
    columns = (column[:, None, None] + offsets[None, None]).expand(-1, side, -1).flatten()
    rows = (row[:, None, None] + offsets[None, :, None]).expand(-1, -1, side).flatten()
    _put(image, depth, columns, rows, z.repeat_interleave(side * side), colors, side * side)


def draw_lines(image: Float[Tensor, "h w 3"], depth: Float[Tensor, "h w"], lines: Lines, camera: Cameras) -> None:
    """Draws segments, two pixels wide in an image 720 pixels high, where they are nearer.

    Args:
        image: Changed in place.
        depth: Along z [m], infinite if empty; changed in place.
        lines: The segments.
        camera: A pinhole camera of the image's size.
    """
    # In float64, as the end points may be far outside the image.
    viewmat, K = camera.viewmats[0].double(), camera.Ks[0].double()
    height, width = depth.shape
    a = lines.starts.double() @ viewmat[:3, :3].mT + viewmat[:3, 3]
    b = lines.ends.double() @ viewmat[:3, :3].mT + viewmat[:3, 3]
    kept = (torch.maximum(a[:, 2], b[:, 2]) > _NEAR).nonzero()[:, 0]
    a, b, colors = a[kept], b[kept], lines.colors[kept]
    a, b = _before_near(a, b), _before_near(b, a)
    start, end = (K[:2, :2].diagonal() * point[:, :2] / point[:, 2:] + K[:2, 2] for point in (a, b))
    first, last = _clipped(start, end, width, height)
    shown = (last > first).nonzero()[:, 0]
    start, end, first, last, colors = start[shown], end[shown], first[shown], last[shown], colors[shown]
    inverse = torch.stack([1 / a[shown, 2], 1 / b[shown, 2]], -1)
    length = ((end - start).abs().amax(-1) * (last - first)).ceil().long().clamp(1, _MAX_STEPS) + 1
    segment = torch.arange(len(length)).repeat_interleave(length)
    step = torch.arange(len(segment)) - (length.cumsum(0) - length)[segment]
    t = torch.lerp(first[segment], last[segment], step / (length[segment] - 1).double())
    place = torch.lerp(start[segment], end[segment], t[:, None])
    z = (1 / torch.lerp(inverse[segment, 0], inverse[segment, 1], t)).float()  # 1 / z is linear in image space
    side = max(1, round(2 * height / 720))
    column, row = ((place[:, i] - (side - 1) / 2).floor().long() for i in (0, 1))
    offsets = torch.arange(side)
    columns = (column[:, None, None] + offsets[None, None]).expand(-1, side, -1).flatten()
    rows = (row[:, None, None] + offsets[None, :, None]).expand(-1, -1, side).flatten()
    # Slightly nearer, so that edges on a surface are fully visible.
    _put(image, depth, columns, rows, (0.998 * z).repeat_interleave(side * side), colors[segment], side * side)


def _before_near(ends: Tensor, others: Tensor) -> Tensor:
    """The end points, with those behind the near plane moved onto it along the segment."""
    is_behind = ends[:, 2:] < _NEAR
    share = (_NEAR - ends[:, 2:]) / torch.where(is_behind, others[:, 2:] - ends[:, 2:], 1)
    return torch.where(is_behind, ends + (others - ends) * share, ends)


def _put(
    image: Tensor, depth: Tensor, columns: Int64[Tensor, " m"], rows: Int64[Tensor, " m"], z: Tensor, colors: Tensor, each: int
) -> None:
    """Colors the pixels where the depth is smaller; of several, the nearest one, of equal ones, the first."""
    height, width = depth.shape
    inside = ((columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)).nonzero()[:, 0]
    pixels, z = (rows * width + columns)[inside], z[inside]
    flat = depth.view(-1)
    nearer = z < flat[pixels]
    pixels, z, inside = pixels[nearer], z[nearer], inside[nearer]
    # Positive floats are ordered like their bits as integers; the index in the low bits breaks ties.
    keys = (z.view(torch.int32).long() << 32) | torch.arange(len(z))
    best = torch.full((height * width,), torch.iinfo(torch.int64).max)
    best.scatter_reduce_(0, pixels, keys, "amin")
    winner = keys == best[pixels]
    pixels, z, inside = pixels[winner], z[winner], inside[winner]
    flat[pixels] = z
    image.view(-1, 3)[pixels] = colors[inside // each]


def _clipped(start: Tensor, end: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Start and end of each segment inside the image, as fractions of its length (Liang and Barsky 1984)."""
    step = end - start
    limits = start.new_tensor([width, height])
    p = torch.cat([-step, step], -1)
    q = torch.cat([start + 1, limits + 1 - start], -1)
    ratio = q / torch.where(p == 0, 1, p)
    first = torch.where(p < 0, ratio, 0).amax(-1).clamp(min=0)
    last = torch.where(p > 0, ratio, 1).amin(-1).clamp(max=1)
    is_outside = ((p == 0) & (q < 0)).any(-1)
    return first, torch.where(is_outside, first, last)
