"""The delta rule: a token replaces what the state holds for its key, instead of adding to it."""

import math

import torch
from torch import Tensor, nn

from vision3d.core.errors import InputError
from vision3d.stages.detect.operators.base import Operator, RMSNorm, States, SwiGLU, silu_gate, softplus, split_heads
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.scans import delta_rule


class DeltaProduct(Operator):
    """x + DeltaProduct(RMSNorm(x)), then x + SwiGLU(RMSNorm(x)) (Siems et al. 2025, arXiv 2502.10297).

    `steps` delta steps a token, each with its own key, value and beta: S <- S + beta k^T (v - k S), |k| = 1, then o_t = q_t S.
    beta is `max_beta` times a sigmoid; above 1 a step can reflect, and products of reflections are rotations, which is what
    tracking a state needs. With `gated`, S fades before a token's first step (by one factor a head) and the output has a gate.
    The outputs of both directions are added and normalized for each head. Without the short convolutions of the paper's
    language models.

    Args:
        channels: C.
        bidirectional: As in `Operator`.
        drop_path: As in `Operator`.
        steps: Delta steps of a token.
        heads: Divides the channels.
        max_beta: 1 or 2.
        gated: With decay and output gate.
        mlp_ratio: Hidden channels of the SwiGLU for each channel.

    Raises:
        InputError: heads does not divide the channels, steps is below 1, or max_beta is not in (0, 2].
    """

    def __init__(
        self, channels: int, *, bidirectional: bool = True, drop_path: float = 0.0, steps: int = 2, heads: int = 4,
        max_beta: float = 2.0, gated: bool = False, mlp_ratio: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__(channels, bidirectional=bidirectional, drop_path=drop_path)
        if steps < 1:
            raise InputError(f"steps: got {steps}, want at least 1")
        if not 0 < max_beta <= 2:
            raise InputError(f"max_beta: got {max_beta}, want above 0 and at most 2")
        size = split_heads("the operator", channels, heads)
        self.steps, self.heads, self.max_beta, self.gated = steps, heads, max_beta, gated
        self.norm, self.mlp_norm = RMSNorm(channels), RMSNorm(channels)
        self.project = nn.Linear(channels, (1 + 2 * steps) * channels, bias=False)
        self.beta = nn.Linear(channels, steps * heads)
        if gated:
            self.gate = nn.Linear(channels, channels, bias=False)
            self.decay = nn.Linear(channels, heads)
            self.log_rate = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
            with torch.no_grad():  # softplus(bias) is log-uniform from 1e-3 to 1e-1
                delta = torch.exp(torch.rand(heads) * math.log(100) + math.log(1e-3))
                self.decay.bias.copy_(delta + torch.log(-torch.expm1(-delta)))
        self.out_norm = RMSNorm(size)
        self.output = nn.Linear(channels, channels, bias=False)
        self.mlp = SwiGLU(channels, int(mlp_ratio * channels))

    def update(self, x: Tensor, groups: Groups, states: States | None = None) -> tuple[Tensor, States]:
        normed = self.norm(x)
        rows = self.project(normed).unflatten(-1, (1 + 2 * self.steps, self.heads, -1))
        q, k, v = rows[:, 0], rows[:, 1 : 1 + self.steps], rows[:, 1 + self.steps :]
        q, k = (_unit(nn.functional.silu(value)) for value in (q, k))
        beta = self.max_beta * torch.sigmoid(self.beta(normed)).unflatten(-1, (self.steps, self.heads))
        log_decay = -self.log_rate.exp() * softplus(self.decay(normed)) if self.gated else None

        def scan(**options):
            return delta_rule(q, k, v, beta, log_decay, groups, **options)

        y, after = self.both_ways(scan, states)
        y = self.out_norm(y).flatten(1)
        if self.gated:
            y = silu_gate(self.gate(normed), y)
        x = self.add(x, self.output(y), groups)
        return self.add(x, self.mlp(self.mlp_norm(x)), groups), after


class DeltaNet(DeltaProduct):
    """One delta step a token, beta in (0, 1) (Yang et al. 2024, arXiv 2406.06484); see `DeltaProduct`."""

    def __init__(
        self, channels: int, *, bidirectional: bool = True, drop_path: float = 0.0, heads: int = 4, max_beta: float = 1.0,
        mlp_ratio: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__(
            channels, bidirectional=bidirectional, drop_path=drop_path, steps=1, heads=heads, max_beta=max_beta,
            mlp_ratio=mlp_ratio,
        )  # fmt: skip


class GatedDeltaNet(DeltaProduct):
    """One delta step a token with decay and output gate (Yang et al. 2025, arXiv 2412.06464); see `DeltaProduct`."""

    def __init__(
        self, channels: int, *, bidirectional: bool = True, drop_path: float = 0.0, heads: int = 4, max_beta: float = 1.0,
        mlp_ratio: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__(
            channels, bidirectional=bidirectional, drop_path=drop_path, steps=1, heads=heads, max_beta=max_beta, gated=True,
            mlp_ratio=mlp_ratio,
        )  # fmt: skip


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; zeros stay zeros, with a gradient that does not overflow in the layers before."""
    return rows * torch.rsqrt(rows.square().sum(-1, keepdim=True) + 1e-6)
