"""One training step of a network: learning rate, loss, gradients, optimizer, moving averages."""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vision3d.core.errors import NumericalError
from vision3d.training.ema import Ema
from vision3d.training.group import Group

Loss = Callable[[int], tuple[Tensor, Mapping[str, float]]]


def adamw(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    is_decayed: Callable[[str, Tensor], bool] = lambda _, p: p.ndim >= 2,
    factor: Callable[[str], float] = lambda _: 1.0,
) -> torch.optim.AdamW:
    """AdamW whose weight decay leaves out some parameters, by default norms and biases.

    Args:
        network: Its parameters.
        lr: Learning rate.
        weight_decay: Of the others.
        is_decayed: By name and parameter.
        factor: Of the learning rate, by name.
    """
    found: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in network.named_parameters():
        found.setdefault((is_decayed(name, parameter), factor(name)), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, **({} if decays else {"weight_decay": 0.0}), **({} if share == 1 else {"factor": share})}
        for (decays, share), parameters in found.items()
    ]
    return torch.optim.AdamW(groups, lr, weight_decay=weight_decay, fused=True)


class NetworkTrainer:
    """A network with its optimizer, for `Loop.run`.

    Args:
        network: In training mode during a step.
        optimizer: Optimizer of its parameters; a parameter group may have a `factor` of the learning rate.
        loss: The loss of step number n on this process's part of the batch, and further metrics. Its randomness should depend
            only on n and a seed.
        rate: Learning rate at a progress in [0, 1), such as `one_cycle`.
        clip_norm: Maximum norm of the gradient; larger ones are scaled down. None: no limit.
        ema: Moving averages to update.
        autocast: Whether to compute the loss in bfloat16 if that is fast (CUDA); parameters stay float32.
        group: The processes that train together: gradients and float buffers are averaged.
        what: Name for messages, such as "loss of 6d".
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        rate: Callable[[float], float],
        *,
        clip_norm: float | None = None,
        ema: Ema | None = None,
        autocast: bool = False,
        group: Group | None = None,
        what: str = "loss",
    ) -> None:
        self.network, self.optimizer, self.loss, self.rate = network, optimizer, loss, rate
        self.clip_norm, self.ema, self.group, self.what = clip_norm, ema, group or Group(), what
        self._device = next(network.parameters()).device.type
        self.autocast = autocast and self._device == "cuda"

    def step(self, step: int, progress: float) -> dict[str, float]:
        """Do step number `step`; returns `loss`, `lr`, and the further metrics of the loss.

        Raises:
            NumericalError: The loss, or the norm of a clipped gradient, is not finite; nothing was changed.
        """
        rate = self.rate(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        self.network.train()
        casting = torch.autocast(self._device, torch.bfloat16) if self.autocast else contextlib.nullcontext()
        with casting:
            loss, values = self.loss(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        value = loss.detach().float().clone()
        self._average(value)
        if not math.isfinite(float(value)):
            raise NumericalError(step, self.what, "give a smaller --lr")
        if self.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
            if not math.isfinite(float(norm)):
                raise NumericalError(step, f"gradient of the {self.what}", "give a smaller --lr")
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()
        return {"loss": float(value), "lr": rate, **values}

    def state_dict(self) -> dict[str, Any]:
        """Network, optimizer and averages."""
        averages = {} if self.ema is None else {"ema": self.ema.state_dict()}
        return {"network": dict(self.network.state_dict()), "optimizer": self.optimizer.state_dict(), **averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])

    def _average(self, loss: Tensor) -> None:
        if self.group.size == 1:
            return
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        buffers = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        self.group.mean([loss, *gradients, *buffers])
