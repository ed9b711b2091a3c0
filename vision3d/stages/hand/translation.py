"""Position of a hand in the camera's space from its root-relative shape and its 2D joints."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.geometry.cameras import pixels_to_plane
from vision3d.stages.hand.intrinsics import check_intrinsics

_STEPS = 2


def translation(
    points: Float[Tensor, "*batch p 3"],
    pixels: Float[Tensor, "*batch p 2"],
    Ks: Float[Tensor, "*batch 3 3"],
    weights: Float[Tensor, "*batch p"] | None = None,
    steps: int = _STEPS,
) -> Float[Tensor, "*batch 3"]:
    """The translation t with which points X + t are seen at pixels.

    First the smallest sum of w |(X + t) x r|^2 with r = K^-1 (u, v, 1), a linear system; then Gauss-Newton steps on the sum of
    w |project(K, X + t) - (u, v)|^2. Batched and differentiable, in float64 inside. As the size of the points comes from the
    network, an error of 10 % in the hand's size is an error of 10 % in its distance.

    Args:
        points: Root-relative points X [m].
        pixels: Where they are seen.
        Ks: Intrinsics [pixels]; the last row is (0, 0, 1).
        weights: Non-negative; equal when None.
        steps: Gauss-Newton steps.

    Returns:
        t [m]; NaN if an argument is NaN, or if the points with weight do not determine it (fewer than two different pixels, or
        all points at one place).

    Raises:
        InputError: The intrinsics are singular.
        ShapeError: The shapes do not match.
    """
    if points.shape[:-1] != pixels.shape[:-1] or points.shape[-1:] != (3,) or pixels.shape[-1:] != (2,):
        raise ShapeError("pixels", pixels.shape, f"(..., P, 2) for points {tuple(points.shape)}")
    check_intrinsics(Ks)
    dtype, X = points.dtype, points.double()
    uv, K = pixels.double(), Ks.double()
    w = torch.ones_like(uv[..., 0]) if weights is None else weights.double()
    if w.shape != uv.shape[:-1]:
        raise ShapeError("weights", w.shape, f"{tuple(uv.shape[:-1])}, one for each point")
    w = w / w.sum(-1, keepdim=True)
    plane = pixels_to_plane(uv, K)
    rays = torch.cat([plane, torch.ones_like(plane[..., :1])], -1)
    # hat(r)^T hat(r) = |r|^2 I - r r^T
    eye = torch.eye(3, dtype=X.dtype, device=X.device)
    normal = rays.square().sum(-1)[..., None, None] * eye - rays[..., :, None] * rays[..., None, :]
    normal = w[..., None, None] * normal
    t = _solve3(normal.sum(-3), -(normal @ X[..., None]).sum(-3)[..., 0])
    lens = K[..., None, :2, :2]
    for _ in range(steps):
        x, y, z = (X + t[..., None, :]).unbind(-1)
        residual = (lens @ (torch.stack([x / z, y / z], -1) - plane)[..., None])[..., 0]
        zero = torch.zeros_like(z)
        slopes = torch.stack(
            [torch.stack([1 / z, zero, -x / z.square()], -1), torch.stack([zero, 1 / z, -y / z.square()], -1)], -2
        )
        jacobian = lens @ slopes
        weighted = w[..., None, None] * jacobian
        t = t - _solve3((jacobian.mT @ weighted).sum(-3), (weighted.mT @ residual[..., None]).sum(-3)[..., 0])
    return t.to(dtype)


def _solve3(matrices: Float[Tensor, "*batch 3 3"], right: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Solutions of symmetric systems, NaN for singular ones, where `torch.linalg.solve` raises."""
    a, b, c = matrices.unbind(-2)
    rows = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
    det = (a * rows[..., 0]).sum(-1)
    size = matrices.diagonal(dim1=-2, dim2=-1).prod(-1)
    det = torch.where(det.abs() > 1e-14 * size, det, torch.nan)
    return (rows @ right[..., None])[..., 0] / det[..., None]
