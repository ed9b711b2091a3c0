"""The normalized world of a fit: cameras around the origin, scene extent 1."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.render import blending_weights
from vision3d.scene import Cameras, GaussianScene
from vision3d.scene.gaussians import FLAT_LOG_SCALE

UNSEEN = 0.1  # pixels, summed over all training images
THINNEST = 1e-5  # in extents; at a distance of one extent a hundredth of a pixel where the focal length is 1000 px
MARGIN = 1.1  # the extent is this many times the largest distance of a camera from the mean camera


@dataclass(frozen=True)
class World:
    """x_fit = (x - center) / extent, so that learning rates, noise and near plane suit scenes of any size and position."""

    center: Float[Tensor, " 3"]
    """Mean position of the training cameras [m]."""
    extent: float
    """1.1 times the largest distance of a training camera from it [m] (Kerbl et al. 2023)."""

    @classmethod
    def around(cls, cameras: Cameras) -> "World":
        """The world of these training cameras.

        Raises:
            InputError: All cameras are at one position.
        """
        centers = cameras.centers.detach().double()
        center = centers.mean(0)
        extent = MARGIN * float(torch.linalg.vector_norm(centers - center, dim=-1).max())
        if extent <= 1e-9 * float(centers.abs().max().clamp(min=1e-300)):
            raise InputError("all training cameras are at one position, which gives no depth; want different positions")
        return cls(center.cpu(), extent)

    def cameras_in(self, cameras: Cameras) -> Cameras:
        """The cameras in the world of the fit: R x + t = extent (R x_fit + t_fit)."""
        viewmats = cameras.viewmats.double()
        shift = (viewmats[:, :3, :3] @ self.center.to(viewmats.device))[:, :, None]
        return _with_shifts(cameras, (viewmats[:, :3, 3:] + shift) / self.extent)

    def points_in(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Points in the world of the fit."""
        return ((points.double() - self.center.to(points.device)) / self.extent).to(points)

    def cameras_out(self, cameras: Cameras) -> Cameras:
        """Convert cameras from the world of the fit to the source's world."""
        viewmats = cameras.viewmats.double()
        shift = (viewmats[:, :3, :3] @ self.center.to(viewmats.device))[:, :, None]
        return _with_shifts(cameras, viewmats[:, :3, 3:] * self.extent - shift)

    def scene_in(self, scene: GaussianScene) -> GaussianScene:
        """Convert a scene from the source's world to the world of the fit; the inverse of `scene_out`."""
        means = (scene.means.double() - self.center.to(scene.device)) / self.extent
        return replace(scene, means=means.to(scene.means), log_scales=scene.log_scales - math.log(self.extent))

    def scene_out(self, scene: GaussianScene) -> GaussianScene:
        """Convert a scene from the world of the fit to the source's world: without rotation, so colors do not change."""
        means = scene.means.double() * self.extent + self.center.to(scene.device)
        log_scales = scene.log_scales + math.log(self.extent)
        if scene.mode != "3dgs":
            log_scales[:, 2] = FLAT_LOG_SCALE
        return replace(scene, means=means.to(scene.means), log_scales=log_scales)


def tidied(scene: GaussianScene, cameras: Cameras | None, extent: float, alpha_max: float = 0.99) -> GaussianScene:
    """Clean up a scene for other programs, without visible changes.

    Gaussians that contribute less than `UNSEEN` to the training images are removed: noise moves some of them kilometers away or
    behind all cameras, where no image constrains them. Ellipsoids get axes of at least `THINNEST` extents: regularizers
    shrink some to 1e-10 m, beyond the range of compressed formats.

    Args:
        scene: Result of a fit, in the world of the photos.
        cameras: The training cameras; None keeps Gaussians that they do not see.
        extent: Extent of that world [m].
        alpha_max: Largest alpha of one Gaussian.
    """
    if cameras is not None:
        seen = blending_weights(scene, cameras.to(scene.device), alpha_max=alpha_max) > UNSEEN
        if not bool(seen.all()) and bool(seen.any()):
            scene = scene[seen]
    if scene.mode != "3dgs":
        return scene
    return replace(scene, log_scales=scene.log_scales.clamp(min=math.log(THINNEST * extent)))


def _with_shifts(cameras: Cameras, shifts: Float[Tensor, "c 3 1"]) -> Cameras:
    viewmats = cameras.viewmats.clone()
    viewmats[:, :3, 3:] = shifts.to(viewmats)
    return replace(cameras, viewmats=viewmats)
