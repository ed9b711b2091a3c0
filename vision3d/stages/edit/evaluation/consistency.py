"""Consistency between views: how different one point of a surface looks from two cameras."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.cameras import pixel_grid, project, unproject
from vision3d.geometry.se3 import transform_points
from vision3d.render.views import View
from vision3d.scene.cameras import Cameras
from vision3d.scene.lab import delta_e, srgb_to_lab

_SOLID = 0.99
"""Opacity from which a pixel shows a surface."""
_TOLERANCE = 0.01
"""Difference of depths up to which two cameras see one point [extent of the object]."""


@dataclass(frozen=True)
class Inconsistency:
    """Differences of the colors of points that two views see."""

    delta_e: float
    """Mean dE2000; NaN if no point is seen twice."""
    points: int
    """Number of comparisons."""


def inconsistency(views: Sequence[View], cameras: Cameras, extent: float, distance: int = 1) -> Inconsistency:
    """Compare each view with the one `distance` further on the path, which is closed, and back.

    The points at which the pixels of a view see a surface, by its depth, are projected to the other view. Those that this one
    sees, too, are compared: all four pixels around are opaque, and as deep as the point. The color there is bilinear.

    Args:
        views: Images with depth (render mode RGB+ED).
        cameras: Their pinholes.
        extent: Diagonal of the object's box [m].
        distance: Of the compared views.

    Raises:
        InputError: There are fewer than two views, or one has no depth.
    """
    if len(views) < 2 or len(views) != len(cameras):
        raise InputError(f"views: got {len(views)} of {len(cameras)} cameras, want as many, at least 2")
    if any(view.depth is None or view.image is None for view in views):
        raise InputError("views: one has no depth or no colors, want the render mode RGB+ED")
    found = []
    for first in range(len(views)):
        second = (first + distance) % len(views)
        found += [_differences(views, cameras, pair, extent) for pair in ((first, second), (second, first))]
    every = torch.cat(found)
    return Inconsistency(float(every.mean()), len(every))


def _differences(views: Sequence[View], cameras: Cameras, pair: tuple[int, int], extent: float) -> Float[Tensor, " n"]:
    """dE2000 of the points of the first view that the second sees, too."""
    (first, second), (index, other) = (views[i] for i in pair), pair
    assert first.image is not None and first.depth is not None and second.image is not None and second.depth is not None
    height, width = first.alpha.shape
    pixels = pixel_grid(width, height, torch.float64)
    shows = _even(first.alpha, first.depth, extent)
    seen = unproject(pixels[shows][None], first.depth[shows][None].double(), cameras.Ks[index][None].double())[0]
    world = transform_points(torch.linalg.inv(cameras.viewmats[index].double()), seen)
    points = transform_points(cameras.viewmats[other].double(), world)
    height, width = second.alpha.shape
    places = project(points[None], cameras.Ks[other][None].double())[0]
    size = places.new_tensor([width, height])
    inside = (points[:, 2] > 0) & ((places >= 0.5) & (places <= size - 0.5)).all(1)
    own, places, depths = first.image[shows][inside], places[inside], points[inside, 2]
    corner = (places - 0.5).floor().long().minimum(size.long() - 2)
    rows, columns = corner[:, 1, None] + torch.tensor([0, 0, 1, 1]), corner[:, 0, None] + torch.tensor([0, 1, 0, 1])
    near = (second.depth[rows, columns] - depths[:, None]).abs() <= _TOLERANCE * extent
    common = (near & (second.alpha[rows, columns] >= _SOLID)).all(1)
    share = (places - 0.5 - corner)[common].float()
    across, down = share.unbind(1)
    weights = torch.stack([(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down], 1)
    colors = (weights[..., None] * second.image[rows[common], columns[common]]).sum(1)
    return delta_e(srgb_to_lab(own[common].clamp(0, 1)), srgb_to_lab(colors.clamp(0, 1)))


def _even(alpha: Tensor, depth: Tensor, extent: float) -> Bool[Tensor, "h w"]:
    """Opaque pixels of which no neighbor is at another depth: those at silhouettes mix two surfaces."""
    solid = alpha >= _SOLID
    padded = torch.nn.functional.pad(depth[None, None], (1, 1, 1, 1), mode="replicate")
    high = torch.nn.functional.max_pool2d(padded, 3, 1)[0, 0]
    low = -torch.nn.functional.max_pool2d(-padded, 3, 1)[0, 0]
    return solid & (high - low <= 4 * _TOLERANCE * extent)
