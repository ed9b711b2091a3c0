"""Less common parameterizations of rotations: Gibbs and modified Rodrigues vectors, Hopf angles, a symmetric matrix, others.

Values that a bounded function would reach only at infinity (an angle of exactly pi, for example) are reached exactly at
finite inputs, so that round trips are exact; gradients there are zero.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.quaternion import normalize, positive_w
from vision3d.geometry.reference.rotation import rotvec_to_quat
from vision3d.geometry.rotation import hat, quat_to_rotvec
from vision3d.geometry.smooth import angle_of, atan2, wrapped
from vision3d.geometry.spectral import least_eigenvector
from vision3d.geometry.vectors import axis_vector, length, unit

_TRIANGLE = (0, 1, 2, 3, 1, 4, 5, 6, 2, 5, 7, 8, 3, 6, 8, 9)


def axis_angle4_to_quat(values: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions of (s, axis): angle pi tanh(s) about an axis of any length (x if zero); Zhou et al.'s code."""
    check_trailing("values", values, 4)
    half = math.pi / 2 * values[..., :1].tanh()
    axes = unit(values[..., 1:], fallback=axis_vector(values, 0, 3))
    return torch.cat([half.cos(), half.sin() * axes], -1)


def quat_to_axis_angle4(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """(s, unit axis), s >= 0; the inverse of `axis_angle4_to_quat`."""
    quats = positive_w(normalize(quats))
    axes = quats[..., 1:]
    share = angle_of(axes, quats[..., :1]) / (math.pi / 2)
    return torch.cat([_atanh(share)[..., None], unit(axes, fallback=axis_vector(axes, 0, 3))], -1)


def rodrigues_rc_to_quat(values: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """(cos |v|, sin |v| v / |v|): a rotation by 2 |v|, twice that of a rotation vector, as in Zhou et al.'s code."""
    check_trailing("values", values, 3)
    return rotvec_to_quat(2 * values)


def quat_to_rodrigues_rc(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Half the rotation vector; the inverse of `rodrigues_rc_to_quat`."""
    return quat_to_rotvec(quats) / 2


def gibbs_to_quat(values: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions of tan(angle / 2) axis; the parameters of Cayley's map (I - S)^-1 (I + S), S = hat(v)."""
    check_trailing("values", values, 3)
    return normalize(torch.cat([torch.ones_like(values[..., :1]), values], -1))


def quat_to_gibbs(quats: Float[Tensor, "*batch 4"], check: bool = False) -> Float[Tensor, "*batch 3"]:
    """tan(angle / 2) axis: infinite at 180 degrees, represented by values of about 1e30 (1e13 in float32).

    Args:
        check: Raise an error for rotations by 180 degrees. This reads the values, so leave it off under torch.compile and vmap.

    Raises:
        InputError: A rotation is 180 degrees up to rounding, and `check` is set.
    """
    quats = positive_w(normalize(quats))
    w = quats[..., :1]
    if check and bool((w <= 8 * torch.finfo(w.dtype).eps).any()):
        count = int((w <= 8 * torch.finfo(w.dtype).eps).sum())
        raise InputError(
            f"rotmats: {count} of {w.numel()} are rotations by 180 degrees, which gibbs and cayley cannot represent; "
            "use quat, 6d or 9d_svd, or check=False for very large numbers"
        )
    return quats[..., 1:] / w.clamp(min=torch.finfo(w.dtype).eps ** 2)


def cayley(skew: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """(I - S)^-1 (I + S): rotations, without eigenvalue -1, of skew matrices of any size."""
    eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(eye - skew, eye + skew)


def cayley_vector(values: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Cayley's map of hat(v); `gibbs_to_quat` gives the same rotation and does not overflow."""
    return cayley(hat(values))


def mrp_to_quat(values: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions of modified Rodrigues parameters, tan(angle / 4) axis."""
    check_trailing("values", values, 3)
    # (1 - s, 2 p) / (1 + s) with s = |p|^2, multiplied by a factor that keeps large numbers in range.
    scale = values.detach().abs().amax(-1, keepdim=True).clamp(min=1)
    values = values / scale
    square, inverse = values.square().sum(-1, keepdim=True), 1 / scale
    return normalize(torch.cat([inverse.square() - square, 2 * inverse * values], -1))


def quat_to_mrp(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """tan(angle / 4) axis, of length <= 1; the inverse of `mrp_to_quat`."""
    quats = positive_w(normalize(quats))
    return quats[..., 1:] / (1 + quats[..., :1])


def hopf_to_quat(values: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions of three numbers that tanh maps to Hopf angles: theta in 0..pi, phi and tau in 0..2 pi.

    q = (cos t/2 cos u/2, cos t/2 sin u/2, sin t/2 cos(p + u/2), sin t/2 sin(p + u/2)), t theta, u tau, p phi.
    """
    check_trailing("values", values, 3)
    first, second, third = values.tanh().unbind(-1)
    # Angles are measured from the middle of their range, where floats are densest: theta = (1 + first) pi / 2, and so on.
    theta, turn, half = math.pi / 4 * (1 + first), math.pi * second, math.pi / 2 * third
    upper, lower = theta.cos(), theta.sin()
    return torch.stack([-upper * half.sin(), upper * half.cos(), lower * (turn + half).sin(), -lower * (turn + half).cos()], -1)


def quat_to_hopf(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """The inverse of `hopf_to_quat`; discontinuous where phi or tau wrap from 2 pi to 0."""
    check_trailing("quats", quats, 4)
    quats = torch.where(quats[..., 1:2] < 0, -quats, quats)
    w, x, y, z = quats.unbind(-1)
    theta = angle_of(quats[..., 2:], quats[..., :2])
    half = -atan2(w, x)
    turn = wrapped(atan2(y, -z) - half)
    return _atanh(torch.stack([theta / (math.pi / 4) - 1, turn / math.pi, half / (math.pi / 2)], -1))


def symmetric10_to_quat(values: Float[Tensor, "*batch 10"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions (of either sign): eigenvectors of the smallest eigenvalue of symmetric 4x4 matrices.

    The ten numbers are the upper triangle row by row, rows and columns in the order wxyz; Peretroukhin et al. 2020.
    """
    check_trailing("values", values, 10)
    return least_eigenvector(values[..., _TRIANGLE].unflatten(-1, (4, 4)))


def quat_to_symmetric10(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 10"]:
    """The upper triangle of I - q q^T; the same for q and -q, smooth, and the inverse of `symmetric10_to_quat`."""
    quats = normalize(quats)
    outer = torch.eye(4, dtype=quats.dtype, device=quats.device) - quats[..., :, None] * quats[..., None, :]
    return outer.flatten(-2)[..., (0, 1, 2, 3, 5, 6, 7, 10, 11, 15)]


def pairs_to_angles(values: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3"]:
    """Three angles of (sin, cos) pairs of any length; zero for a zero pair."""
    check_trailing("values", values, 6)
    return atan2(values[..., 0::2], values[..., 1::2])


def angles_to_pairs(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 6"]:
    """(sin, cos) of three angles, one pair after another."""
    check_trailing("angles", angles, 3)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


def half_sphere(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions multiplied by the sign of w: `quat_half` of Zhou et al.; the same rotations."""
    return positive_w(normalize(quats))


def quat_angle(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Angles [rad, 0 to pi] of the rotations of quaternions of any length > 0."""
    check_trailing("quats", quats, 4)
    return 2 * atan2(length(quats[..., 1:]), quats[..., 0].abs())


def _atanh(shares: Tensor) -> Tensor:
    shares = shares.clamp(torch.finfo(shares.dtype).eps / 2 - 1, 1 - torch.finfo(shares.dtype).eps / 2)
    return (torch.log1p(shares) - torch.log1p(-shares)) / 2
