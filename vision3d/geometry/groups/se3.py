"""Rigid motions in 3D; the tangent is (rho, phi), translation part first. Formulas: Barfoot 2017, section 7.1."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.checks import check_trailing
from vision3d.geometry.groups import so3
from vision3d.geometry.rotation import hat
from vision3d.geometry.se3 import adjoint, compose, exp, inverse, log
from vision3d.geometry.smooth import cos_remainder_over, screw_remainder_over, x_minus_sin_over

__all__ = [
    "ad", "adjoint", "compose", "exp", "inverse", "left_jacobian", "left_jacobian_inverse", "log", "right_jacobian",
    "right_jacobian_inverse",
]  # fmt: skip


def ad(tangents: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 6 6"]:
    """The matrices [hat(phi) hat(rho); 0 hat(phi)]: adjoint(exp(x)) = exp(ad(x))."""
    check_trailing("tangents", tangents, 6)
    return _blocks(hat(tangents[..., 3:]), hat(tangents[..., :3]))


def left_jacobian(tangents: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 6 6"]:
    """[J Q; 0 J] with the Jacobian J of SO(3); smooth at zero."""
    check_trailing("tangents", tangents, 6)
    return _blocks(so3.left_jacobian(tangents[..., 3:]), _coupling(tangents))


def left_jacobian_inverse(tangents: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 6 6"]:
    """[J^-1, -J^-1 Q J^-1; 0 J^-1], for angles below 2 pi."""
    check_trailing("tangents", tangents, 6)
    inverse_jacobian = so3.left_jacobian_inverse(tangents[..., 3:])
    return _blocks(inverse_jacobian, -inverse_jacobian @ _coupling(tangents) @ inverse_jacobian)


def right_jacobian(tangents: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 6 6"]:
    """The left Jacobian of -x."""
    return left_jacobian(-tangents)


def right_jacobian_inverse(tangents: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 6 6"]:
    """The inverse of the left Jacobian of -x."""
    return left_jacobian_inverse(-tangents)


def _coupling(tangents: Tensor) -> Tensor:
    r, p = hat(tangents[..., :3]), hat(tangents[..., 3:])
    squares = tangents[..., 3:].square().sum(-1)[..., None, None]
    pr, rp = p @ r, r @ p
    prp = pr @ p
    first = x_minus_sin_over(squares) * (pr + rp + prp)
    second = cos_remainder_over(squares) * (p @ pr + rp @ p - 3 * prp)
    return r / 2 + first + second + screw_remainder_over(squares) * (prp @ p + p @ prp)


def _blocks(diagonal: Tensor, corner: Tensor) -> Tensor:
    top = torch.cat([diagonal, corner], -1)
    return torch.cat([top, torch.cat([torch.zeros_like(diagonal), diagonal], -1)], -2)
