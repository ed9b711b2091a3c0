"""Singular values and rotations of deformation gradients, including inverted ones."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.rotation import nearest_rotation

MIN_STRETCH = 0.01
"""Minimum stretch for logarithms; flatter or inverted elements are treated as if they had this stretch."""


def signed_svd(
    F: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3 3"]]:
    """U, s, V with F = U diag(s) V^T, U and V rotations (det +1), |s| descending; the sign of det F is in the last s.

    Irving et al. 2004, section 3: an inverted element is one that is turned inside out along its shortest axis.
    """
    left, lengths, right = torch.linalg.svd(F)
    right = right.mT
    signs = []
    for matrix in (left, right):
        signs.append(torch.where(torch.linalg.det(matrix.detach()) < 0, -1.0, 1.0).to(F)[..., None])
    left = torch.cat([left[..., :2], left[..., 2:] * signs[0][..., None]], -1)
    right = torch.cat([right[..., :2], right[..., 2:] * signs[1][..., None]], -1)
    return left, torch.cat([lengths[..., :2], lengths[..., 2:] * signs[0] * signs[1]], -1), right


def polar(F: Float[Tensor, "*batch 3 3"]) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3 3"]]:
    """R, S with F = R S, R the nearest rotation (det +1 also if F is inverted) and S symmetric."""
    rotmats = nearest_rotation(F)
    inner = rotmats.mT @ F
    return rotmats, (inner + inner.mT) / 2


def log_stretches(stretches: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Logarithms of signed stretches, clamped from below to `MIN_STRETCH`."""
    return stretches.clamp(min=MIN_STRETCH).log()


def compose(left: Float[Tensor, "*batch 3 3"], values: Float[Tensor, "*batch 3"], right: Float[Tensor, "*batch 3 3"]) -> Tensor:
    """left diag(values) right^T."""
    return (left * values[..., None, :]) @ right.mT


def deviator(values: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Principal values without their mean."""
    return values - values.mean(-1, keepdim=True)
