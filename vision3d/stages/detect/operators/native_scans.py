"""The native recurrences as `torch.library` ops: forward, and backward from states that are kept every 16 tokens."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.core.op_checks import check_memory, checked

_CHUNK, _BLOCK = 16, 16  # as in cuda_ext/include/vision3d/scans_args.h


def selective_scan(*values: Any) -> tuple[Tensor, Tensor]:
    """y and the last state from x, delta, A, B, C, skip, first, starts, reverse."""
    return _call(_selective, _SELECTIVE, values)


def decayed_attention(*values: Any) -> tuple[Tensor, Tensor]:
    """o and the last state from q, k, v, log_decay, first, starts, reverse, exclusive."""
    return _call(_attention, _ATTENTION, values)


def delta_rule(*values: Any) -> tuple[Tensor, Tensor]:
    """o and the last state from q, k, v, beta, log_decay, first, starts, reverse."""
    return _call(_delta, _DELTA, values)


def _call(op: Any, function: Any, values: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    keep = torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in values)
    y, last, _ = native.direct(op, function)(*values, keep)
    return y, last


# --- selective scan

_SELECTIVE_TENSORS = (
    "x: float t d, delta: float t d, A: float d n, B: float t n, C: float t n, skip: float d, "
    "first: float g d n, starts: int64 s"
)


@native.custom_op("selective_scan")
@checked(_SELECTIVE_TENSORS)
def _selective(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, first: Tensor, starts: Tensor, reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    _check_starts(starts, first)
    outputs = _empty_selective(x, delta, A, B, C, skip, first, starts, reverse, keep)
    values = plain(x, delta, A, B, C, skip, first, starts)
    native.require().selective_scan(*values, reverse, *outputs[:2], outputs[2] if keep else None, **native.where(x))
    return outputs


@native.custom_op("selective_scan_vjp")
@checked(_SELECTIVE_TENSORS + ", reverse, kept: float z, v_y: float t d, v_last: float g d n")
def _selective_vjp(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, skip: Tensor, first: Tensor, starts: Tensor, reverse: bool,
    kept: Tensor, v_y: Tensor, v_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    _check_starts(starts, first)
    v_x, v_delta, v_first = (torch.empty_like(value, memory_format=torch.contiguous_format) for value in (x, delta, first))
    partial = (-(-x.shape[1] // _BLOCK), *B.shape)
    check_memory(x, 2 * partial[0] * B.numel(), "gradients of B and C")
    v_B, v_C = x.new_zeros(partial), x.new_zeros(partial)
    v_A, v_skip = torch.empty_like(v_first), x.new_empty(first.shape[:2])
    values = plain(x, delta, A, B, C, skip, first, starts)
    grads = (v_x, v_delta, v_A, v_B, v_C, v_skip, v_first, x.new_empty(first.numel() * _CHUNK))
    native.require().selective_scan_vjp(*values, reverse, *plain(kept, v_y, v_last), *grads, **native.where(x))
    return v_x, v_delta, v_A.sum(0), v_B.sum(0), v_C.sum(0), v_skip.sum(0), v_first


def _empty_selective(x, delta, A, B, C, skip, first, starts, reverse, keep):
    size = _kept_chunks(x, first, _CHUNK) * -(-x.shape[1] // _BLOCK) * _BLOCK * A.shape[1] if keep else 0
    check_memory(x, size, "states for the backward pass")
    return contiguous_like(x), contiguous_like(first), x.new_zeros(size)


# --- linear attention with decay

_ATTENTION_TENSORS = (
    "q: float t h k, k: float t h k, v: float t h v, log_decay: float t h e, first: float g h k v, starts: int64 s"
)


@native.custom_op("decayed_attention")
@checked(_ATTENTION_TENSORS)
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    first: Tensor,
    starts: Tensor,
    reverse: bool,
    exclusive: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _check_starts(starts, first)
    _check_decays(q, log_decay)
    outputs = _empty_attention(q, k, v, log_decay, first, starts, reverse, exclusive, keep)
    values = plain(q, k, v, log_decay.exp(), first, starts)
    native.require().decayed_attention(
        *values, reverse, exclusive, *outputs[:2], outputs[2] if keep else None, **native.where(q)
    )
    return outputs


@native.custom_op("decayed_attention_vjp")
@checked(_ATTENTION_TENSORS + ", reverse, exclusive, kept: float z, v_o: float t h v, v_last: float g h k v")
def _attention_vjp(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, first: Tensor, starts: Tensor, reverse: bool, exclusive: bool,
    kept: Tensor, v_o: Tensor, v_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    _check_starts(starts, first)
    _check_decays(q, log_decay)
    v_q, v_k, v_log_decay = (value.new_zeros(value.shape) for value in (q, k, log_decay))
    v_v, v_first = contiguous_like(v), contiguous_like(first)
    values = plain(q, k, v, log_decay.exp(), first, starts)
    grads = (v_q, v_k, v_v, v_log_decay, v_first, q.new_empty(first.numel() * _CHUNK))
    native.require().decayed_attention_vjp(
        *values, reverse, exclusive, *plain(kept, v_o, v_last), *grads, **native.where(q)
    )  # fmt: skip
    return v_q, v_k, v_v, v_log_decay, v_first


def _empty_attention(q, k, v, log_decay, first, starts, reverse, exclusive, keep):
    size = _kept_heads(q, v, first, _CHUNK) if keep else 0
    return contiguous_like(v), contiguous_like(first), q.new_zeros(size)


# --- delta rule

_DELTA_TENSORS = (
    "q: float t h k, k: float t n h k, v: float t n h v, beta: float t n h, log_decay: float t h, first: float g h k v, "
    "starts: int64 s"
)


@native.custom_op("delta_rule")
@checked(_DELTA_TENSORS)
def _delta(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, first: Tensor, starts: Tensor, reverse: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _check_starts(starts, first)
    _check_steps(k)
    outputs = _empty_delta(q, k, v, beta, log_decay, first, starts, reverse, keep)
    values = plain(q, k, v, beta, log_decay.exp(), first, starts)
    native.require().delta_rule(*values, reverse, *outputs[:2], outputs[2] if keep else None, **native.where(q))
    return outputs


@native.custom_op("delta_rule_vjp")
@checked(_DELTA_TENSORS + ", reverse, kept: float z, v_o: float t h v, v_last: float g h k v")
def _delta_vjp(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, first: Tensor, starts: Tensor, reverse: bool,
    kept: Tensor, v_o: Tensor, v_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    _check_starts(starts, first)
    _check_steps(k)
    v_q, v_k, v_beta, v_log_decay = (value.new_zeros(value.shape) for value in (q, k, beta, log_decay))
    v_v, v_first, steps = contiguous_like(v), contiguous_like(first), k.shape[1]
    scratch = _chunk_of(steps) * ((steps + 1) * q.shape[2] + steps) * first.shape[0] * first.shape[1] * first.shape[3]
    values = plain(q, k, v, beta, log_decay.exp(), first, starts)
    grads = (v_q, v_k, v_v, v_beta, v_log_decay, v_first, q.new_empty(scratch))
    native.require().delta_rule_vjp(*values, reverse, *plain(kept, v_o, v_last), *grads, **native.where(q))
    return v_q, v_k, v_v, v_beta, v_log_decay, v_first


def _empty_delta(q, k, v, beta, log_decay, first, starts, reverse, keep):
    size = _kept_heads(q, v, first, _chunk_of(k.shape[1])) if keep else 0
    return v.new_empty((v.shape[0], *v.shape[2:])), contiguous_like(first), q.new_zeros(size)


# --- what they share


def contiguous_like(like: Tensor) -> Tensor:
    """An empty tensor of this shape, contiguous."""
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def plain(*tensors: Tensor) -> list[Tensor]:
    """The tensors without gradients, contiguous, as the compiled functions take them."""
    return [tensor.detach().contiguous() for tensor in tensors]


def _chunk_of(steps: int) -> int:
    return _CHUNK // steps if steps < _CHUNK else 1


def _kept_chunks(rows: Tensor, first: Tensor, chunk: int) -> int:
    return rows.shape[0] // chunk + first.shape[0]


def _kept_heads(q: Tensor, v: Tensor, first: Tensor, chunk: int) -> int:
    size = _kept_chunks(q, first, chunk) * q.shape[1] * q.shape[2] * -(-v.shape[-1] // _BLOCK) * _BLOCK
    check_memory(q, size, "states for the backward pass")
    return size


def _check_starts(starts: Tensor, first: Tensor) -> None:
    if starts.shape[0] != first.shape[0] + 1:
        raise ShapeError("starts", starts.shape, f"({first.shape[0] + 1},), one more than first has groups")


def _check_decays(q: Tensor, log_decay: Tensor) -> None:
    if log_decay.shape[2] not in (1, q.shape[2]):
        raise ShapeError("log_decay", log_decay.shape, f"1 or {q.shape[2]} numbers for a head")


def _check_steps(k: Tensor) -> None:
    if k.shape[1] < 1:
        raise InputError("k: got 0 steps for a token, want at least 1")


def _with_gradient(op: Any, vjp: Any, tensors: int, empty: Callable[..., Any]) -> Any:
    """Register fakes and the gradient of an op with this number of tensors before starts; returns its eager function."""
    count = tensors + 1  # with starts

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:count], output[2])
        ctx.flags, ctx.is_kept = inputs[count:-1], inputs[-1]

    def backward(ctx: Any, v_y: Tensor | None, v_last: Tensor | None, v_kept: Tensor | None, vjp: Any = vjp) -> Any:
        if not ctx.is_kept:
            raise InputError("keep: got False, want True for gradients")
        rest = [None] * (len(ctx.flags) + 2)
        *inputs, kept = ctx.saved_tensors
        if v_y is None and v_last is None:
            return (*[None] * tensors, *rest)
        v_y = empty(*inputs, *ctx.flags, False)[0].zero_() if v_y is None else v_y
        v_last = torch.zeros_like(inputs[tensors - 1]) if v_last is None else v_last  # like the first state
        return (*vjp(*inputs, *ctx.flags, kept, v_y, v_last), *rest)

    op.register_fake(empty)
    vjp.register_fake(lambda *values: tuple(contiguous_like(value) for value in values[:tensors]))
    op.register_autograd(backward, setup_context=keep)
    return native.eager_function(op, keep, backward, vjp)


_SELECTIVE = _with_gradient(_selective, _selective_vjp, 7, _empty_selective)
_ATTENTION = _with_gradient(_attention, _attention_vjp, 5, _empty_attention)
_DELTA = _with_gradient(_delta, _delta_vjp, 6, _empty_delta)
