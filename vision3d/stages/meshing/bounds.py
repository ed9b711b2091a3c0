"""Which part of the world becomes a mesh, and cameras round it where none are given."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.errors import InputError
from vision3d.geometry.paths import focus_point
from vision3d.scene import Cameras
from vision3d.stages.meshing.views import SceneViews

logger = logging.getLogger("vision3d.mesh")

_PER_VIEW = 4096
"""Points a view that decide the box."""
_LOST = 0.001
"""Share of the points beyond each side of the box, before the margin."""
_MARGIN = 0.03


@dataclass(frozen=True)
class Box:
    """A box along the axes of the world."""

    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]

    def __str__(self) -> str:
        return " to ".join(" ".join(f"{value:.4g}" for value in corner.tolist()) for corner in (self.low, self.high))

    @property
    def longest(self) -> float:
        """The longest side [m]."""
        return float((self.high - self.low).max())

    def contains(self, points: Float[Tensor, "*n 3"]) -> Tensor:
        """Which points are inside."""
        return ((points >= self.low) & (points <= self.high)).all(-1)


def find_box(views: SceneViews, step: Callable[[int], None]) -> Box:
    """The box of what the views show; where cameras stand round something, only as far as they are from it.

    Raises:
        InputError: No view shows a surface, or all of it is one point or has no extent.
    """
    points = []
    for index in range(len(views)):
        maps = views[index]
        found = views.points(index, maps)[maps.depth > 0]
        points.append(found[:: max(1, len(found) // _PER_VIEW)])
        step(index + 1)
    shown = torch.cat(points)
    if len(shown) < 3:
        raise InputError(
            f"scene: none of the {len(views)} views shows a surface (opacity of at least {views.alpha_min:g}); "
            "want cameras that look at the scene, or a smaller --alpha-min"
        )
    ball = _ball_between(views.cameras)
    if ball is not None:
        center, radius = ball
        is_near = torch.linalg.vector_norm(shown - center, dim=-1) < radius
        # Cameras that look past each other say nothing.
        shown = shown[is_near] if is_near.float().mean() > 0.05 else shown
    ends = shown.double().sort(dim=0).values
    lost = int(_LOST * len(ends))
    low, high = ends[lost].float(), ends[-1 - lost].float()
    margin = _MARGIN * float((high - low).max())
    if not margin > 0:
        place = " ".join(f"{x:.4g}" for x in low.tolist())
        raise InputError(f"scene: all {len(shown)} points of its surface are at {place}; want something with an extent")
    return Box(low - margin, high + margin)


def _ball_between(cameras: Cameras) -> tuple[Tensor, float] | None:
    """What cameras stand round: the point that they look at and their median distance from it; None where they do not."""
    poses = cameras.camtoworlds.cpu()
    if len(poses) < 3:
        return None
    centers, axes = poses[:, :3, 3], poses[:, :3, 2]
    center = focus_point(centers, axes)
    offsets = center - centers
    distances = torch.linalg.vector_norm(offsets, dim=-1)
    is_in_front = (offsets * axes).sum(-1) > 0.5 * distances
    # The mean of the directions is short where cameras are on all sides.
    spread = torch.linalg.vector_norm((offsets / distances.clamp(min=1e-12)[:, None]).mean(0))
    if is_in_front.float().mean() < 0.75 or spread > 0.9:
        return None
    return center, float(distances.median())
