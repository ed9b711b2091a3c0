"""The invariant measure of groups of planar maps in the polar chart g = exp(Y) R, and sampling.

GL+(2), SL(2) and SO(2) are unimodular. In the chart dmu = J dY dR with J = sinh(d) / d, d the difference of the eigenvalues of
Y (Helgason, Groups and Geometric Analysis, I.5), dY the Lebesgue measure of orthonormal coordinates and dR of total mass 1.
The group is not compact, so samples are drawn from a density p(Y), and weights J / p turn their mean into an integral over
the group, for functions supported where p is."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ConfigError, nearest_names
from vision3d.geometry.groups.planar import (
    coordinates_to_sym2,
    from_polar2,
    inverse_from_polar2,
    polar2,
    sym2_to_coordinates,
)
from vision3d.geometry.smooth import sinh_over, wrapped

PlanarGroup = Literal["so2", "sl2", "gl2"]
"""Rotations; area-preserving maps; all maps with positive determinant."""
Proposal = Literal["ball", "normal"]
"""Density of Y: uniform in a ball, or normal."""
Angles = Literal["even", "uniform", "published"]
"""Evenly spaced with one random offset; independent; the grid from -pi to pi including both ends (the same rotation)."""
_NUM_SYM = {"so2": 0, "sl2": 2, "gl2": 3}


@dataclass(frozen=True)
class GroupSamples:
    """Elements of a group of planar maps, with their weights for integrals."""

    group: PlanarGroup
    log_p: Float[Tensor, "n 2 2"]
    """Y of g = exp(Y) R; zero for so2, traceless for sl2."""
    angles: Float[Tensor, " n"]
    """Of R [rad]."""
    weights: Float[Tensor, " n"]
    """The mean of weights * f is the integral of f."""

    def __len__(self) -> int:
        return len(self.angles)

    def matrices(self) -> Float[Tensor, "n 2 2"]:
        """g."""
        return from_polar2(self.log_p, self.angles)

    def inverses(self) -> Float[Tensor, "n 2 2"]:
        """g^-1, from the negated coordinates."""
        return inverse_from_polar2(self.log_p, self.angles)

    def determinants(self) -> Float[Tensor, " n"]:
        """det g = exp(tr Y) > 0."""
        return self.log_p.diagonal(dim1=-2, dim2=-1).sum(-1).exp()

    def to(self, like: Tensor) -> "GroupSamples":
        """Convert to the dtype and device of another tensor."""
        return GroupSamples(self.group, self.log_p.to(like), self.angles.to(like), self.weights.to(like))


def check_group(name: str) -> PlanarGroup:
    """Return the name if it is one of `PlanarGroup`.

    Raises:
        ConfigError: It is not.
    """
    if name not in get_args(PlanarGroup):
        raise ConfigError("group", f"{name!r} is not a group of planar maps; {nearest_names(name, get_args(PlanarGroup))}")
    return name  # pyright: ignore[reportReturnType]


def haar_density(log_p: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch"]:
    """J = sinh(d) / d of the polar chart, d the difference of the eigenvalues of Y; 1 at Y = 0, smooth."""
    a, b = (log_p[..., 0, 0] - log_p[..., 1, 1]) / 2, (log_p[..., 0, 1] + log_p[..., 1, 0]) / 2
    return sinh_over(4 * (a.square() + b.square()))


def relative_coordinates(
    group: PlanarGroup, left: GroupSamples, right: GroupSamples
) -> tuple[Float[Tensor, "n m k"], Float[Tensor, "n m"]]:
    """Chart of h^-1 g for every h of `left` and g of `right`: coordinates of Y (0, 2 or 3) and the angle in [-pi, pi]."""
    if group == "so2":
        angles = wrapped(right.angles[None, :] - left.angles[:, None])
        return angles.new_zeros(*angles.shape, 0), angles
    log_p, angles = polar2(left.inverses()[:, None] @ right.matrices()[None])
    return sym2_to_coordinates(log_p, traceless=group == "sl2"), wrapped(angles)


def sample_group(
    group: PlanarGroup,
    count: int,
    *,
    spread: float = 0.158,
    proposal: Proposal = "ball",
    angles: Angles = "even",
    window: float = math.pi,
    weighted: bool = True,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> GroupSamples:
    """Random elements exp(Y) R.

    Args:
        group: `so2`, `sl2` or `gl2`.
        count: Number of samples.
        spread: Standard deviation of each coordinate of Y, for either proposal.
        proposal: Distribution of Y. The normal one covers the whole space, but its weights have a heavy tail.
        angles: Distribution of R.
        window: Maximum angle of R from the identity [rad]; None for no limit. Means then apply to functions supported there.
        weighted: Whether the weights are those of the invariant measure, J / p divided by the volume of the proposal's ball, so
            that they are about 1; else all are 1, which gives the integral with respect to p itself.
        generator: Random generator.

    Raises:
        ConfigError: The group is unknown, or the window is not a valid angle.
    """
    check_group(group)
    if not 0 < window <= math.pi:
        raise ConfigError("window", f"got {window:g}, want an angle in (0, pi]")
    turns = _angles(count, angles, window, generator, dtype)
    dims = _NUM_SYM[group]
    if dims == 0:
        return GroupSamples(group, torch.zeros(count, 2, 2, dtype=dtype), turns, torch.ones(count, dtype=dtype))
    coordinates = torch.randn(count, dims, generator=generator, dtype=dtype)
    if proposal == "ball":
        radius = spread * math.sqrt(dims + 2)  # E |x|^2 = dims / (dims + 2) radius^2
        length = torch.rand(count, 1, generator=generator, dtype=dtype) ** (1 / dims)
        coordinates = radius * length * torch.nn.functional.normalize(coordinates, dim=-1)
        density = torch.ones(count, dtype=dtype)  # times the volume of the ball
    else:
        density = torch.exp(-coordinates.square().sum(-1) / 2) * _normal_peak(dims)
        coordinates = spread * coordinates
    log_p = coordinates_to_sym2(coordinates)
    weights = haar_density(log_p) / density if weighted else torch.ones(count, dtype=dtype)
    return GroupSamples(group, log_p, turns, weights)


def ball_volume(group: PlanarGroup, spread: float) -> float:
    """Volume of the ball given by `spread`; mean(weights f) of `sample_group` times it is the integral over the group."""
    dims = _NUM_SYM[group]
    return math.pi ** (dims / 2) / math.gamma(dims / 2 + 1) * (spread * math.sqrt(dims + 2)) ** dims


def _normal_peak(dims: int) -> float:
    """Peak of the normal density of standard deviation 1, relative to the uniform density in its ball."""
    return math.pi ** (dims / 2) / math.gamma(dims / 2 + 1) * (dims + 2) ** (dims / 2) / (2 * math.pi) ** (dims / 2)


def _angles(count: int, kind: Angles, window: float, generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
    if kind == "published":
        return window / math.pi * torch.linspace(-math.pi, math.pi, count, dtype=dtype)
    if kind not in ("even", "uniform"):
        raise ConfigError("angles", f"got {kind!r}; {nearest_names(kind, get_args(Angles))}")
    offsets = torch.rand(1 if kind == "even" else count, generator=generator, dtype=dtype)
    steps = (torch.arange(count, dtype=dtype) + offsets) / count if kind == "even" else offsets
    return wrapped(window * (2 * steps - 1))
