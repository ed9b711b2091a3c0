"""Attention with narrow heads as a `torch.library` op: torch's own pads them to the width of its blocks."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vision3d.core import native
from vision3d.core.op_checks import checked

_WIDTH = 8
"""Features of a head with compiled loops: HEAD_WIDTH of cuda_ext/include/vision3d/layers_args.h. Torch is faster for more."""


def attend(
    query: Float[Tensor, "n t c"], key: Float[Tensor, "n s c"], value: Float[Tensor, "n s c"], heads: int
) -> Float[Tensor, "n t c"]:
    """softmax(Q K^T / sqrt(c / heads)) V in each head (Vaswani et al. 2017, eq. 1), whose features are consecutive.

    The native op computes float32 on a CPU where a gradient is required and heads have 8 features; else torch does.

    Args:
        query: Of the tokens.
        key: Of what they attend to.
        value: The same.
        heads: Number of heads.
    """
    rows = (query, key, value)
    wants_gradient = torch.is_grad_enabled() and any(row.requires_grad for row in rows)
    is_narrow = query.shape[-1] // heads == _WIDTH and query.dtype == torch.float32 and query.device.type == "cpu"
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if wants_gradient and is_narrow and not is_traced and not torch.is_autocast_enabled("cpu") and native.is_plain(*rows):
        return native.direct(_attend, _ATTEND)(*rows, heads)[0]
    return attend_reference(query, key, value, heads)


def attend_reference(
    query: Float[Tensor, "n t c"], key: Float[Tensor, "n s c"], value: Float[Tensor, "n s c"], heads: int
) -> Float[Tensor, "n t c"]:
    """As `attend`, by torch."""
    query, key, value = (row.unflatten(-1, (heads, -1)).transpose(1, 2) for row in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


@native.custom_op("attend_heads", device_types="cpu")
@checked("query: float32 n t c, key: float32 n s c, value: float32 n s c")
def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    output, sums = _empty(query, key, value, heads)
    native.require().attend(*_plain(query, key, value), heads, output, sums)
    return output, sums


@native.custom_op("attend_heads_vjp", device_types="cpu")
@checked("query: float32 n t c, key: float32 n s c, value: float32 n s c, heads, output: float32 n t c, sums: float32 n h t, "
         "v_output: float32 n t c")  # fmt: skip
def _attend_vjp(
    query: Tensor, key: Tensor, value: Tensor, heads: int, output: Tensor, sums: Tensor, v_output: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grads = _empty_grads(query, key, value)
    native.require().attend_vjp(*_plain(query, key, value), heads, *_plain(output, sums, v_output), *grads)
    return grads


def _plain(*rows: Tensor) -> list[Tensor]:
    return [row.detach().contiguous() for row in rows]


def _empty(query: Tensor, _key: Tensor, _value: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(query.shape[0], heads, query.shape[1])


def _empty_grads(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, ctx.heads = inputs
    ctx.save_for_backward(query, key, value, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, v_output: Tensor | None, _: Tensor | None, vjp: Any = _attend_vjp) -> tuple[Tensor | None, ...]:
    if v_output is None:
        return None, None, None, None
    query, key, value, output, sums = ctx.saved_tensors
    return *vjp(query, key, value, ctx.heads, output, sums, v_output), None


_attend.register_fake(_empty)
_attend_vjp.register_fake(_empty_grads)
_attend.register_autograd(_backward, setup_context=_keep)
_ATTEND = native.eager_function(_attend, _keep, _backward, _attend_vjp)
