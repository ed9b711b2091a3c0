"""Rotations in n dimensions; the tangent is a skew matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.groups import so2
from vision3d.geometry.procrustes import special_orthogonal
from vision3d.geometry.rotation import hat, so3_exp, so3_log, vee
from vision3d.geometry.spectral import matrix_exp

_HALVINGS, _TERMS = 5, 7


def exp(skew: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Rotations of skew matrices (for other matrices, of the skew part)."""
    skew = (skew - skew.mT) / 2
    if skew.shape[-1] == 2:
        return so2.exp(skew[..., 1, 0])
    if skew.shape[-1] == 3:
        return so3_exp(vee(skew))
    return matrix_exp(skew)


def log(rotmats: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Skew matrices of rotations, with angles up to pi.

    Exact at every angle for n = 2 and 3. For n > 3, square roots are taken until a series converges. A rotation with an
    angle of pi in some plane (within 1e-6) has no unique logarithm: the result is skew and finite, but not a logarithm.
    """
    n = rotmats.shape[-1]
    if n == 2:
        return so2.hat(so2.log(rotmats))
    if n == 3:
        return hat(so3_log(rotmats))
    eye = torch.eye(n, dtype=rotmats.dtype, device=rotmats.device)
    for _ in range(_HALVINGS):
        rotmats = special_orthogonal(rotmats + eye)
    # tanh of half the logarithm, and the series of atanh.
    half = torch.linalg.solve(rotmats + eye, rotmats - eye)
    square = half @ half
    total = eye / (2 * _TERMS - 1)
    for k in range(_TERMS - 2, -1, -1):
        total = total @ square + eye / (2 * k + 1)
    skew = 2.0 ** (_HALVINGS + 1) * half @ total
    return (skew - skew.mT) / 2
