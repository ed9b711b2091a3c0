"""Adam for per-view parameters of which a step uses only some: camera poses and exposures."""

import torch
from jaxtyping import Float
from torch import Tensor


class ViewParameters:
    """One row per training view, each with its own Adam (Kingma and Ba 2015): rows not used by a step do not change.

    Args:
        initial: The rows at step 0, and the target of the regularizer.
        weight: Weight of the squared distance from them.
        betas: Decay of the moments.
    """

    def __init__(self, initial: Float[Tensor, "c d"], weight: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self.initial, self.weight, self.betas = initial, weight, betas
        self.values = initial.clone()
        self.first, self.second = torch.zeros_like(initial), torch.zeros_like(initial)
        self.steps = torch.zeros(len(initial), 1, device=initial.device)
        self.grads = torch.zeros_like(initial)
        self.seen = torch.zeros_like(self.steps)

    def leaf(self, place: int) -> Float[Tensor, " d"]:
        """The row of a view, as a leaf that receives a gradient."""
        return self.values[place].detach().clone().requires_grad_()

    def collect(self, place: int, leaf: Float[Tensor, " d"]) -> None:
        """Store the gradient of a leaf after its backward pass."""
        if leaf.grad is not None:
            self.grads[place] += leaf.grad
            self.seen[place] = 1

    def step(self, learning_rate: float) -> None:
        """One step of the rows with stored gradients."""
        rows = self.seen[:, 0].nonzero()[:, 0]
        grad = self.grads[rows] + 2 * self.weight * (self.values - self.initial)[rows]
        self.steps[rows] += 1
        beta1, beta2 = self.betas
        self.first[rows] = first = torch.lerp(self.first[rows], grad, 1 - beta1)
        self.second[rows] = second = torch.lerp(self.second[rows], grad.square(), 1 - beta2)
        count = self.steps[rows]
        root = (second / (1 - beta2**count)).sqrt() + 1e-15
        self.values[rows] -= learning_rate * first / (1 - beta1**count) / root
        self.drop()

    def drop(self) -> None:
        """Discard the stored gradients."""
        self.grads.zero_()
        self.seen.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """State needed for exact resume."""
        return {name: getattr(self, name).clone() for name in ("values", "first", "second", "steps")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        for name, value in state.items():
            getattr(self, name).copy_(value)
