"""Exponential moving averages of network parameters, for evaluation and use."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """Moving averages of the parameters and float buffers of a network.

    Initial values get less weight: the decay after n updates is min(decay, (1 + n) / (10 + n)).

    Args:
        network: The network to average.
        decay: Decay per step, in [0, 1).

    Example:
        >>> network = nn.Linear(2, 2)
        >>> ema = Ema(network, 0.99)
        >>> ema.update()  # after each step of the optimizer
        >>> with ema.applied():
        ...     output = network(torch.zeros(1, 2))
    """

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        self.decay, self.updates = decay, 0
        self._values = {name: value for name, value in network.state_dict(keep_vars=True).items() if value.is_floating_point()}
        self.averages = {name: value.detach().clone() for name, value in self._values.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the current values."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, average in self.averages.items():
            average.lerp_(self._values[name], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averages in the network until the end of the block."""
        own: dict[str, Tensor] = {name: value.detach().clone() for name, value in self._values.items()}
        self._set(self.averages)
        try:
            yield
        finally:
            self._set(own)

    def state_dict(self) -> dict[str, Any]:
        """For `load_state_dict`."""
        return {"updates": self.updates, "averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.updates = state["updates"]
        for name, average in self.averages.items():
            average.copy_(state["averages"][name])

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, value in self._values.items():
            value.copy_(values[name])
