"""Interpolation of rotations, rigid motions and similarities: constant speed between two, smooth through many."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.geometry import se3
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.groups import sim3
from vision3d.geometry.quaternion import conjugate, multiply, normalize, slerp
from vision3d.geometry.rotation import quat_to_rotvec, rotvec_to_quat, so3_exp, so3_log

__all__ = ["align_signs", "se3_interpolate", "sim3_interpolate", "slerp", "so3_interpolate", "squad", "squad_controls"]

Fraction = Float[Tensor, "*#batch"] | float


def so3_interpolate(
    start: Float[Tensor, "*#batch 3 3"], end: Float[Tensor, "*#batch 3 3"], fraction: Fraction
) -> Float[Tensor, "*#batch 3 3"]:
    """R0 exp(f log(R0^T R1)): constant angular speed about a fixed axis, the shorter path; `slerp` of matrices."""
    return start @ so3_exp(_column(fraction, start) * so3_log(start.mT @ end))


def se3_interpolate(
    start: Float[Tensor, "*#batch 4 4"], end: Float[Tensor, "*#batch 4 4"], fraction: Fraction
) -> Float[Tensor, "*#batch 4 4"]:
    """T0 exp(f log(T0^-1 T1)): a screw motion of constant speed (ScLERP), the same in every frame."""
    return start @ se3.exp(_column(fraction, start) * se3.log(se3.inverse(start) @ end))


def sim3_interpolate(
    start: Float[Tensor, "*#batch 4 4"], end: Float[Tensor, "*#batch 4 4"], fraction: Fraction
) -> Float[Tensor, "*#batch 4 4"]:
    """T0 exp(f log(T0^-1 T1)) of similarities: a spiral whose scale changes exponentially."""
    return start @ sim3.exp(_column(fraction, start) * sim3.log(sim3.inverse(start) @ end))


def align_signs(quats: Float[Tensor, "*batch k 4"]) -> Float[Tensor, "*batch k 4"]:
    """The same rotations, with the sign of each quaternion chosen closest to the one before it."""
    check_trailing("quats", quats, 4)
    products = (quats[..., 1:, :] * quats[..., :-1, :]).sum(-1)
    flips = torch.where(products < 0, -torch.ones_like(products), torch.ones_like(products))
    signs = torch.cat([torch.ones_like(quats[..., :1, 0]), flips.cumprod(-1)], -1)
    return signs[..., None] * quats


def squad_controls(quats: Float[Tensor, "*batch k 4"]) -> Float[Tensor, "*batch k 4"]:
    """The inner control quaternions of `squad`: q exp(-(log(q^-1 next) + log(q^-1 previous)) / 4); Shoemake 1987."""
    quats = align_signs(normalize(quats))
    inner = quats[..., 1:-1, :]
    steps = [quat_to_rotvec(multiply(conjugate(inner), other)) for other in (quats[..., 2:, :], quats[..., :-2, :])]
    moved = multiply(inner, rotvec_to_quat(-(steps[0] + steps[1]) / 4))
    return torch.cat([quats[..., :1, :], moved, quats[..., -1:, :]], -2)


def squad(quats: Float[Tensor, "*batch k 4"], times: Float[Tensor, "*#batch t"]) -> Float[Tensor, "*batch t 4"]:
    """Unit quaternions of a curve through `quats` at the times 0, 1, .., k - 1, with continuous angular velocity.

    Args:
        times: Clamped to 0 ... k - 1.

    Raises:
        ShapeError: Fewer than two quaternions.
    """
    check_trailing("quats", quats, 4)
    count = quats.shape[-2] if quats.ndim > 1 else 0
    if count < 2:
        raise ShapeError("quats", quats.shape, "(..., k, 4) with k >= 2")
    quats = align_signs(normalize(quats))
    controls = squad_controls(quats)
    times = torch.where(times.isnan(), times, times.clamp(0, count - 1)).expand(*quats.shape[:-2], times.shape[-1])
    first = times.detach().nan_to_num(0).floor().clamp(max=count - 2)  # NaN propagates through the fraction
    fraction = times - first
    index = first.long()[..., None].expand(*first.shape, 4)
    ends = [table.gather(-2, index + k) for table in (quats, controls) for k in (0, 1)]
    outer, inner = slerp(ends[0], ends[1], fraction), slerp(ends[2], ends[3], fraction)
    return slerp(outer, inner, 2 * fraction * (1 - fraction))


def _column(fraction: Fraction, like: Tensor) -> Tensor:
    return torch.as_tensor(fraction, dtype=like.dtype, device=like.device)[..., None]
