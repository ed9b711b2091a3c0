"""Means of rotations, and distances between them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.checks import check_trailing
from vision3d.geometry.procrustes import special_orthogonal
from vision3d.geometry.quaternion import normalize, positive_w
from vision3d.geometry.rotation import geodesic_distance, so3_exp, so3_log
from vision3d.geometry.spectral import least_eigenvector
from vision3d.geometry.vectors import length

__all__ = ["chordal_distance", "chordal_mean", "geodesic_distance", "karcher_mean", "quaternion_mean"]

Weights = Float[Tensor, "*#batch k"] | None


def chordal_distance(rotmats: Float[Tensor, "*#batch n n"], others: Float[Tensor, "*#batch n n"]) -> Float[Tensor, "*#batch"]:
    """Frobenius norm of the difference: 2 sqrt 2 sin(angle / 2) for n = 3. Gradient zero at equality."""
    return length((rotmats - others).flatten(-2))


def chordal_mean(rotmats: Float[Tensor, "*batch k n n"], weights: Weights = None) -> Float[Tensor, "*batch n n"]:
    """The rotation with the smallest (weighted) sum of squared chordal distances: the one nearest to the average matrix.

    Unique unless the average is singular, as that of all rotations is; in that case any minimum is returned.
    """
    return special_orthogonal((rotmats * _shares(rotmats[..., 0, 0], weights)[..., None, None]).sum(-3))


def karcher_mean(
    rotmats: Float[Tensor, "*batch k 3 3"], weights: Weights = None, steps: int = 12
) -> Float[Tensor, "*batch 3 3"]:
    """The rotation with the smallest (weighted) sum of squared angles, by steps along the mean of the logarithms.

    Valid if all rotations are within 90 degrees of some rotation; then twelve steps from the chordal mean converge to rounding
    for spreads up to about 60 degrees, and gradients flow through all steps.
    """
    check_trailing("rotmats", rotmats, 3, 3)
    shares = _shares(rotmats[..., 0, 0], weights)[..., None]
    mean = chordal_mean(rotmats, weights)
    for _ in range(steps):
        mean = mean @ so3_exp((shares * so3_log(mean.mT[..., None, :, :] @ rotmats)).sum(-2))
    return mean


def quaternion_mean(quats: Float[Tensor, "*batch k 4"], weights: Weights = None) -> Float[Tensor, "*batch 4"]:
    """Unit quaternion (w >= 0) of the chordal mean: the main eigenvector of the average of q q^T; Markley et al. 2007.

    The signs of the quaternions do not matter.
    """
    check_trailing("quats", quats, 4)
    quats = normalize(quats)
    shares = _shares(quats[..., 0], weights)[..., None, None]
    outer = (shares * quats[..., :, None] * quats[..., None, :]).sum(-3)
    return positive_w(least_eigenvector(-outer))


def haar_angle_density(angles: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Density (1 - cos a) / pi of the angle [rad, 0 to pi] of a rotation that is uniform over SO(3)."""
    return (1 - angles.cos()) / math.pi


def _shares(like: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return torch.full_like(like, 1 / max(like.shape[-1], 1))
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total == 0, 1, total)
