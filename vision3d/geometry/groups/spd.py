"""Symmetric positive definite matrices: exponential, logarithm, roots, stable for equal eigenvalues.

Closed forms for 2x2 (functions of the mean and the half difference of the eigenvalues, without an eigendecomposition), and
`vision3d.geometry.spectral` for larger ones. Gradients of any order are finite at multiples of the identity.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.geometry import spectral
from vision3d.geometry.smooth import atanh_over, cosh_of, sinh_over
from vision3d.geometry.vectors import length


def exp(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Exponentials of symmetric matrices.

    Example:
        >>> exp(torch.zeros(2, 2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    if _size(matrices) != 2:
        return spectral.exp_symmetric(matrices)
    mean, rest, square = _halves(matrices)
    return mean.exp() * (cosh_of(square) * _eye(matrices) + sinh_over(square) * rest)


def log(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Symmetric logarithms of positive definite matrices; the inverse of `exp`."""
    if _size(matrices) != 2:
        return spectral.log_spd(matrices)
    mean, rest, square = _halves(matrices)
    return (mean.square() - square).log() / 2 * _eye(matrices) + atanh_over(square / mean.square()) / mean * rest


def sqrt(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Positive definite square roots."""
    if _size(matrices) != 2:
        return spectral.sqrt_spd(matrices)
    mean, rest, square = _halves(matrices)
    root = (mean.square() - square).sqrt()
    return (rest + (mean + root) * _eye(matrices)) / (2 * (mean + root)).sqrt()


def inverse_sqrt(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Inverse square roots (for whitening)."""
    return torch.linalg.inv(sqrt(matrices))


def geodesic_distance(matrices: Float[Tensor, "*#batch n n"], others: Float[Tensor, "*#batch n n"]) -> Float[Tensor, "*#batch"]:
    """Length of log(A^-1/2 B A^-1/2): the affine-invariant distance."""
    whiten = inverse_sqrt(matrices)
    return length(log(whiten @ others @ whiten).flatten(-2))


def _size(matrices: Tensor) -> int:
    if matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2]:
        raise ShapeError("matrices", matrices.shape, "(..., n, n)")
    return matrices.shape[-1]


def _halves(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # m I + D with D traceless: D^2 = d^2 I, and the eigenvalues are m - d and m + d.
    a, c, b = matrices[..., 0, 0], matrices[..., 1, 1], (matrices[..., 0, 1] + matrices[..., 1, 0]) / 2
    half = (a - c) / 2
    rest = torch.stack([half, b, b, -half], -1).unflatten(-1, (2, 2))
    return ((a + c) / 2)[..., None, None], rest, (half.square() + b.square())[..., None, None]


def _eye(matrices: Tensor) -> Tensor:
    return torch.eye(2, dtype=matrices.dtype, device=matrices.device)
