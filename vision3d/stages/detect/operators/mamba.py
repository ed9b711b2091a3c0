"""Mamba-1 as in LION: selective state spaces, both directions with their own convolution, projections and rates."""

import math

import torch
from torch import Tensor, nn

from vision3d.core.errors import InputError
from vision3d.stages.detect.operators.base import Operator, States, silu_gate, softplus
from vision3d.stages.detect.operators.convolution import shifted_sum
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.scans import selective_scan


class _Direction(nn.Module):
    """What each direction has for itself."""

    def __init__(self, inner: int, state: int, conv: int, rank: int) -> None:
        super().__init__()
        self.rank, self.state_size = rank, state
        self.conv = nn.Conv1d(inner, inner, conv, groups=inner)  # its weights; see shifted_sum
        self.project = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, inner)
        self.log_rates = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():  # softplus(bias) is log-uniform from 1e-3 to 1e-1
            delta = torch.exp(torch.rand(inner) * (math.log(0.1) - math.log(1e-3)) + math.log(1e-3)).clamp(min=1e-4)
            self.step.bias.copy_(delta + torch.log(-torch.expm1(-delta)))

    def forward(
        self, x: Tensor, groups: Groups, reverse: bool, states: States | None, is_carried: bool
    ) -> tuple[Tensor, States]:
        before = None if states is None else states["conv"]
        width = self.conv.kernel_size[0] - 1
        mixed = shifted_sum(x, self.conv.weight[:, 0], self.conv.bias, groups, reverse, before)
        mixed = nn.functional.silu(mixed)
        delta, B, C = self.project(mixed).split([self.rank, self.state_size, self.state_size], -1)
        delta = softplus(self.step(delta))
        first = None if states is None else states["state"]
        y, last = selective_scan(
            mixed, delta, -self.log_rates.exp(), B, C, groups, skip=self.skip, state=first, reverse=reverse
        )
        return y, {"conv": groups.tail(x, width, before), "state": last} if is_carried else {}


class Mamba(Operator):
    """x + LayerNorm(Mamba(x)) (Gu & Dao 2023, arXiv 2312.00752; bidirectional as in LION, arXiv 2407.18232).

    Both directions share the input projection, the gate and the output projection. Weight decay should exclude the parameters
    `log_rates` and `skip`.

    Args:
        channels: C.
        bidirectional: As in `Operator`.
        drop_path: As in `Operator`.
        state: N, states of each inner channel.
        conv: Width of the convolution.
        expand: Inner channels for each channel.

    Raises:
        InputError: A size is below 1.
    """

    def __init__(
        self,
        channels: int,
        *,
        bidirectional: bool = True,
        drop_path: float = 0.0,
        state: int = 16,
        conv: int = 4,
        expand: int = 2,
    ) -> None:
        super().__init__(channels, bidirectional=bidirectional, drop_path=drop_path)
        for name, value in (("state", state), ("conv", conv), ("expand", expand)):
            if value < 1:
                raise InputError(f"{name}: got {value}, want at least 1")
        inner = expand * channels
        self.input = nn.Linear(channels, 2 * inner, bias=False)
        self.directions = nn.ModuleList(
            _Direction(inner, state, conv, -(-channels // 16)) for _ in range(1 + bidirectional)
        )  # fmt: skip
        self.output = nn.Linear(inner, channels, bias=False)
        self.norm = nn.LayerNorm(channels)

    def update(self, x: Tensor, groups: Groups, states: States | None = None) -> tuple[Tensor, States]:
        inner, gate = self.input(x).chunk(2, -1)
        y, after = self.directions[0](inner, groups, False, states, not self.bidirectional)
        if self.bidirectional:
            y = y + self.directions[1](inner, groups, True, None, False)[0]
        return self.add(x, self.norm(self.output(silu_gate(gate, y))), groups), after
