"""Similarities in 3D, x' = s R x + t as 4x4 matrices; the tangent is (rho, phi, sigma), sigma the logarithm of the scale.

The order is that of Sophus. exp(rho, phi, sigma) = [e^sigma exp(phi), W rho; 0 1], where W is the integral of
e^(sigma u) exp(u phi) over u from 0 to 1, by Gauss quadrature: exact up to rounding for |sigma| < 30 and angles to 2 pi, and
smooth where the closed form divides by sigma, the angle, or both.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.checks import check_trailing
from vision3d.geometry.rotation import hat, so3_exp, so3_log
from vision3d.geometry.se3 import from_rotation_translation, similarity
from vision3d.geometry.smooth import one_minus_cos_over, sin_over
from vision3d.geometry.spectral import matrix_exp
from vision3d.geometry.vectors import length

_NODES, _WEIGHTS = (((rule + shift) / 2).tolist() for rule, shift in zip(np.polynomial.legendre.leggauss(32), (1, 0)))


def exp(tangents: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 4 4"]:
    """Similarities of seven-vectors (rho, phi, sigma).

    Example:
        >>> exp(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.6931472]))[0, 0]
        tensor(2.)
    """
    check_trailing("tangents", tangents, 7)
    rho, phi, sigma = tangents[..., :3], tangents[..., 3:6], tangents[..., 6]
    a, b, c = _factors(phi, sigma)
    turned = torch.linalg.cross(phi, rho)
    translations = a * rho + b * turned + c * torch.linalg.cross(phi, turned)
    return similarity(sigma.exp(), so3_exp(phi), translations)


def log(matrices: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 7"]:
    """Seven-vectors (rho, phi, sigma) of similarities, |phi| <= pi; the inverse of `exp`.

    Other matrices are not detected (that would read the values): see `se3.split_similarity`.
    """
    check_trailing("matrices", matrices, 4, 4)
    scales, rotmats, translations = split(matrices)
    phi, sigma = so3_log(rotmats), scales.log()
    a, b, c = _factors(phi, sigma)
    # W acts as a along the axis, and as the complex number (real, b t) in the plane perpendicular to it.
    real = a - c * phi.square().sum(-1, keepdim=True)
    square = real.square() + b.square() * phi.square().sum(-1, keepdim=True)
    turned = torch.linalg.cross(phi, translations)
    rho = translations / a - b / square * turned
    rho = rho + (b.square() - c * real) / (a * square) * torch.linalg.cross(phi, turned)
    return torch.cat([rho, phi, sigma[..., None]], -1)


def inverse(matrices: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverses of similarities, without checking that they are similarities."""
    check_trailing("matrices", matrices, 4, 4)
    scales, rotmats, translations = split(matrices)
    linear = rotmats.mT / scales[..., None, None]
    return from_rotation_translation(linear, -(linear @ translations[..., None]).squeeze(-1))


def adjoint(matrices: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 7 7"]:
    """Matrices that transform tangent vectors to another frame: T exp(x) T^-1 = exp(adjoint(T) x)."""
    check_trailing("matrices", matrices, 4, 4)
    _, rotmats, translations = split(matrices)
    return _blocks(matrices[..., :3, :3], hat(translations) @ rotmats, -translations, rotmats, 1)


def ad(tangents: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7 7"]:
    """The derivative of the adjoint: adjoint(exp(x)) = exp(ad(x))."""
    check_trailing("tangents", tangents, 7)
    rho, phi, sigma = tangents[..., :3], tangents[..., 3:6], tangents[..., 6]
    eye = torch.eye(3, dtype=tangents.dtype, device=tangents.device)
    return _blocks(hat(phi) + sigma[..., None, None] * eye, hat(rho), -rho, hat(phi), 0)


def left_jacobian(tangents: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7 7"]:
    """The series sum_k ad(x)^k / (k + 1)!, computed as a block of a matrix exponential; smooth everywhere."""
    derivative = ad(tangents)
    eye = torch.eye(7, dtype=tangents.dtype, device=tangents.device).expand_as(derivative)
    top = torch.cat([derivative, eye], -1)
    whole = matrix_exp(torch.cat([top, torch.zeros_like(top)], -2))
    return whole[..., :7, 7:]


def left_jacobian_inverse(tangents: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7 7"]:
    """The inverse of `left_jacobian`, for angles below 2 pi."""
    return torch.linalg.inv(left_jacobian(tangents))


def right_jacobian(tangents: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7 7"]:
    """The left Jacobian of -x."""
    return left_jacobian(-tangents)


def right_jacobian_inverse(tangents: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7 7"]:
    """The inverse of the left Jacobian of -x."""
    return left_jacobian_inverse(-tangents)


def _factors(phi: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # W = a I + b hat(phi) + c hat(phi)^2, each factor an integral over u.
    nodes, weights = phi.new_tensor(_NODES), phi.new_tensor(_WEIGHTS)
    growth = weights * (sigma[..., None] * nodes).exp()
    squares = nodes.square() * phi.square().sum(-1, keepdim=True)
    a = growth.sum(-1, keepdim=True)
    b = (growth * nodes * sin_over(squares)).sum(-1, keepdim=True)
    return a, b, (growth * nodes.square() * one_minus_cos_over(squares)).sum(-1, keepdim=True)


def split(matrices: Float[Tensor, "*batch 4 4"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3 3"], Tensor]:
    """Scales, rotation matrices and translations (*batch, 3), without checking that the matrices are similarities."""
    linear = matrices[..., :3, :3]
    scales = length(linear.flatten(-2)) / math.sqrt(3)
    return scales, linear / scales[..., None, None], matrices[..., :3, 3]


def _blocks(linear: Tensor, corner: Tensor, column: Tensor, rotation: Tensor, last: float) -> Tensor:
    top = torch.cat([linear, corner, column[..., None]], -1)
    middle = torch.cat([torch.zeros_like(linear), rotation, torch.zeros_like(column)[..., None]], -1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom = torch.cat([bottom[..., :6], bottom[..., 6:] + last], -1)
    return torch.cat([top, middle, bottom], -2)
