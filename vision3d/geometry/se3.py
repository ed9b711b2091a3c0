"""Rigid motions as 4x4 matrices with their tangent vectors, and similarities.

Tangent vectors have the translation part first: (rho, phi), phi the rotation vector [rad], as in Sophus and kornia.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.rotation import hat, so3_exp, so3_log
from vision3d.geometry.smooth import one_minus_cos_over, one_minus_half_cot_over, x_minus_sin_over


def from_rotation_translation(
    rotmats: Float[Tensor, "*#batch 3 3"], translations: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*#batch 4 4"]:
    """The matrices [R t; 0 1]."""
    batch = torch.broadcast_shapes(rotmats.shape[:-2], translations.shape[:-1])
    top = torch.cat([rotmats.expand(*batch, 3, 3), translations[..., None].expand(*batch, 3, 1)], -1)
    bottom = torch.nn.functional.pad(top.new_ones(1), (3, 0)).expand(*batch, 1, 4)
    return torch.cat([top, bottom], -2)


def exp(tangents: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 4 4"]:
    """Rigid motions of six-vectors (rho, phi): [exp(phi) V rho; 0 1], smooth at zero.

    V = I + ((1 - cos t) / t^2) hat(phi) + ((t - sin t) / t^3) hat(phi)^2; Barfoot 2017, section 7.1.

    Example:
        >>> exp(torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]))[:3, 3]
        tensor([1., 2., 3.])
    """
    check_trailing("tangents", tangents, 6)
    rho, phi = tangents[..., :3], tangents[..., 3:]
    squares = phi.square().sum(-1, keepdim=True)
    turned = torch.linalg.cross(phi, rho)
    translations = rho + one_minus_cos_over(squares) * turned + x_minus_sin_over(squares) * torch.linalg.cross(phi, turned)
    return from_rotation_translation(so3_exp(phi), translations)


def log(matrices: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 6"]:
    """Six-vectors (rho, phi) of rigid motions, |phi| <= pi; the inverse of `exp`, accurate at angle zero and at pi."""
    check_trailing("matrices", matrices, 4, 4)
    phi, translations = so3_log(matrices[..., :3, :3]), matrices[..., :3, 3]
    squares = phi.square().sum(-1, keepdim=True)
    turned = torch.linalg.cross(phi, translations)
    rho = translations - turned / 2 + one_minus_half_cot_over(squares) * torch.linalg.cross(phi, turned)
    return torch.cat([rho, phi], -1)


def inverse(matrices: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverses of rigid motions: [R^T, -R^T t; 0 1]. Wrong for matrices that scale: see `similarity_inverse`."""
    check_trailing("matrices", matrices, 4, 4)
    rotmats = matrices[..., :3, :3].mT
    return from_rotation_translation(rotmats, -(rotmats @ matrices[..., :3, 3:]).squeeze(-1))


def compose(*matrices: Float[Tensor, "*#batch 4 4"]) -> Float[Tensor, "*#batch 4 4"]:
    """The product of the motions; the last one is applied first."""
    product = matrices[0]
    for matrix in matrices[1:]:
        product = product @ matrix
    return product


def transform_points(
    matrices: Float[Tensor, "*#batch 4 4"], points: Float[Tensor, "*#batch n 3"]
) -> Float[Tensor, "*#batch n 3"]:
    """Points (n of them for each matrix) moved by affine 4x4 matrices: A x + t."""
    check_trailing("matrices", matrices, 4, 4)
    check_trailing("points", points, 3)
    return points @ matrices[..., :3, :3].mT + matrices[..., None, :3, 3]


def adjoint(matrices: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 6 6"]:
    """Matrices that transform tangent vectors to another frame: T exp(x) T^-1 = exp(adjoint(T) x)."""
    check_trailing("matrices", matrices, 4, 4)
    rotmats = matrices[..., :3, :3]
    top = torch.cat([rotmats, hat(matrices[..., :3, 3]) @ rotmats], -1)
    return torch.cat([top, torch.cat([torch.zeros_like(rotmats), rotmats], -1)], -2)


def similarity(
    scales: Float[Tensor, "*#batch"], rotmats: Float[Tensor, "*#batch 3 3"], translations: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*#batch 4 4"]:
    """The matrices [s R, t; 0 1] of x' = s R x + t."""
    return from_rotation_translation(scales[..., None, None] * rotmats, translations)


def split_similarity(
    matrices: Float[Tensor, "*batch 4 4"], tolerance: float = 1e-4
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """Scale, rotation and translation of similarities x' = s R x + t.

    Raises:
        InputError: A matrix reflects, shears, scales unevenly, or its last row is not (0, 0, 0, 1).
    """
    check_trailing("matrices", matrices, 4, 4)
    linear = matrices[..., :3, :3]
    volume = torch.linalg.det(linear)
    if not bool((volume > 0).all()):
        raise InputError("matrix: is singular, not finite or a reflection (determinant <= 0); want a similarity s R, s > 0")
    scales = volume.pow(1 / 3)
    rotmats = linear / scales[..., None, None]
    eye = torch.eye(3, dtype=linear.dtype, device=linear.device)
    deviation = (rotmats.mT @ rotmats - eye).abs().amax() if rotmats.numel() else 0.0
    if deviation > tolerance:
        raise InputError(f"matrix: shears or scales unevenly (R^T R differs from I by {float(deviation):.2g})")
    last = matrices[..., 3, :] - matrices.new_tensor([0.0, 0.0, 0.0, 1.0])
    if last.numel() and last.abs().amax() > tolerance:
        raise InputError("matrix: the last row is not (0, 0, 0, 1); matrices here act on column vectors, x' = M x")
    return scales, rotmats, matrices[..., :3, 3].clone()


def similarity_inverse(matrices: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverses of similarities."""
    scales, rotmats, translations = split_similarity(matrices)
    linear = rotmats.mT / scales[..., None, None]
    return from_rotation_translation(linear, -(linear @ translations[..., None]).squeeze(-1))
