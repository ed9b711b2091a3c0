"""Depth and normal maps: normals of a depth map, and colors for visualization."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.cameras import CameraModel, pixel_grid, unproject

# Colors at 0, 1/8, .. 1 of the depth ramp, dark blue over green to pale yellow; lightness is linear.
_RAMP = (
    (0.06, 0.05, 0.24),
    (0.13, 0.15, 0.47),
    (0.10, 0.29, 0.60),
    (0.07, 0.44, 0.62),
    (0.13, 0.57, 0.57),
    (0.29, 0.69, 0.47),
    (0.54, 0.79, 0.36),
    (0.80, 0.86, 0.37),
    (0.99, 0.94, 0.62),
)


def depth_to_normals(
    depths: Float[Tensor, "*batch h w"],
    viewmats: Float[Tensor, "*batch 4 4"],
    Ks: Float[Tensor, "*batch 3 3"],
    model: CameraModel = "pinhole",
) -> Float[Tensor, "*batch h w 3"]:
    """World-space unit normals of the surface of a depth map, facing the camera.

    Computed from central differences of the points; the outermost pixels, and degenerate ones, are zero.

    Args:
        depths: Along the camera's z [m].
    """
    height, width = depths.shape[-2:]
    pixels = pixel_grid(width, height, depths.dtype, depths.device).flatten(0, 1).expand(*depths.shape[:-2], -1, 2)
    points = unproject(pixels, depths.flatten(-2), Ks, model).unflatten(-2, (height, width))
    if height < 3 or width < 3:
        return torch.zeros_like(points)
    down = points[..., 2:, 1:-1, :] - points[..., :-2, 1:-1, :]
    right = points[..., 1:-1, 2:, :] - points[..., 1:-1, :-2, :]
    normals = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)
    normals = torch.nn.functional.pad(normals, (0, 0, 1, 1, 1, 1))
    return (normals.flatten(-3, -2) @ viewmats[..., :3, :3]).unflatten(-2, (height, width))


def depth_to_rgb(
    depth: Float[Tensor, "*batch h w"],
    alpha: Float[Tensor, "*batch h w"] | None = None,
    near: float | None = None,
    far: float | None = None,
) -> Float[Tensor, "*batch h w 3"]:
    """Colors for a depth map, from dark blue (far) to pale yellow (near), linear in 1 / depth.

    Args:
        depth: Expected depth [m].
        alpha: Pixels fade to black with it, and those below 0.5 do not influence the range.
        near: Depth shown as pale yellow [m]; the 1st percentile when None.
        far: Depth shown as dark blue [m]; the 99th percentile when None.

    Raises:
        InputError: near and far are not 0 < near < far.
    """
    shown = torch.isfinite(depth) & (depth > 0)
    counted = depth[shown if alpha is None else shown & (alpha > 0.5)]
    if counted.numel() == 0:
        return depth.new_zeros(*depth.shape, 3)
    # kthvalue, since torch.quantile is limited to 16 million values.
    count = counted.numel()
    low = near if near is not None else float(counted.kthvalue(1 + (count - 1) // 100).values)
    high = far if far is not None else float(counted.kthvalue(count - (count - 1) // 100).values)
    if (near is not None or far is not None) and not 0 < low < high:
        raise InputError(f"near, far: got {low:.4g}, {high:.4g}, want 0 < near < far")
    closeness = (1 / torch.where(shown, depth, high) - 1 / high) / max(1 / low - 1 / high, 1e-12)
    place = closeness.clamp(0, 1) * (len(_RAMP) - 1)
    ramp = depth.new_tensor(_RAMP)
    lower = place.floor().clamp(max=len(_RAMP) - 2)
    rgb = torch.lerp(ramp[lower.long()], ramp[lower.long() + 1], (place - lower)[..., None])
    return rgb * (shown.to(depth.dtype) if alpha is None else alpha * shown)[..., None]


def normals_to_rgb(
    normals: Float[Tensor, "*batch h w 3"], viewmats: Float[Tensor, "*batch 4 4"] | None = None
) -> Float[Tensor, "*batch h w 3"]:
    """Colors for normals: (n + 1) / 2 of x, y and z, black for zero normals.

    Args:
        normals: Of any length; shorter ones (weighted by alpha) are darker.
        viewmats: Converts world-space normals to camera axes x right, y up, z to the viewer; unchanged when None.
    """
    if viewmats is not None:
        height, width = normals.shape[-3:-1]
        turned = normals.flatten(-3, -2) @ viewmats[..., :3, :3].mT
        normals = turned.unflatten(-2, (height, width)) * normals.new_tensor([1.0, -1.0, -1.0])
    length = normals.norm(dim=-1, keepdim=True)
    unit = normals / length.clamp(min=1e-12)
    return (0.5 * unit + 0.5) * length.clamp(max=1)
