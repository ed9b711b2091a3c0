"""Analytic surfaces: exact depth maps, as if a scene had been rendered, and distances to them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vision3d.geometry.cameras import camera_rays, intrinsics, look_at
from vision3d.render.baking.views import Maps, SceneViews
from vision3d.scene import Cameras, GaussianScene

Distance = Callable[[Tensor], Tensor]


def sphere(points: Tensor) -> Tensor:
    """Signed distance to the unit sphere."""
    return points.norm(dim=-1) - 1


def torus(points: Tensor) -> Tensor:
    """Signed distance to a torus about z of radius 1 with a tube of radius 0.4."""
    around = points[..., :2].norm(dim=-1) - 1
    return (around.square() + points[..., 2].square()).sqrt() - 0.4


def colors(points: Tensor) -> Tensor:
    """Smooth colors by position."""
    return 0.5 + 0.4 * torch.sin(3 * points + torch.tensor([0.0, 1.0, 2.0]))


def cameras_around(count: int, size: int, distance: float = 4.0) -> Cameras:
    """Cameras spread evenly on a sphere, looking at the origin."""
    place = torch.arange(count) + 0.5
    height, turn = 1 - 2 * place / count, place * math.pi * (3 - 5**0.5)
    around = (1 - height.square()).sqrt()
    eyes = distance * torch.stack([around * turn.cos(), around * turn.sin(), height], -1)
    K = intrinsics(1.3 * size, 1.3 * size, size / 2, size / 2)
    return Cameras.from_camtoworlds(look_at(eyes, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])), K, size, size)


def traced(distance: Distance, cameras: Cameras, index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hits of the rays through the pixels of a camera, their positions, and their depths along z (0 for a miss)."""
    width, height = int(cameras.width[index]), int(cameras.height[index])
    pose, K = cameras.camtoworlds[index].double(), cameras.Ks[index].double()
    origins, directions = camera_rays(pose, K, width, height)
    along = torch.zeros(height, width, dtype=torch.float64)
    for _ in range(150):  # sphere tracing: steps by the signed distance never overshoot
        along = (along + distance(origins + along[..., None] * directions)).clamp(max=1e3)
    points = origins + along[..., None] * directions
    is_hit = (distance(points).abs() < 1e-6) & (along < 100)
    return is_hit, points, torch.where(is_hit, along * (directions @ pose[:3, 2]), 0)


@dataclass
class ExactViews(SceneViews):
    """Views of an analytic surface instead of a scene."""

    distance: Distance = sphere

    def _render(self, index: int) -> Maps:
        is_hit, points, depth = traced(self.distance, self.cameras, index)
        near = points.detach().requires_grad_()
        with torch.enable_grad():
            normals = torch.autograd.grad(self.distance(near).sum(), near)[0]
        shown, facing = (torch.where(is_hit[..., None], x, 0).float() for x in (colors(points.float()), normals))
        return Maps(shown, is_hit.float(), depth.float(), facing, torch.zeros_like(depth, dtype=torch.float32))


def exact_views(distance: Distance, cameras: Cameras) -> ExactViews:
    """Views with analytic depths, normals and colors."""
    nothing = GaussianScene.from_points(torch.zeros(4, 3) + torch.arange(4.0)[:, None])
    return ExactViews(nothing, cameras, quantile=None, distance=distance)
