"""Depths where a scene is hazy: plane sweeps through the rendered views, with the depth of the Gaussians as prior.

A fit explains flat, evenly lit surfaces by haze with the right colors and wrong depths. Depths on which the views agree are
found as in multi-view stereo: Collins 1996 (plane sweep), with the best half of the neighbors (Kang et al. 2001).
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.cameras import pixel_grid
from vision3d.scene import Cameras

MAX_SIZE = 128
"""Longest side of the compared images [px]."""
_PLANES = 40
_NEIGHBORS = 4
_ANGLES = (8.0, 20.0, 45.0)
"""Minimum, best and maximum angle between the rays of neighbors [degrees]."""
_MOST = 0.1
"""Upper bound of color differences."""
_SOFT = 0.004
"""Cost difference that makes a plane less likely by a factor of e."""
_PRIOR = 0.01
"""Cost of a depth that deviates by the width of the prior; the maximum is ten times that."""
_WIDTHS = (0.5, 0.02)
"""Width of the prior, relative to the spread and to the depth; they are added."""


class Sweep(NamedTuple):
    """Result of a plane sweep in one view."""

    depth: Float[Tensor, "h w"]
    """[m]."""
    spread: Float[Tensor, "h w"]
    """Standard deviation of the depth [m]."""


def neighbors(cameras: Cameras, focus: Float[Tensor, "3"]) -> list[list[int]]:
    """For each camera, the others that see the focus from a slightly different direction."""
    rays = torch.nn.functional.normalize(cameras.centers.double().cpu() - focus.double().cpu(), dim=-1)
    angles = torch.rad2deg((rays @ rays.T).clamp(-1, 1).acos())
    low, best, high = _ANGLES
    misfit = (angles.clamp(min=1e-3) / best).log().abs()
    misfit[(angles < low) | (angles > high)] = math.inf
    order = misfit.argsort(-1)[:, :_NEIGHBORS]
    return [[j for j in row.tolist() if math.isfinite(misfit[i, j])] for i, row in enumerate(order)]


def sweep(
    image: Float[Tensor, "h w 3"],
    camera: Cameras,
    others: list[Tensor],
    other_cameras: Cameras,
    depth: Float[Tensor, "h w"],
    spread: Float[Tensor, "h w"],
) -> Sweep:
    """Depths at which the images agree, near the prior.

    Args:
        image: The view.
        camera: Its camera, of the size of the image.
        others: Neighboring views, each (H, W, 3).
        other_cameras: Their cameras.
        depth: Prior; 0 where unknown.
        spread: Its uncertainty [m].
    """
    height, width = depth.shape
    has_prior = depth > 0
    known = depth[has_prior]
    near, far = float(known.quantile(0.005)) / 1.15, float(known.quantile(0.995)) * 1.3
    planes = torch.linspace(1 / far, 1 / near, _PLANES)
    K, viewmat = camera.Ks[0].double().cpu(), camera.viewmats[0].double().cpu()
    pixels = torch.nn.functional.pad(pixel_grid(width, height, torch.float64), (0, 1), value=1.0).flatten(0, 1)
    costs = []
    for k, other in enumerate(others):
        to_other = other_cameras.viewmats[k].double().cpu() @ torch.linalg.inv(viewmat)
        target = other_cameras.Ks[k].double().cpu()
        base = pixels @ (target @ to_other[:3, :3] @ torch.linalg.inv(K)).T
        places = (base + planes.double()[:, None, None] * (target @ to_other[:3, 3])).float()
        at = places[..., :2] / places[..., 2:].clamp(min=1e-6)
        rows, columns = other.shape[:2]
        grid = 2 * at / at.new_tensor([columns, rows]) - 1
        found = torch.nn.functional.grid_sample(
            other.permute(2, 0, 1)[None], grid[None], align_corners=False, padding_mode="border"
        )[0].view(3, _PLANES, height, width)
        cost = (found - image.permute(2, 0, 1)[:, None]).abs().mean(0).clamp(max=_MOST)
        is_out = ((grid.abs() > 1).any(-1) | (places[..., 2] <= 0)).view(_PLANES, height, width)
        costs.append(cost.masked_fill_(is_out, _MOST))
    cost = torch.stack(costs)
    # Occlusions affect some views; the better half is used.
    cost = cost.sort(0).values[: (len(others) + 1) // 2].mean(0)
    cost = sum(torch.nn.functional.avg_pool2d(cost[None], 2 * r + 1, 1, r, count_include_pad=False)[0] for r in (1, 3)) / 2
    safe = depth.clamp(min=1e-6)
    prior_width = (_WIDTHS[0] * spread + _WIDTHS[1] * depth) / safe.square()
    off = (planes[:, None, None] - 1 / safe) / prior_width.clamp(min=1e-9)
    cost = cost + _PRIOR * torch.where(has_prior, off.square().clamp(max=10), 0)
    shares = torch.softmax(-cost / _SOFT, 0)
    mean = (shares * planes[:, None, None]).sum(0)
    deviation = ((shares * planes[:, None, None].square()).sum(0) - mean.square()).clamp(min=0).sqrt()
    return Sweep(1 / mean, deviation / mean.square())
