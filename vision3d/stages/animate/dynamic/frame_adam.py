"""Adam for per-frame parameters."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class FrameAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) in which each row of a parameter is a frame with its own moments and step count.

    Rows without gradient do not change: with a common step count, frames that are not in a step would drift by their momentum.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-15) -> None:
        super().__init__(groups, {"lr": 1e-3, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the rows that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, parameter.grad, self.state[parameter], group)

    @torch.no_grad()
    def forget(self, parameter: Tensor, row: int) -> None:
        """Reset the state of a row, for example after its frame was set to another value."""
        for value in self.state.get(parameter, {}).values():
            value[row] = 0


def _update(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    if not state:
        state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["count"] = parameter.new_zeros(len(parameter))
    (low, high), shape = group["betas"], (-1, *[1] * (parameter.ndim - 1))
    rows = (gradient.flatten(1) != 0).any(1).nonzero()[:, 0]
    slopes, count = gradient[rows], state["count"][rows] + 1
    mean = torch.lerp(state["mean"][rows], slopes, 1 - low)
    square = torch.lerp(state["square"][rows], slopes.square(), 1 - high)
    state["mean"][rows], state["square"][rows], state["count"][rows] = mean, square, count
    mean = mean / (1 - low**count).view(shape)
    parameter[rows] -= group["lr"] * mean / ((square / (1 - high**count).view(shape)).sqrt() + group["eps"])
