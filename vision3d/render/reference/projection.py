"""Projection of Gaussians to the image plane (EWA splatting) and their colors, in plain torch.

Equations: Zwicker et al. 2002; Kerbl et al. 2023, eq. 5; compensation of the low-pass filter: Yu et al. 2024.
Every function first determines, without gradients, which Gaussians a camera sees and then computes only those, so that
invisible and non-finite Gaussians get a gradient of exactly zero.
"""

import math
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vision3d.geometry.reference.quaternion import quat_to_rotmat
from vision3d.geometry.spherical_harmonics import sh_basis
from vision3d.render.splats.kernels import of_visible
from vision3d.render.splats.records import Camera, Gaussians, Projected, Visible

PairIds = tuple[Tensor, Tensor, Tensor]  # batch, camera, Gaussian

ALPHA_MIN = 1.0 / 255.0
MAX_EXTENT = 3.33  # standard deviations: sqrt(2 ln 255), where opacity 1 falls below ALPHA_MIN
MIN_COMPENSATION = 0.005
MAX_RADIUS = 1e9  # pixels; larger radii are clamped, so that they fit an int32


def project(
    gaussians: Gaussians, camera: Camera, *, eps2d: float, antialiased: bool = False, packed: bool = False
) -> tuple[Visible, Projected]:
    """As `Kernels.project`."""
    means, quats, scales, covars, opacities = gaussians
    viewmats, Ks, width, height = camera.viewmats, camera.Ks.detach(), camera.width, camera.height
    shape = (viewmats.shape[0], viewmats.shape[1], means.shape[1])

    def screen(pairs: PairIds) -> tuple[Tensor, ...]:
        batch, view_id, gaussian = pairs
        if covars is not None:
            covar = covars[batch, gaussian][:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(-1, (3, 3))
        else:
            axes = quat_to_rotmat(cast(Tensor, quats)[batch, gaussian]) * cast(Tensor, scales)[batch, gaussian][:, None]
            covar = axes @ axes.mT
        view = viewmats[batch, view_id]
        rotmat = view[:, :3, :3]
        point = (rotmat @ means[batch, gaussian][..., None])[..., 0] + view[:, :3, 3]
        mean2d, jacobian = _CAMERAS[camera.model](point, Ks[batch, view_id], width, height)
        half = jacobian @ rotmat
        sharp = half @ covar @ half.mT
        s11, s12, s22 = sharp[:, 0, 0] + eps2d, sharp[:, 0, 1], sharp[:, 1, 1] + eps2d
        det = s11 * s22 - s12 * s12
        conic = torch.stack([s22, -s12, s11], -1) / det[:, None]
        det_sharp = sharp[:, 0, 0] * sharp[:, 1, 1] - s12 * s12
        compensation = (det_sharp / det).clamp(min=MIN_COMPENSATION**2).sqrt()
        return mean2d, point[:, 2], conic, compensation, s11, s22, det

    with torch.no_grad():
        pairs = all_pairs(shape, means.device)
        mean2d, depth, conic, compensation, s11, s22, det = screen(pairs)
        if opacities is None:
            extent = torch.full_like(depth, MAX_EXTENT)
        else:
            opacity = opacities[pairs[0], pairs[2]] * (compensation if antialiased else 1)
            extent = cut_extent(opacity)
        radii = torch.ceil(extent[:, None] * torch.stack([s11, s22], -1).sqrt())
        # Every condition is false for NaN.
        seen = (depth >= camera.near_plane) & (depth <= camera.far_plane) & (det > 0) & conic.isfinite().all(-1)
        radii = visible_radii(seen, mean2d, radii, camera)
    pairs = seen_pairs(pairs, radii)
    mean2d, depth, conic, compensation = (scatter_pairs(value, pairs, shape) for value in screen(pairs)[:4])
    return of_visible(Projected(radii.view(*shape, 2), mean2d, depth, conic, compensation), packed)


def sh_colors(
    means: Float[Tensor, "b n 3"],
    sh: Float[Tensor, "b n k 3"] | Float[Tensor, "b c n k 3"],
    viewmats: Float[Tensor, "b c 4 4"],
    batch_ids: Int[Tensor, " nnz"],
    camera_ids: Int[Tensor, " nnz"],
    gaussian_ids: Int[Tensor, " nnz"],
    degree: int,
) -> Float[Tensor, "nnz 3"]:
    """As `Kernels.sh_colors`."""
    pairs = (batch_ids, gaussian_ids) if sh.dim() == 4 else (batch_ids, camera_ids, gaussian_ids)
    centers = -(viewmats[..., :3, :3].mT @ viewmats[..., :3, 3:])[..., 0]
    offsets = means[batch_ids, gaussian_ids] - centers[batch_ids, camera_ids]
    weights = sh_basis(offsets, degree)
    colors = (weights[..., None] * sh[..., : weights.shape[-1], :][pairs]).sum(-2)
    return (colors + 0.5).clamp(min=0)


def all_pairs(shape: tuple[int, int, int], device: torch.device) -> PairIds:
    """Indices (batch, camera, Gaussian) of every pair, in that order."""
    flat = torch.arange(math.prod(shape), device=device)
    return flat // (shape[1] * shape[2]), flat // max(shape[2], 1) % shape[1], flat % max(shape[2], 1)


def seen_pairs(pairs: PairIds, radii: Int[Tensor, "nnz 2"]) -> PairIds:
    """The pairs whose radii are not zero."""
    seen = radii[:, 0] > 0
    return pairs[0][seen], pairs[1][seen], pairs[2][seen]


def scatter_pairs(values: Tensor, pairs: PairIds, shape: tuple[int, int, int]) -> Tensor:
    """Scatter values of the visible pairs into zeros."""
    return values.new_zeros((*shape, *values.shape[1:])).index_put(pairs, values)


def cut_extent(opacity: Tensor) -> Tensor:
    """Standard deviations at which opacity * exp(-q) falls below 1/255; NaN if it never reaches it."""
    extent = (2 * torch.log(opacity / ALPHA_MIN)).sqrt().clamp(max=MAX_EXTENT)
    return torch.where((opacity >= ALPHA_MIN) & opacity.isfinite(), extent, torch.nan)


def visible_radii(seen: Tensor, mean2d: Tensor, radii: Tensor, camera: Camera) -> Int[Tensor, "nnz 2"]:
    """Integer radii, zero unless `seen` and the box around the mean is finite, large enough and intersects the image."""
    size = mean2d.new_tensor([camera.width, camera.height])
    seen = seen & mean2d.isfinite().all(-1) & radii.isfinite().all(-1)
    seen = seen & (radii > camera.radius_clip).any(-1)
    seen = seen & ((mean2d + radii > 0) & (mean2d - radii < size)).all(-1)
    return torch.where(seen[:, None], radii.clamp(1, MAX_RADIUS), 0).int()


def _pinhole(point: Tensor, K: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    x, y, z = point.unbind(-1)
    fx, fy, cx, cy = K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]
    u, v = x / z, y / z
    # The Jacobian is evaluated at most 15 % of the image's size outside it; clamped values pass no gradient.
    clamped_u = torch.clamp(u, -(cx + 0.15 * width) / fx, (1.15 * width - cx) / fx)
    clamped_v = torch.clamp(v, -(cy + 0.15 * height) / fy, (1.15 * height - cy) / fy)
    zero = torch.zeros_like(z)
    rows = [fx / z, zero, -fx * clamped_u / z, zero, fy / z, -fy * clamped_v / z]
    return torch.stack([fx * u + cx, fy * v + cy], -1), torch.stack(rows, -1).unflatten(-1, (2, 3))


def _ortho(point: Tensor, K: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1)
    center = torch.stack([K[:, 0, 2], K[:, 1, 2]], -1)
    jacobian = torch.nn.functional.pad(torch.diag_embed(focal), (0, 1))
    return focal * point[:, :2] + center, jacobian


def _fisheye(point: Tensor, K: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Equidistant: the distance from the principal point is f times the angle to the axis."""
    xy, z = point[:, :2], point[:, 2]
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1)
    center = torch.stack([K[:, 0, 2], K[:, 1, 2]], -1)
    square = (xy * xy).sum(-1)
    near = square < 0.01 * z * z
    # s = angle / r and h = (ds/dr) / r; near the axis both are 0 / 0 and are computed from the series of atan.
    t2 = torch.where(near, square / (z * z), 0)
    series_s = sum((-1) ** i / (2 * i + 1) * t2**i for i in range(9)) / z
    series_h = sum((-1) ** (i + 1) * (2 * i + 2) / (2 * i + 3) * t2**i for i in range(9)) / z**3
    far_square = torch.where(near, 1, square)
    radius = far_square.sqrt()
    angle_s = torch.atan2(radius, z) / radius
    angle_h = (z / (far_square + z * z) - angle_s) / far_square
    s, h = torch.where(near, series_s, angle_s), torch.where(near, series_h, angle_h)
    left = torch.diag_embed(s[:, None].expand(-1, 2)) + h[:, None, None] * xy[:, :, None] * xy[:, None]
    right = -xy / (square + z * z)[:, None]
    return focal * s[:, None] * xy + center, focal[:, :, None] * torch.cat([left, right[..., None]], -1)


_CAMERAS = {"pinhole": _pinhole, "ortho": _ortho, "fisheye": _fisheye}
