"""A scripted cage: points follow the control points of a lattice. No physics; the simplest point engine."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ConfigError, ShapeError
from vision3d.stages.simulate.engines.points import Points


class CageEngine:
    """Free-form deformation (Sederberg and Parry 1986): x = sum of B_i(u) B_j(v) B_k(w) P_ijk.

    Exact if the control points move affinely.

    Args:
        controls: Control points (a, b, c, 3) [m] at a time [s], from their rest positions.
        shape: Number of control points along each axis, at least 2.
        low: Lower corner of their box in the rest state [m]; the box of the points when None.
        high: The opposite corner.
        weights: `bernstein`, smooth over the entire cage; `linear`, trilinear between adjacent control points.

    Example:
        >>> lift = CageEngine(lambda rest, time: rest + torch.tensor([0.0, 0.0, time]))
    """

    def __init__(
        self,
        controls: Callable[[Float[Tensor, "a b c 3"], float], Float[Tensor, "a b c 3"]],
        shape: tuple[int, int, int] = (3, 3, 3),
        low: tuple[float, float, float] | None = None,
        high: tuple[float, float, float] | None = None,
        weights: Literal["bernstein", "linear"] = "bernstein",
    ) -> None:
        if len(shape) != 3 or min(shape) < 2:
            raise ConfigError("shape", f"got {shape}, want at least 2 control points along each axis")
        if weights not in ("bernstein", "linear"):
            raise ConfigError("weights", f"got {weights!r}, want bernstein or linear")
        if low is not None and high is not None and not all(a < b for a, b in zip(low, high)):
            raise ConfigError("high", f"got {high}, want each more than low = {low}")
        self.controls, self.shape, self.low, self.high = controls, shape, low, high
        self._line = _bernstein if weights == "bernstein" else _linear

    def begin(self, points: Points) -> None:
        low = points.x.amin(0) if self.low is None else points.x.new_tensor(self.low)
        high = points.x.amax(0) if self.high is None else points.x.new_tensor(self.high)
        size = (high - low).clamp(min=1e-12 + 1e-6 * float((high - low).max()))  # flat scenes also need a box
        axes = [low[i] + size[i] * torch.linspace(0, 1, count, dtype=points.x.dtype) for i, count in enumerate(self.shape)]
        self.rest = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        u = (points.x - low) / size
        self.weights = [self._line(u[:, i], count) for i, count in enumerate(self.shape)]

    def advance(self, duration: float, time: float) -> Tensor:
        controls = self.controls(self.rest.clone(), time + duration).to(self.rest)
        if controls.shape != self.rest.shape:
            raise ShapeError("controls", tuple(controls.shape), tuple(self.rest.shape))
        return torch.einsum("abcd,na,nb,nc->nd", controls, *self.weights)


def _bernstein(u: Tensor, count: int) -> Tensor:
    n = count - 1
    return torch.stack([math.comb(n, i) * u**i * (1 - u) ** (n - i) for i in range(count)], -1)


def _linear(u: Tensor, count: int) -> Tensor:
    scaled = u * (count - 1)
    cell = scaled.floor().clamp(0, count - 2)
    f = (scaled - cell)[:, None]  # outside the cage the last cell is extrapolated
    first = torch.nn.functional.one_hot(cell.long(), count).to(u)
    return (1 - f) * first + f * first.roll(1, dims=1)
