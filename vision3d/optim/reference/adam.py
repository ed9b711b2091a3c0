"""One Adam step in plain torch, in place."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def adam_step(
    param: Float[Tensor, "n ..."],
    grad: Float[Tensor, "n ..."],
    exp_avg: Float[Tensor, "n ..."],
    exp_avg_sq: Float[Tensor, "n ..."],
    visible: Bool[Tensor, " n"] | None,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """Kingma and Ba 2015, algorithm 1, for the rows in `visible` (all for None); `step` counts from 1."""
    rows = slice(None) if visible is None else visible
    g = grad[rows]
    first = torch.lerp(exp_avg[rows], g, 1 - beta1)
    second = beta2 * exp_avg_sq[rows] + (1 - beta2) * g * g
    denominator = second.sqrt() / (1 - beta2**step) ** 0.5 + eps
    param[rows] -= learning_rate / (1 - beta1**step) * first / denominator
    exp_avg[rows], exp_avg_sq[rows] = first, second
