"""Adam for per-view parameters of which a step uses only some: camera poses and exposures."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.device import sent


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

    def step(self, learning_rate: float, places: Sequence[int]) -> None:
        """One step of the rows with stored gradients.

        Args:
            learning_rate: Learning rate.
            places: The rows that may have one: the views of the batch. On a GPU, finding them would wait for it.
        """
        rows = sent(torch.tensor(sorted(set(places))), self.values.device)
        grad = self.grads[rows] + 2 * self.weight * (self.values - self.initial)[rows]
        beta1, beta2 = self.betas
        count = self.steps[rows] + 1
        first = torch.lerp(self.first[rows], grad, 1 - beta1)
        second = torch.lerp(self.second[rows], grad.square(), 1 - beta2)
        root = (second / (1 - beta2**count)).sqrt() + 1e-15
        values = self.values[rows] - learning_rate * first / (1 - beta1**count) / root
        is_seen = self.seen[rows] > 0
        new = ((self.steps, count), (self.first, first), (self.second, second), (self.values, values))
        for kept, value in new:
            kept[rows] = torch.where(is_seen, value, kept[rows])
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
