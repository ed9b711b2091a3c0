"""RWKV-6: linear attention with a decay for every token and channel, a bonus for the token itself, and shifted tokens."""

import torch
from torch import Tensor, nn

from vision3d.stages.detect.operators.base import Operator, States, silu_gate, split_heads
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.scans import decayed_attention

_MIXED = 5  # inputs of w, k, v, r, g


class RWKV6(Operator):
    """x + TimeMix(LayerNorm(x)), then x + ChannelMix(LayerNorm(x)), as in LION (Peng et al. 2024, arXiv 2404.05892).

    o_t = r_t (S_{t-1} + diag(u) k_t^T v_t), S_t = diag(w_t) S_{t-1} + k_t^T v_t, w_t = exp(-exp(w0 + tanh(x_w W1) W2)). The
    reversed direction has no bonus u, so that every token counts once. w, k, v, r and g read the token mixed with the previous
    one by weights that depend on both. Changes are scaled by small weights for each channel at the beginning of training.

    Args:
        channels: C.
        bidirectional: As in `Operator`.
        drop_path: As in `Operator`.
        heads: Divides the channels.
        mix_rank: Of the weights of the mixture.
        decay_rank: Of the decay's projection.
        mlp_ratio: Hidden channels of the channel mix for each channel.
        layer_scale: First scale of the changes.

    Raises:
        InputError: heads does not divide the channels.
    """

    def __init__(
        self, channels: int, *, bidirectional: bool = True, drop_path: float = 0.0, heads: int = 4, mix_rank: int = 32,
        decay_rank: int = 64, mlp_ratio: float = 4.0, layer_scale: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__(channels, bidirectional=bidirectional, drop_path=drop_path)
        self.heads, head = heads, split_heads("the operator", channels, heads)
        hidden = int(mlp_ratio * channels)
        self.norm, self.mlp_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mix, self.mixes = nn.Parameter(torch.full((channels,), 0.5)), nn.Parameter(torch.full((_MIXED, channels), 0.5))
        self.mix_down = nn.Linear(channels, _MIXED * mix_rank, bias=False)
        self.mix_up = nn.Parameter(torch.empty(_MIXED, mix_rank, channels).uniform_(-0.01, 0.01))
        self.decay = nn.Parameter(torch.linspace(-6, -1, channels))
        self.decay_down, self.decay_up = (
            nn.Linear(channels, decay_rank, bias=False),
            nn.Linear(decay_rank, channels, bias=False),
        )
        self.bonus = nn.Parameter(torch.linspace(0, 1, channels).view(heads, head))
        self.k, self.v, self.r, self.g, self.output = (nn.Linear(channels, channels, bias=False) for _ in range(5))
        self.head_norm = nn.GroupNorm(heads, channels)
        self.scales = nn.Parameter(torch.full((2, channels), layer_scale))
        self.mlp_mixes = nn.Parameter(torch.full((2, channels), 0.5))
        self.mlp_k, self.mlp_v = nn.Linear(channels, hidden, bias=False), nn.Linear(hidden, channels, bias=False)
        self.mlp_r = nn.Linear(channels, channels, bias=False)

    def update(self, x: Tensor, groups: Groups, states: States | None = None) -> tuple[Tensor, States]:
        change, after = self._time_mix(self.norm(x), groups, states)
        x = self.add(x, change * self.scales[0], groups)
        change, tail = self._channel_mix(self.mlp_norm(x), groups, states)
        return self.add(x, change * self.scales[1], groups), after | tail

    def _time_mix(self, x: Tensor, groups: Groups, states: States | None) -> tuple[Tensor, States]:
        before = None if states is None else states["shift"]
        shift = groups.shifted(x, 1, before) - x
        low = torch.tanh(self.mix_down(torch.addcmul(x, shift, self.mix))).unflatten(-1, (_MIXED, -1))
        weights = torch.einsum("tmr,mrc->mtc", low, self.mix_up) + self.mixes[:, None]
        w, k, v, r, g = torch.addcmul(x, shift, weights)
        log_decay = -torch.exp(self.decay + self.decay_up(torch.tanh(self.decay_down(w))))
        q, k, v, log_decay = (
            value.unflatten(-1, (self.heads, -1)) for value in (self.r(r), self.k(k), self.v(v), log_decay)
        )  # fmt: skip

        def scan(**options):
            return decayed_attention(q, k, v, log_decay, groups, exclusive=True, **options)

        y, after = self.both_ways(scan, states)
        y = torch.addcmul(y, (q * self.bonus * k).sum(-1, keepdim=True), v)
        y = silu_gate(self.g(g), self.head_norm(y.flatten(1)))
        tail = {} if self.bidirectional else {"shift": groups.tail(x, 1, before)}
        return self.output(y), after | tail

    def _channel_mix(self, x: Tensor, groups: Groups, states: States | None) -> tuple[Tensor, States]:
        before = None if states is None else states["mlp_shift"]
        shift = groups.shifted(x, 1, before) - x
        k, r = torch.addcmul(x, shift, self.mlp_mixes[:, None])
        tail = {} if self.bidirectional else {"mlp_shift": groups.tail(x, 1, before)}
        return torch.sigmoid(self.mlp_r(r)) * self.mlp_v(nn.functional.relu(self.mlp_k(k)).square()), tail
