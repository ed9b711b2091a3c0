"""Retention: linear attention with one constant decay for each head."""

import torch
from torch import Tensor, nn

from vision3d.stages.detect.operators.base import Operator, States, split_heads
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.scans import decayed_attention


class RetNet(Operator):
    """x + W_o Retention(LayerNorm(x)), then x + MLP(LayerNorm(x)) (Sun et al. 2023, arXiv 2307.08621, as in LION).

    S_t = gamma S_{t-1} + k_t^T v_t, o_t = q_t S_t / sqrt(K), gamma_h = 1 - 2^(-5 - h) for head h; no rotation of queries and
    keys, no norm and no gate of the output. The outputs of both directions are added (LION's code reads both ways only inside
    chunks). As nothing normalizes the sums over a group, projections begin small: Xavier with the gain 2^-2.5 of the paper's
    code.

    Args:
        channels: C.
        bidirectional: As in `Operator`.
        drop_path: As in `Operator`.
        heads: Divides the channels of keys and values.
        expand_k: Channels of all keys for each channel.
        expand_v: Channels of all values for each channel.
        mlp_ratio: Hidden channels of the MLP for each channel.

    Raises:
        InputError: heads does not divide the channels.
    """

    def __init__(
        self, channels: int, *, bidirectional: bool = True, drop_path: float = 0.0, heads: int = 2, expand_k: float = 1.0,
        expand_v: float = 2.0, mlp_ratio: float = 4.0,
    ) -> None:  # fmt: skip
        super().__init__(channels, bidirectional=bidirectional, drop_path=drop_path)
        self.keys, self.values, self.heads = int(expand_k * channels), int(expand_v * channels), heads
        self.key_size = split_heads("the keys", self.keys, heads)
        split_heads("the values", self.values, heads)
        hidden = int(mlp_ratio * channels)
        self.norm, self.mlp_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.project = nn.Linear(channels, 2 * self.keys + self.values, bias=False)
        self.output = nn.Linear(self.values, channels, bias=False)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
        for weight in (*self.project.weight.split([self.keys, self.keys, self.values]), self.output.weight):
            nn.init.xavier_uniform_(weight, gain=2**-2.5)

    def update(self, x: Tensor, groups: Groups, states: States | None = None) -> tuple[Tensor, States]:
        parts = self.project(self.norm(x)).split([self.keys, self.keys, self.values], -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        log_decay = torch.log1p(-(2.0 ** (-5 - torch.arange(self.heads, device=x.device, dtype=x.dtype))))
        decays = log_decay[:, None].expand(len(x), self.heads, 1)

        def scan(**options):
            return decayed_attention(q * self.key_size**-0.5, k, v, decays, groups, **options)

        y, after = self.both_ways(scan, states)
        x = self.add(x, self.output(y.flatten(1)), groups)
        return self.add(x, self.mlp(self.mlp_norm(x)), groups), after
