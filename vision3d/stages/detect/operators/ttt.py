"""TTT-Linear: the state is a linear layer, trained by gradient steps on the tokens that it has seen."""

import torch
from torch import Tensor, nn

from vision3d.core.errors import InputError
from vision3d.stages.detect.operators.base import Operator, RMSNorm, States, SwiGLU, split_heads
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.reference import ttt
from vision3d.stages.detect.operators.scans import on_padded

BATCH = 16
"""Tokens of a gradient step."""


class TTT(Operator):
    """x + TTT(RMSNorm(x)), then x + SwiGLU(RMSNorm(x)) (Sun et al. 2024, arXiv 2407.04620).

    The state of a head is W (f, f) and b. For a batch of 16 tokens the loss is |LN(k W + b) - (v - k)|^2 / 2, its gradient is
    taken at the state in front of the batch, and token t reads q + LN(q W_t + b_t) from the steps of tokens up to t, with the
    learning rate sigmoid(x w) / f and a factor max(1 / (t + 1) + learned, 0) for the place t of the reader. q and k are rotated
    by the place in the batch. Both directions share everything; their outputs are added (LION's code is causal).

    Args:
        channels: C.
        bidirectional: As in `Operator`.
        drop_path: As in `Operator`.
        heads: Divides the channels, into heads of an even size.
        mlp_ratio: Hidden channels of the SwiGLU for each channel.
        base_lr: Factor of the learning rate.

    Raises:
        InputError: heads does not divide the channels into an even size.
    """

    def __init__(
        self, channels: int, *, bidirectional: bool = True, drop_path: float = 0.0, heads: int = 4, mlp_ratio: float = 2.0,
        base_lr: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(channels, bidirectional=bidirectional, drop_path=drop_path)
        self.heads, self.size, self.base_lr = heads, split_heads("the operator", channels, heads), base_lr
        if self.size % 2:
            raise InputError(f"heads: got {heads} for {channels} channels, want an even number of channels for each head")
        self.norm, self.mlp_norm, self.out_norm = RMSNorm(channels), RMSNorm(channels), nn.LayerNorm(channels)
        self.project = nn.Linear(channels, 3 * channels, bias=False)
        self.rate = nn.Linear(channels, heads)
        self.places = nn.Parameter(torch.zeros(BATCH))
        self.weight = nn.Parameter(0.02 * torch.randn(heads, self.size, self.size))
        self.bias = nn.Parameter(torch.zeros(heads, self.size))
        self.ln_weight, self.ln_bias = nn.Parameter(torch.ones(heads, self.size)), nn.Parameter(torch.zeros(heads, self.size))
        self.output = nn.Linear(channels, channels, bias=False)
        self.mlp = SwiGLU(channels, int(mlp_ratio * channels))

    def update(self, x: Tensor, groups: Groups, states: States | None = None) -> tuple[Tensor, States]:
        normed = self.norm(x)
        q, k, v = self.project(normed).unflatten(-1, (3, self.heads, -1)).unbind(1)
        rates = torch.sigmoid(self.rate(normed))
        if self.bidirectional:  # both directions as twice as many groups: half as many steps in the loop over batches
            twice = Groups(torch.cat([groups.starts, groups.starts[1:] + groups.rows]), groups.size)
            q, k, v, rates = (torch.cat([value, groups.flipped(value)]) for value in (q, k, v, rates))
            y, after = self._scan(q, k, v, rates, twice, None)
            y = y[: groups.rows] + groups.flipped(y[groups.rows :])
        else:
            y, after = self._scan(q, k, v, rates, groups, states)
        x = self.add(x, self.output(self.out_norm(y.flatten(1))), groups)
        return self.add(x, self.mlp(self.mlp_norm(x)), groups), after

    def _scan(
        self, q: Tensor, k: Tensor, v: Tensor, rates: Tensor, groups: Groups, states: States | None
    ) -> tuple[Tensor, States]:
        """In batches of tokens from the beginning of a sequence, one token after the other from a carried state."""
        if states is None:
            W, b = (value.expand(groups.count, *value.shape) for value in (self.weight, self.bias))
            place = torch.zeros(groups.count, dtype=torch.int64, device=q.device)
            layer, form = ttt.Layer(W, b, torch.zeros_like(W), torch.zeros_like(b), place), ttt.by_batch
        else:
            layer, form = ttt.Layer(**states), ttt.by_token
        index = torch.arange(1, BATCH + 1, device=q.device, dtype=q.dtype)
        places = (1 / index + self.places).clamp(min=0)

        def scan(q: Tensor, k: Tensor, v: Tensor, rates: Tensor, valid: Tensor) -> tuple[Tensor, ttt.Layer]:
            tokens = ttt.Tokens(q, k, v, rates * (self.base_lr / self.size), valid[..., 0] > 0)
            return form(tokens, places, (self.ln_weight, self.ln_bias), layer)

        y, last = on_padded(scan, groups, False, q, k, v, rates, torch.ones_like(rates[:, :1]))
        return y, last._asdict()
