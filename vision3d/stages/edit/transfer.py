"""Residual transfer: the change between source and edited planes, on the object's own colors.

Planes hold colors down to a texel. What is finer stays in the object: its colors differ from those of the source planes by a
residual, which is added to the edited ones. In L*a*b*, the residual of lightness is scaled like the lightness, so that
contrast relative to the mean stays; that of a* and b* is mapped as the edit maps a* and b* where it changes something, so that
a gray object has no colored details. Where the planes did not change, colors stay.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.scene.lab import lab_to_srgb, srgb_to_lab

_BRIGHTEST = 3.0  # maximum gain of detail, for dark colors that become light
_DARKEST = 4.0  # minimum L* of the denominator of a gain
_SPREAD = 36.0  # variance of a* and b* [dE^2] at which data and prior of the tint have equal weight
_CHANGED = 3.0  # scale of the change [dE] above which a point counts as changed
_KEPT = 20.0  # change of a* and b* [dE] at which half of the residual of a plain object is left


@dataclass(frozen=True, eq=False)
class Transfer:
    """The change of N points."""

    source: Float[Tensor, "n 3"]
    """L*a*b* of the source planes."""
    edited: Float[Tensor, "n 3"]
    """L*a*b* of the edited planes."""
    tint: Float[Tensor, "2 2"]
    """How the residual of a* and b* of changed points is mapped."""

    @classmethod
    def of(
        cls, source: Float[Tensor, "n 3"], edited: Float[Tensor, "n 3"], weights: Float[Tensor, " n"] | None = None
    ) -> "Transfer":
        """The change between colors.

        Args:
            source: sRGB of the source planes at the points.
            edited: sRGB of the edited planes there.
            weights: Of the points, where `tint` is estimated; 1 when None.

        Raises:
            ShapeError: The shapes differ.
        """
        if source.shape != edited.shape or source.ndim != 2:
            raise ShapeError("source, edited", (tuple(source.shape), tuple(edited.shape)), "(N, 3), (N, 3)")
        before, after = srgb_to_lab(source), srgb_to_lab(edited)
        share = _changed(before, after)[:, 0] * (1.0 if weights is None else weights)
        return cls(before, after, _tint(before[:, 1:], after[:, 1:], share))

    def apply(self, colors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """The new colors of the points, sRGB; may lie outside of [0, 1].

        Args:
            colors: Their own, sRGB in [0, 1].
        """
        lab = srgb_to_lab(colors)
        gain = (self.edited[:, :1] / self.source[:, :1].clamp(min=_DARKEST)).clamp(max=_BRIGHTEST)
        gain = torch.where(self.source[:, :1] < _DARKEST, gain.clamp(min=1), gain)
        light = self.edited[:, :1] + (lab[:, :1] - self.source[:, :1]) * gain
        residual = lab[:, 1:] - self.source[:, 1:]
        residual = residual + _changed(self.source, self.edited) * (residual @ self.tint.T - residual)
        tint = self.edited[:, 1:] + residual
        return lab_to_srgb(torch.cat([light, tint], 1))

    def slope(self, colors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
        """Derivatives of `apply`: rows are new red, green and blue, columns the old ones."""
        step = torch.where(colors < 0.5, 0.01, -0.01)
        base = self.apply(colors)
        columns = []
        for channel in range(3):
            moved = colors.clone()
            moved[:, channel] += step[:, channel]
            columns.append((self.apply(moved) - base) / step[:, channel : channel + 1])
        return torch.stack(columns, 2)


def _changed(source: Tensor, edited: Tensor) -> Float[Tensor, "n 1"]:
    """1 for changed points, 0 where nothing changed."""
    return 1 - torch.exp(-(edited - source).square().sum(1, keepdim=True) / _CHANGED**2)


def _tint(source: Tensor, edited: Tensor, weights: Tensor) -> Float[Tensor, "2 2"]:
    """Least squares of the change of a* and b* over the object, towards what a plain object keeps where it has one tint."""
    if not bool(weights.sum() > 0):
        return torch.eye(2).to(source)
    share = (weights / weights.sum()).to(source)[:, None]
    change = float((share[:, 0] * torch.linalg.vector_norm(edited - source, dim=1)).sum())
    kept = 0.5 ** ((change / _KEPT) ** 2) * torch.eye(2).to(source)
    before = source - (share * source).sum(0)
    after = edited - (share * edited).sum(0)
    own, cross = before.T @ (share * before), after.T @ (share * before)
    prior = _SPREAD * torch.eye(2).to(source)
    return (cross + kept @ prior) @ torch.linalg.inv(own + prior)
