"""Rotations in the plane; the tangent is one angle [rad]."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.checks import check_trailing
from vision3d.geometry.smooth import atan2
from vision3d.geometry.vectors import axis_vector, nan_for_nan, unit


def exp(angles: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2 2"]:
    """Rotation matrices from x towards y.

    Example:
        >>> exp(torch.tensor(torch.pi / 2)) @ torch.tensor([1.0, 0.0])
        tensor([-4.3711e-08,  1.0000e+00])
    """
    return _from_pair(angles.cos(), angles.sin())


def log(rotmats: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch"]:
    """Angles [rad, -pi to pi]; for other matrices, the angle of the nearest rotation."""
    check_trailing("rotmats", rotmats, 2, 2)
    sine = rotmats[..., 1, 0] - rotmats[..., 0, 1]
    return atan2(sine, rotmats[..., 0, 0] + rotmats[..., 1, 1])


def from_vector(vectors: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2 2"]:
    """Rotations that map x to the direction of (cos, sin), of any length; the identity for zero. Continuous, as `to_vector`."""
    check_trailing("vectors", vectors, 2)
    return _from_pair(*unit(vectors, fallback=axis_vector(vectors, 0, 2)).unbind(-1))


def to_vector(rotmats: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch 2"]:
    """(cos, sin): the first columns."""
    check_trailing("rotmats", rotmats, 2, 2)
    return nan_for_nan(rotmats[..., 0], rotmats, 2, 1)


def hat(angles: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2 2"]:
    """Skew matrices [0 -a; a 0]."""
    zero = torch.zeros_like(angles)
    return torch.stack([zero, -angles, angles, zero], -1).unflatten(-1, (2, 2))


def adjoint(rotmats: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch 1 1"]:
    """One: planar rotations commute. The Jacobians are one as well."""
    return torch.ones_like(rotmats[..., :1, :1])


def _from_pair(cosines: Tensor, sines: Tensor) -> Tensor:
    return torch.stack([cosines, -sines, sines, cosines], -1).unflatten(-1, (2, 2))
