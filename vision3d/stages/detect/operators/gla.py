"""Gated linear attention: a decay for every token and key channel."""

from torch import Tensor, nn

from vision3d.stages.detect.operators.base import Operator, RMSNorm, States, SwiGLU, silu_gate, split_heads
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.scans import decayed_attention

_TEMPERATURE = 16  # of the decay: sigmoid(.)^(1 / 16)


class GLA(Operator):
    """x + GLA(RMSNorm(x)), then x + SwiGLU(RMSNorm(x)) (Yang et al. 2023, arXiv 2312.06635).

    S_t = diag(alpha_t) S_{t-1} + k_t^T v_t, o_t = q_t S_t / sqrt(K). The outputs of both directions are added, normalized for
    each head, and multiplied by SiLU of a gate.

    Args:
        channels: C.
        bidirectional: As in `Operator`.
        drop_path: As in `Operator`.
        heads: Divides the channels of keys and values.
        expand_k: Channels of all keys for each channel.
        expand_v: Channels of all values for each channel.
        rank: Of the decay's projection.
        mlp_ratio: Hidden channels of the SwiGLU for each channel.

    Raises:
        InputError: heads does not divide the channels.
    """

    def __init__(
        self, channels: int, *, bidirectional: bool = True, drop_path: float = 0.0, heads: int = 4, expand_k: float = 0.5,
        expand_v: float = 1.0, rank: int = 16, mlp_ratio: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__(channels, bidirectional=bidirectional, drop_path=drop_path)
        self.keys, self.values, self.heads = int(expand_k * channels), int(expand_v * channels), heads
        self.key_size, value_size = split_heads("the keys", self.keys, heads), split_heads("the values", self.values, heads)
        self.norm, self.mlp_norm = RMSNorm(channels), RMSNorm(channels)
        self.project = nn.Linear(channels, 2 * self.keys + 2 * self.values, bias=False)
        self.decay = nn.Sequential(nn.Linear(channels, rank, bias=False), nn.Linear(rank, self.keys))
        self.out_norm = RMSNorm(value_size)
        self.output = nn.Linear(self.values, channels, bias=False)
        self.mlp = SwiGLU(channels, int(mlp_ratio * channels))

    def update(self, x: Tensor, groups: Groups, states: States | None = None) -> tuple[Tensor, States]:
        normed = self.norm(x)
        *parts, gate = self.project(normed).split([self.keys, self.keys, self.values, self.values], -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        decay = nn.functional.logsigmoid(self.decay(normed)).unflatten(-1, (self.heads, -1)) / _TEMPERATURE

        def scan(**options):
            return decayed_attention(q * self.key_size**-0.5, k, v, decay, groups, **options)

        y, after = self.both_ways(scan, states)
        y = silu_gate(gate, self.out_norm(y).flatten(1))
        x = self.add(x, self.output(y), groups)
        return self.add(x, self.mlp(self.mlp_norm(x)), groups), after
