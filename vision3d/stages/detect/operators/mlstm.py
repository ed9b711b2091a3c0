"""mLSTM: a matrix memory with exponential input gates, as a pair of blocks in opposite directions (Vision-LSTM)."""

import torch
from torch import Tensor, nn

from vision3d.core.errors import InputError
from vision3d.stages.detect.operators.base import Operator, States, silu_gate, split_heads
from vision3d.stages.detect.operators.convolution import shifted_sum
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.scans import decayed_attention, running_max

_BLOCK = 4  # channels that a projection of queries, keys or values mixes


def mlstm(
    q: Tensor, k: Tensor, v: Tensor, input_gate: Tensor, log_forget: Tensor, groups: Groups, *, states: States | None = None,
    reverse: bool = False,
) -> tuple[Tensor, States]:  # fmt: skip
    """C_t = f_t C_{t-1} + i_t k_t^T v_t / sqrt(K), n_t the same of k_t alone, h_t = q_t C_t / max(|q_t n_t|, 1); i_t = exp(.).

    C and n are scaled by exp(-m_t), m_t = max(log f_t + m_{t-1}, log i_t), so that nothing overflows; h does not depend on m,
    which therefore has no gradient. n is one more column of C, so this is linear attention with decay.

    Args:
        q: (T, H, K).
        k: (T, H, K).
        v: (T, H, V).
        input_gate: (T, H) log i.
        log_forget: (T, H) log f <= 0.
        groups: Which rows belong together.
        states: `memory` (groups, H, K, V + 1) and `max` (groups, H).
        reverse: From the last row of each group to the first.

    Returns:
        h (T, H, V) and the states behind the rows.
    """
    first, memory = (None, None) if states is None else (states["max"], states["memory"])
    scale, before, last = running_max(input_gate.detach(), log_forget.detach(), groups, first, reverse)
    log_decay = log_forget + (before - scale)  # <= 0 up to rounding
    gated = k * (torch.exp(input_gate - scale) * k.shape[-1] ** -0.5)[..., None]
    both, memory = decayed_attention(
        q, gated, nn.functional.pad(v, (0, 1), value=1.0), log_decay[..., None], groups, state=memory, reverse=reverse
    )
    h, n = both[..., :-1], both[..., -1:]
    return h / torch.maximum(n.abs(), torch.exp(-scale)[..., None]), {"memory": memory, "max": last}


class _Layer(nn.Module):
    """One direction: x + down(h * SiLU(z)) of x, z = up(LayerNorm(x)); q and k read a convolution of x, v reads x."""

    def __init__(self, channels: int, expand: float, heads: int, conv: int) -> None:
        super().__init__()
        inner = int(expand * channels)
        split_heads("the inner layer", inner, heads)
        if inner % _BLOCK:
            raise InputError(f"expand: got {inner} inner channels, want a multiple of {_BLOCK}")
        self.heads = heads
        self.norm, self.head_norm = nn.LayerNorm(channels), nn.GroupNorm(heads, inner)
        self.up, self.down = nn.Linear(channels, 2 * inner), nn.Linear(inner, channels)
        self.conv = nn.Conv1d(inner, inner, conv, groups=inner)  # its weights; see shifted_sum
        self.blocks = nn.Parameter(torch.randn(3, inner // _BLOCK, _BLOCK, _BLOCK) * (2 / (5 * _BLOCK)) ** 0.5)
        self.gates = nn.Linear(3 * inner, 2 * heads)
        self.skip = nn.Parameter(torch.ones(inner))
        with torch.no_grad():
            self.gates.weight.zero_()
            self.gates.bias.copy_(torch.cat([torch.randn(heads) * 0.1, torch.linspace(3, 6, heads)]))

    def forward(
        self, x: Tensor, groups: Groups, reverse: bool, states: States | None, is_carried: bool
    ) -> tuple[Tensor, States]:
        inner, z = self.up(self.norm(x)).chunk(2, -1)
        before = None if states is None else states["conv"]
        mixed = nn.functional.silu(shifted_sum(inner, self.conv.weight[:, 0], self.conv.bias, groups, reverse, before))
        eye = torch.eye(self.blocks.shape[1], dtype=x.dtype, device=x.device)
        dense = torch.einsum("sbij,bc->sbicj", self.blocks, eye).reshape(3, inner.shape[1], inner.shape[1])
        rows = torch.cat([mixed @ torch.cat([dense[0], dense[1]], -1), inner @ dense[2]], -1)
        i, f = self.gates(rows).chunk(2, -1)
        q, k, v = rows.unflatten(-1, (3, self.heads, -1)).unbind(1)
        h, after = mlstm(q, k, v, i, nn.functional.logsigmoid(f), groups, states=states, reverse=reverse)
        y = silu_gate(z, torch.addcmul(self.head_norm(h.flatten(1)), self.skip, mixed))
        if is_carried:
            after["conv"] = groups.tail(inner, self.conv.kernel_size[0] - 1, before)
        return self.down(y), after


class MLSTM(Operator):
    """A layer in the direction of the rows, then one against it, each with its residual.

    Beck et al. 2024 (arXiv 2405.04517) and Alkin et al. 2024 (arXiv 2406.04303). A causal operator has both layers in the
    direction of the rows.

    Args:
        channels: C.
        bidirectional: As in `Operator`.
        drop_path: As in `Operator`.
        heads: Divides the inner channels.
        expand: Inner channels for each channel; their number must be a multiple of 4.
        conv: Width of the convolution.

    Raises:
        InputError: heads does not divide the inner channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        bidirectional: bool = True,
        drop_path: float = 0.0,
        heads: int = 4,
        expand: float = 2.0,
        conv: int = 4,
    ) -> None:
        super().__init__(channels, bidirectional=bidirectional, drop_path=drop_path)
        self.layers = nn.ModuleList(_Layer(channels, expand, heads, conv) for _ in range(2))

    def update(self, x: Tensor, groups: Groups, states: States | None = None) -> tuple[Tensor, States]:
        after: States = {}
        for index, layer in enumerate(self.layers):
            own = None if states is None else {name: states[f"{name}{index}"] for name in ("memory", "max", "conv")}
            change, last = layer(x, groups, self.bidirectional and index == 1, own, not self.bidirectional)
            x = self.add(x, change, groups)
            after |= {f"{name}{index}": value for name, value in last.items()}
        return x, after
