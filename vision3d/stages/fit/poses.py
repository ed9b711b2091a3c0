"""Corrections of the camera poses: rigid motions in coordinates in which all directions move the image equally far."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry import registration, se3
from vision3d.optim import schedules
from vision3d.scene import Cameras, GaussianScene
from vision3d.scene.gaussians import FLAT_LOG_SCALE
from vision3d.stages.fit.rows import ViewParameters

BETAS = (0.5, 0.9)  # a view has few steps: 17 in a run of 800 steps with 48 views
MIN_UPDATES = 16  # of a view; in shorter runs, steps that sum up to the reach would be too long for Adam to settle
DAMPING = 0.03  # a direction that the image does not show is at most 1 / sqrt(this) longer than an independent one
WARMUP = 0.35  # fraction of training at the peak: before it, images are small and the Gaussians are not yet in place
ARM = 0.3  # length of the axes of cameras that are aligned [extents of the cameras]
MAX_POINTS = 20_000  # enough for the 21 numbers of H; all of a scene of a million would take minutes
NEAREST = 0.01  # depth of points [scene extents]


class PoseParameters(ViewParameters):
    """Rigid motion exp(B x) of each training camera, in its own axes, with its own Adam.

    Turning a camera and moving it sideways shift the image alike, so the gradients of a twist are strongly correlated, and
    Adam's steps, of equal length in its coordinates, leave the difference of the two uncorrected. B = (H + damping)^-1/2, with
    H the mean of J^T J over points of the scene and J their motion in the image: a unit of x moves the image by about one focal
    length in every direction (preconditioned cameras, Park et al. 2023).

    Args:
        cameras: The training cameras in the world of the fit.
        points: Points of the scene at step 0.
        weight: Weight of the squared corrections.
    """

    def __init__(self, cameras: Cameras, points: Float[Tensor, "n 3"], weight: float) -> None:
        super().__init__(torch.zeros(len(cameras), 6, device=points.device), weight, BETAS)
        some = points.detach()[:: max(1, len(points) // MAX_POINTS)].cpu().double()
        self.bases = torch.stack([_basis(camera, some) for camera in cameras.to("cpu")]).to(points)

    def motion(self, place: int, leaf: Float[Tensor, " 6"]) -> Float[Tensor, "4 4"]:
        """The correction of a view, to be multiplied to its view matrix from the left."""
        return se3.exp(self.bases[place] @ leaf)

    def motions(self) -> Float[Tensor, "c 4 4"]:
        """The corrections of all views."""
        return se3.exp((self.bases @ self.values[..., None])[..., 0])

    def state_dict(self) -> dict[str, Tensor]:
        """State needed for exact resume."""
        return {**super().state_dict(), "bases": self.bases.clone()}


def learning_rate(reach: float, step: int, progress: float, places: Sequence[int], num_views: int) -> float:
    """Learning rate of the poses at a step: over the run, those of the steps of a view sum up to `reach`.

    Args:
        reach: Sum over a run with at least `MIN_UPDATES` steps of each view; proportionally less in shorter ones.
        step: Steps before this one.
        progress: Progress in [0, 1], from which the number of steps of the run follows.
        places: The views of the batch.
        num_views: Number of training views.
    """
    if progress <= 0:
        return 0.0
    updates = max(MIN_UPDATES, step / progress * len(places) / num_views)
    return 2 * reach / updates * schedules.one_cycle(1.0, progress, WARMUP)  # the mean of a cycle is close to 1/2


def world_drift(corrected: Cameras, given: Cameras, extent: float) -> Float[Tensor, "4 4"]:
    """The similarity that moves corrected cameras onto the given ones as a whole, to be applied to the scene as well.

    The images do not determine where the cameras and the Gaussians are together, so their world drifts; held-out cameras stay.
    Distances of centers and of the ends of axes are minimized, not their squares, so single wrong poses have little influence.

    Args:
        corrected: Cameras with corrected poses.
        given: The same cameras as given.
        extent: Size of their world, for the length of the axes [m].
    """
    target, scale = _corners(given, ARM * extent), torch.ones(())
    weights = torch.ones_like(target[..., 0])
    for _ in range(20):  # iteratively reweighted least squares
        source = _corners(corrected, ARM * extent / float(scale))
        scale, rotmat, shift = registration.umeyama(source.flatten(0, 1), target.flatten(0, 1), weights.flatten())
        moved = scale * source @ rotmat.mT + shift
        distances = (moved - target).square().sum(-1).mean(-1, keepdim=True).sqrt()
        weights = (1 / distances.clamp(min=max(0.1 * float(distances.median()), 1e-12))).expand_as(weights)
    return se3.similarity(scale, rotmat, shift)


def without_drift(scene: GaussianScene, drift: Float[Tensor, "4 4"]) -> GaussianScene:
    """The scene moved by `world_drift`."""
    scene = scene.transform(drift.to(scene.means))
    if scene.mode != "3dgs":
        scene.log_scales[:, 2] = FLAT_LOG_SCALE  # a scale must not change it
    return scene


def _corners(cameras: Cameras, length: float) -> Float[Tensor, "c 4 3"]:
    """Centers of cameras and the ends of their axes."""
    poses = cameras.camtoworlds.detach().double()
    ends = torch.cat([torch.zeros(3, 1), length * torch.eye(3)], 1).to(poses)
    return (poses[:, :3, :3] @ ends + poses[:, :3, 3:]).mT


def _basis(camera: Cameras, points: Float[Tensor, "n 3"]) -> Float[Tensor, "6 6"]:
    """B of one camera; the identity if it sees none of the points."""
    x, y, z = se3.transform_points(camera.viewmats.double(), points[None])[0].T
    u, v = x / z, y / z
    K = camera.Ks[0].double()
    columns, rows = K[0, 0] * u + K[0, 2], K[1, 1] * v + K[1, 2]
    seen = (z > NEAREST) & (columns > 0) & (columns < camera.width) & (rows > 0) & (rows < camera.height)
    if not bool(seen.any()):
        return torch.eye(6, dtype=points.dtype)
    u, v, z = u[seen], v[seen], z[seen]
    zero, near = torch.zeros_like(z), 1 / z
    along_u = torch.stack([near, zero, -u * near, -u * v, 1 + u * u, -v], -1)
    along_v = torch.stack([zero, near, -v * near, -1 - v * v, u * v, u], -1)
    jacobians = torch.stack([along_u, along_v], -2)  # of (u, v) with respect to the twist (rho, phi)
    product = (jacobians.mT @ jacobians).mean(0)
    scale = product.diagonal().clamp(min=1e-12).rsqrt()
    correlation = scale[:, None] * product * scale + DAMPING * torch.eye(6).to(scale)
    values, vectors = torch.linalg.eigh(correlation)
    return scale[:, None] * ((vectors * values.rsqrt()) @ vectors.mT)
