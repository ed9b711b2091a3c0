"""Euler angles in all 24 orders, through quaternions, without a special case at gimbal lock; Bernardes and Viollet 2022.

An order is three axes. Upper-case letters are intrinsic, each rotation about the axes moved by the earlier ones:
XYZ is Rx(a) Ry(b) Rz(c). Lower-case letters are extrinsic, about the fixed axes: xyz is Rz(c) Ry(b) Rx(a). As in scipy.
Rotations can also be given by one or two axes: XZ is Rx(a) Rz(b).
"""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ConfigError, nearest_names
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.choices import EULER_ORDERS
from vision3d.geometry.quaternion import multiply, positive_w, quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.smooth import atan2, wrapped
from vision3d.geometry.vectors import length


def euler_to_quat(angles: Float[Tensor, "*batch n"], order: str, degrees: bool = False) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions of one to three angles [rad], in the sequence of the letters of `order`.

    Args:
        order: As many letters as angles.
        degrees: Whether the angles are in degrees.
    """
    axes = _axes(order, shortest=1)
    check_trailing("angles", angles, len(axes))
    angles = angles.deg2rad() if degrees else angles
    rotations = [_about(axis, angle) for axis, angle in zip(axes, angles.unbind(-1))]
    return functools.reduce(multiply, rotations[::-1] if order.islower() else rotations)


def euler_to_rotmat(angles: Float[Tensor, "*batch n"], order: str, degrees: bool = False) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of one to three angles, as `euler_to_quat`.

    Example:
        >>> euler_to_rotmat(torch.tensor([torch.pi / 3, 0.0, 0.0]), "ZYX") @ torch.tensor([1.0, 0.0, 0.0])
        tensor([0.5000, 0.8660, 0.0000])
    """
    return quat_to_rotmat(euler_to_quat(angles, order, degrees))


def quat_to_euler(quats: Float[Tensor, "*batch 4"], order: str, degrees: bool = False) -> Float[Tensor, "*batch 3"]:
    """Angles [rad] of quaternions of any length > 0; the inverse of `euler_to_quat`.

    The first and the last angle are in -pi to pi; the middle one in -pi/2 to pi/2, or in 0 to pi if the first axis is repeated.
    At gimbal lock, where only the sum or the difference of the other two is determined, the last one is zero, and the angles
    still reproduce the rotation. Gradients there are finite; near it they are as large as they must be.

    Example:
        >>> quat_to_euler(torch.tensor([1.0, 0.0, 0.0, 1.0]), "XYZ")
        tensor([0.0000, 0.0000, 1.5708])
    """
    check_trailing("quats", quats, 4)
    i, j, k = _axes(order)
    if order.islower():
        i, k = k, i
    is_proper = i == k
    third = 3 - i - j
    parity = 1 if (j - i) % 3 == 1 else -1
    if not is_proper:
        # Rotated by 90 degrees about the middle axis, the last axis is the first: R Rj(pi/2) = Ri(a) Rj(b+pi/2) Ri(-parity c).
        quats = multiply(quats, _about(j, quats.new_tensor(math.pi / 2)))
    quats = positive_w(quats)
    w, x, y, z = quats[..., 0], quats[..., 1 + i], quats[..., 1 + j], parity * quats[..., 1 + third]
    # (w, x) = cos(b/2) (cos s, sin s), (y, z) = sin(b/2) (cos d, sin d), with s, d half the sum and the difference.
    upper, lower = torch.stack([w, x], -1), torch.stack([y, z], -1)
    cosine, sine = length(upper), length(lower)
    tolerance = 2 * torch.finfo(quats.dtype).eps
    no_sum, no_difference = cosine <= tolerance * sine, sine <= tolerance * cosine
    half_sum = atan2(torch.where(no_sum, 0, x), torch.where(no_sum, 1, w))
    half_difference = atan2(torch.where(no_difference, 0, z), torch.where(no_difference, 1, y))
    is_last_zero = no_sum | no_difference
    either = torch.where(no_sum, half_difference, half_sum)
    first = torch.where(is_last_zero, 2 * either, half_sum + half_difference)
    last = torch.where(is_last_zero, 0, half_sum - half_difference)
    middle = 2 * atan2(sine, cosine)
    if not is_proper:
        middle, last = middle - math.pi / 2, -parity * last
    found = [wrapped(first), middle, wrapped(last)]
    angles = torch.stack(found[::-1] if order.islower() else found, -1)
    return angles.rad2deg() if degrees else angles


def rotmat_to_euler(rotmats: Float[Tensor, "*batch 3 3"], order: str, degrees: bool = False) -> Float[Tensor, "*batch 3"]:
    """Angles of rotation matrices, as `quat_to_euler`."""
    return quat_to_euler(rotmat_to_quat(rotmats), order, degrees)


def _about(axis: int, angles: Tensor) -> Tensor:
    parts = [torch.zeros_like(angles)] * 4
    parts[0], parts[1 + axis] = (angles / 2).cos(), (angles / 2).sin()
    return torch.stack(parts, -1)


def _axes(order: str, shortest: int = 3) -> tuple[int, ...]:
    if len(order) < shortest or not any(order == known[: len(order)] for known in EULER_ORDERS):
        raise ConfigError("order", f"{order!r} is not an order of Euler angles; {nearest_names(order, EULER_ORDERS, 6)}")
    return tuple("XYZ".index(letter) for letter in order.upper())
