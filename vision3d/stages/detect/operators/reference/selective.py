"""The selective scan in torch for training on any device, without an array of all states.

Sequences are cut into chunks of 64 tokens. Step j of all chunks runs at once: first from a zero state, which gives what a chunk
adds to the state; then the states are carried from chunk to chunk; then all chunks run again from their true first state. Only
these first states are kept for the backward pass, which recomputes the others for some chunks at a time.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 64
_NUMBERS = 1 << 24  # states that the backward pass recomputes at a time


def selective_scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same as `recurrent.selective_scan`, differentiable once."""
    return _SelectiveScan.apply(x, delta, A, B, C, state)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        length = x.shape[1]
        size = min(CHUNK, max(length, 1))
        x, delta, B, C = (_chunks(value, size) for value in (x, delta, B, C))
        total = torch.exp(delta.sum(0)[..., None] * A)
        first, last = _carried(_run(x, delta, A, B, torch.zeros_like(total)), total, state)
        y = torch.empty_like(x)
        _run(x, delta, A, B, first, C, y)
        ctx.save_for_backward(x, delta, A, B, C, first, total)
        ctx.length = length
        return _unchunked(y, length), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_y: Tensor, v_last: Tensor) -> tuple[Tensor, ...]:
        x, delta, A, B, C, first, total = ctx.saved_tensors
        size, groups, count = x.shape[:3]
        v_y = _chunks(v_y, size)
        local = torch.zeros_like(total)  # gradients of the first states from their own chunk
        for j in reversed(range(size)):
            local = torch.exp(delta[j][..., None] * A) * (local + v_y[j][..., None] * C[j][..., None, :])
        v_behind, v_state = _carried(local.flip(1), total.flip(1), v_last)  # of the state behind each chunk
        v_behind = v_behind.flip(1)
        v_x, v_delta, v_B, v_C = (torch.empty_like(value) for value in (x, delta, B, C))
        v_A = torch.zeros_like(A)
        step = max(1, _NUMBERS // max(1, size * groups * A.numel()))
        for at in range(0, count, step):
            part = slice(at, at + step)
            h, states = first[:, part], []
            for j in range(size):
                states.append(h)
                d = delta[j, :, part]
                h = torch.exp(d[..., None] * A) * h + (d * x[j, :, part])[..., None] * B[j, :, part, None]
            v_h = v_behind[:, part]
            for j in reversed(range(size)):
                d, value, out = delta[j, :, part], x[j, :, part], v_y[j, :, part]
                v_h = v_h + out[..., None] * C[j, :, part, None]
                v_C[j, :, part] = torch.einsum("gcdn,gcd->gcn", h, out)
                v_u = torch.einsum("gcdn,gcn->gcd", v_h, B[j, :, part])
                v_B[j, :, part] = torch.einsum("gcdn,gcd->gcn", v_h, d * value)
                v_h = torch.exp(d[..., None] * A) * v_h
                h = states[j]
                through = v_h * h  # by delta A
                v_delta[j, :, part] = v_u * value + (through * A).sum(-1)
                v_x[j, :, part] = v_u * d
                v_A += (through * d[..., None]).sum((0, 1))
        v_x, v_delta, v_B, v_C = (_unchunked(value, ctx.length) for value in (v_x, v_delta, v_B, v_C))
        return v_x, v_delta, v_A, v_B, v_C, v_state


def _chunks(value: Tensor, size: int) -> Tensor:
    """(g, L, X) -> (size, g, chunks, X), zeros behind the end: they neither decay a state nor add to it."""
    count = -(-value.shape[1] // size)
    value = torch.nn.functional.pad(value, (0, 0, 0, count * size - value.shape[1]))
    return value.view(value.shape[0], count, size, value.shape[2]).permute(2, 0, 1, 3).contiguous()


def _unchunked(value: Tensor, length: int) -> Tensor:
    return value.permute(1, 2, 0, 3).flatten(1, 2)[:, :length]


def _run(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, h: Tensor, C: Tensor | None = None, y: Tensor | None = None) -> Tensor:
    """The states behind all chunks, from those in front of them; writes the outputs to y."""
    for j in range(x.shape[0]):
        h = torch.exp(delta[j][..., None] * A) * h + (delta[j] * x[j])[..., None] * B[j][..., None, :]
        if C is not None and y is not None:
            torch.sum(h * C[j][..., None, :], -1, out=y[j])
    return h


def _carried(local: Tensor, total: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """States in front of each chunk and behind the last, from what each adds to the state and its decay (g, chunks, D, N)."""
    found = []
    for i in range(local.shape[1]):
        found.append(state)
        state = total[:, i] * state + local[:, i]
    return torch.stack(found, 1) if found else torch.empty_like(local), state
