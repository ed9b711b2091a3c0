"""Region of the world to be meshed, and its resolution."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.paths import focus_point
from vision3d.render.baking.views import SceneViews
from vision3d.scene import Cameras

logger = logging.getLogger("vision3d.mesh")

_PER_VIEW = 16_384
"""Points per view that determine the box."""
_LOST = 0.001
"""Fraction of the points beyond each side of the box, before the margin."""
_LOST_TO_BACKGROUND = 0.01
"""The same if those points become the background."""
_MARGIN = 0.03
_CELLS = 64
"""Cells along the longest side in which views are counted."""
_OFTEN = 0.25
"""Minimum fraction of the views that see what extends the box."""
_BEHIND = 0.02
"""Minimum fraction of the surface behind the cameras' sphere for a background."""
_CORE = 0.8
"""Radius of the foreground, in median distances of the cameras."""


@dataclass(frozen=True)
class Box:
    """An axis-aligned box."""

    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]

    def __str__(self) -> str:
        return " to ".join(" ".join(f"{value:.4g}" for value in corner.tolist()) for corner in (self.low, self.high))

    @property
    def longest(self) -> float:
        """The longest side [m]."""
        return float((self.high - self.low).max())

    def contains(self, points: Float[Tensor, "*n 3"]) -> Tensor:
        """Mask of points inside."""
        return ((points >= self.low) & (points <= self.high)).all(-1)


class Extent(NamedTuple):
    """Region of the world to be meshed."""

    box: Box
    """Box meshed with voxels of equal size."""
    center: Float[Tensor, "3"] | None = None
    """Center of the cameras' views, if there is a background behind the box."""


def find_extent(views: SceneViews, background: bool, step: Callable[[int], None]) -> Extent:
    """The box of the visible surface; if cameras are around an object, only of that.

    Args:
        views: Rendered scene.
        background: Report whether there is a background; otherwise the box ends as far from its center as the cameras.
        step: Called with the number of finished views.

    Raises:
        InputError: No view shows a surface, or all of it is one point or has no extent.
    """
    points, certain, sources = [], [], []
    for index in range(len(views)):
        maps = views[index]
        has_surface = maps.depth > 0
        step_of_points = max(1, int(has_surface.sum()) // _PER_VIEW)
        points.append(views.points(index, maps)[has_surface][::step_of_points])
        certain.append(maps.is_certain[has_surface][::step_of_points])
        sources.append(torch.full_like(certain[-1], index, dtype=torch.long))
        step(index + 1)
    shown, is_certain = torch.cat(points), torch.cat(certain)
    if len(shown) < 3:
        raise InputError(
            f"scene: none of the {len(views)} views has a surface (opacity of at least {views.alpha_min:g}); "
            "want cameras that look at the scene, or a smaller --alpha-min"
        )
    ball = _ball_between(views.cameras)
    if ball is not None:
        middle, radius = ball
        distances = torch.linalg.vector_norm(shown - middle, dim=-1)
        is_near = distances < radius
        # Cameras that look past each other give no information.
        if is_near.float().mean() > 0.05:
            is_core = is_certain & (distances < _CORE * radius)
            if background and float((~is_near).float().mean()) > _BEHIND and float(is_core.float().mean()) > 0.05:
                box = _box_of(shown[is_core], _LOST_TO_BACKGROUND)
                return Extent(extended(box, shown[is_core], torch.cat(sources)[is_core], len(views)), middle)
            shown = shown[is_near]
    return Extent(_box_of(shown, _LOST))


def _box_of(shown: Tensor, share: float) -> Box:
    """The box of points except for a few at its ends."""
    ends = shown.double().sort(dim=0).values
    lost = int(share * len(ends))
    low, high = ends[lost].float(), ends[-1 - lost].float()
    margin = _MARGIN * float((high - low).max())
    if not margin > 0:
        place = " ".join(f"{x:.4g}" for x in low.tolist())
        raise InputError(f"scene: all {len(shown)} points of its surface are at {place}; want a scene with an extent")
    return Box(low - margin, high + margin)


def extended(box: Box, shown: Tensor, sources: Tensor, num_views: int) -> Box:
    """Extend the box to what many views see outside it, such as a twig above a table, without making its longest side longer.

    Such parts cover few pixels, so the fraction of points outside does not distinguish them from floaters. The number of views
    with a surface in the same place does.

    Args:
        box: Of most points.
        shown: Points (N, 3).
        sources: View of each point (N,).
        num_views: Number of views.
    """
    cells = ((shown - box.low) / (box.longest / _CELLS)).floor().long()
    _, cell_of = cells.unique(dim=0, return_inverse=True)
    pairs = torch.stack([cell_of, sources], 1).unique(dim=0)
    often = shown[torch.bincount(pairs[:, 0])[cell_of] >= max(_OFTEN * num_views, 2)]
    low, high = box.low.clone(), box.high.clone()
    for axis in range(3):
        # Points outside along another axis are ignored.
        others = [other for other in range(3) if other != axis]
        beside = often[((often >= box.low) & (often <= box.high))[:, others].all(1), axis]
        if not len(beside):
            continue
        below, above = (box.low[axis] - beside.min()).clamp(min=0), (beside.max() - box.high[axis]).clamp(min=0)
        margin = _MARGIN * box.longest
        below, above = (side + margin * (side > 0) for side in (below, above))
        free = box.longest - (box.high - box.low)[axis]
        share = float((free / (below + above).clamp(min=1e-30)).clamp(0, 1))
        low[axis] -= share * below
        high[axis] += share * above
    return Box(low, high)


def _ball_between(cameras: Cameras) -> tuple[Tensor, float] | None:
    """The point that cameras look at and their median distance from it; None if they do not surround a point."""
    poses = cameras.camtoworlds.cpu()
    if len(poses) < 3:
        return None
    centers, axes = poses[:, :3, 3], poses[:, :3, 2]
    center = focus_point(centers, axes)
    offsets = center - centers
    distances = torch.linalg.vector_norm(offsets, dim=-1)
    is_in_front = (offsets * axes).sum(-1) > 0.5 * distances
    # The mean of the directions is short if cameras are on all sides.
    spread = torch.linalg.vector_norm((offsets / distances.clamp(min=1e-12)[:, None]).mean(0))
    if is_in_front.float().mean() < 0.75 or spread > 0.9:
        return None
    return center, float(distances.median())
