"""The polar chart of linear maps of the plane in closed form: GL+(2), SL(2) and SO(2).

A map g with det g > 0 is exp(Y) R in exactly one way, Y symmetric and R a rotation: the chart (Y, angle). Unlike exp of a
general matrix it covers every g, including diag(-2, -1/2) and -1. Eigenvectors are never formed, so gradients are finite at
equal eigenvalues, where g is a scaled rotation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.checks import check_trailing
from vision3d.geometry.groups import so2, spd
from vision3d.geometry.smooth import atan2, atanh_over

_SQRT2 = math.sqrt(2)


def polar2(maps: Float[Tensor, "*batch 2 2"]) -> tuple[Float[Tensor, "*batch 2 2"], Float[Tensor, "*batch"]]:
    """The polar chart (Y, angle) of maps with positive determinant: g = exp(Y) R(angle), angle in (-pi, pi].

    For other maps the result is not finite.

    Example:
        >>> log_p, angle = polar2(torch.tensor([[0.0, -2.0], [2.0, 0.0]]))  # scaled by 2 and rotated by 90 degrees
        >>> log_p[0, 0].exp(), angle
        (tensor(2.), tensor(1.5708))
    """
    check_trailing("maps", maps, 2, 2)
    g00, g01, g10, g11 = maps.flatten(-2).unbind(-1)
    angle = atan2(g10 - g01, g00 + g11)
    c, s = angle.cos(), angle.sin()
    # P = g R^T: its entries follow from the parts of g that commute and anticommute with R.
    mean = torch.hypot(g00 + g11, g10 - g01) / 2
    a, b = (g00 - g11) / 2, (g01 + g10) / 2
    a, b = c * a - s * b, s * a + c * b
    return _log_of(mean, a, b), angle


def from_polar2(log_p: Float[Tensor, "*#batch 2 2"], angles: Float[Tensor, "*#batch"]) -> Float[Tensor, "*#batch 2 2"]:
    """The map exp(Y) R(angle)."""
    return spd.exp(log_p) @ so2.exp(angles)


def inverse_from_polar2(log_p: Float[Tensor, "*#batch 2 2"], angles: Float[Tensor, "*#batch"]) -> Float[Tensor, "*#batch 2 2"]:
    """The inverse of exp(Y) R(angle), from the negated coordinates."""
    return so2.exp(-angles) @ spd.exp(-log_p)


def sym2_to_coordinates(sym: Float[Tensor, "*batch 2 2"], *, traceless: bool = False) -> Float[Tensor, "*batch k"]:
    """Coordinates in an orthonormal basis under tr(X^T Y): (Y11, sqrt2 Y12, Y22), or ((Y11 - Y22) / sqrt2, sqrt2 Y12)."""
    check_trailing("sym", sym, 2, 2)
    y11, y12, y22 = sym[..., 0, 0], sym[..., 0, 1], sym[..., 1, 1]
    parts = [(y11 - y22) / _SQRT2, _SQRT2 * y12] if traceless else [y11, _SQRT2 * y12, y22]
    return torch.stack(parts, -1)


def coordinates_to_sym2(coordinates: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch 2 2"]:
    """The symmetric matrix of 3 coordinates, or the traceless one of 2."""
    if coordinates.shape[-1] == 2:
        a, b = (coordinates / _SQRT2).unbind(-1)
        entries = [a, b, b, -a]
    else:
        check_trailing("coordinates", coordinates, 3)
        y11, y12, y22 = coordinates.unbind(-1)
        entries = [y11, y12 / _SQRT2, y12 / _SQRT2, y22]
    return torch.stack(entries, -1).unflatten(-1, (2, 2))


def _log_of(mean: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """log of [[mean + a, b], [b, mean - a]]: log sqrt(det) + (atanh(t) / t) D / mean with t = d / mean."""
    ratio = (a.square() + b.square()) / mean.square()
    half_log_det = mean.log() + torch.log1p(-ratio) / 2
    factor = atanh_over(ratio) / mean
    a, b = factor * a, factor * b
    return torch.stack([half_log_det + a, b, b, half_log_det - a], -1).unflatten(-1, (2, 2))
