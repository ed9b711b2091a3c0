"""Layers of the operators as `torch.library` ops, where torch is slow: RMS norm, convolution inside groups, gates, softplus."""

from typing import Any

import torch
from torch import Tensor

from vision3d.core import native
from vision3d.core.op_checks import checked
from vision3d.stages.detect.operators.native_scans import contiguous_like, plain

_NORM_ROWS = 512  # as in cuda_ext/include/vision3d/layers_args.h


def is_native(rows: Tensor) -> bool:
    """Whether the ops take these rows: float32 on a CPU."""
    return rows.dtype == torch.float32 and rows.device.type == "cpu" and native.is_plain(rows)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x weight / sqrt(mean(x^2) + eps) for each row; x (N, C), weight (C,)."""
    return native.direct(_norm, _NORM)(x, weight, eps)[0]


def group_conv(x: Tensor, weight: Tensor, bias: Tensor, starts: Tensor, reverse: bool) -> Tensor:
    """As `shifted_sum` without rows in front of the groups."""
    return native.direct(_conv, _CONV)(x, weight, bias, starts, reverse)


def silu_gate(gate: Tensor, x: Tensor) -> Tensor:
    """x SiLU(gate), both (T, D)."""
    return native.direct(_gate, _GATE)(gate, x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    return native.direct(_softplus, _SOFTPLUS)(x.reshape(-1, x.shape[-1])).view(x.shape)


@native.custom_op("rms_norm", device_types="cpu")
@checked("x: float32 n c, weight: float32 c")
def _norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    y, scales = _empty_norm(x, weight, eps)
    native.require().rms_norm(*plain(x, weight), eps, y, scales)
    return y, scales


@native.custom_op("rms_norm_vjp", device_types="cpu")
@checked("x: float32 n c, weight: float32 c, scales: float32 n, v_y: float32 n c")
def _norm_vjp(x: Tensor, weight: Tensor, scales: Tensor, v_y: Tensor) -> tuple[Tensor, Tensor]:
    v_x, v_weight = contiguous_like(x), x.new_empty(-(-x.shape[0] // _NORM_ROWS), x.shape[1])
    native.require().rms_norm_vjp(*plain(x, weight, scales, v_y), v_x, v_weight)
    return v_x, v_weight.sum(0)


@native.custom_op("group_conv", device_types="cpu")
@checked("x: float32 t d, weight: float32 d w, bias: float32 d, starts: int64 s")
def _conv(x: Tensor, weight: Tensor, bias: Tensor, starts: Tensor, reverse: bool) -> Tensor:
    y = contiguous_like(x)
    native.require().group_conv(*plain(x, _rows(weight), bias, starts), reverse, y)
    return y


@native.custom_op("group_conv_vjp", device_types="cpu")
@checked("x: float32 t d, weight: float32 d w, starts: int64 s, reverse, v_y: float32 t d")
def _conv_vjp(x: Tensor, weight: Tensor, starts: Tensor, reverse: bool, v_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    groups, (channels, width) = starts.shape[0] - 1, weight.shape
    x, v_y, starts = plain(x, v_y, starts)
    v_x, v_rows, v_bias = contiguous_like(x), x.new_empty(groups, width, channels), x.new_empty(groups, channels)
    native.require().group_conv(v_y, *plain(_rows(weight)), x.new_zeros(channels), starts, not reverse, v_x)
    native.require().group_conv_weights(x, v_y, starts, reverse, v_rows, v_bias)
    return v_x, v_rows.sum(0).flip(0).T.contiguous(), v_bias.sum(0)


@native.custom_op("silu_gate", device_types="cpu")
@checked("gate: float32 t d, x: float32 t d")
def _gate(gate: Tensor, x: Tensor) -> Tensor:
    y = contiguous_like(x)
    native.require().silu_gate(_dense_rows(gate), _dense_rows(x), y)
    return y


@native.custom_op("silu_gate_vjp", device_types="cpu")
@checked("gate: float32 t d, x: float32 t d, v_y: float32 t d")
def _gate_vjp(gate: Tensor, x: Tensor, v_y: Tensor) -> tuple[Tensor, Tensor]:
    v_gate, v_x = contiguous_like(x), contiguous_like(x)
    native.require().silu_gate_vjp(_dense_rows(gate), _dense_rows(x), *plain(v_y), v_gate, v_x)
    return v_gate, v_x


@native.custom_op("softplus", device_types="cpu")
@checked("x: float32 t d")
def _softplus(x: Tensor) -> Tensor:
    y = contiguous_like(x)
    native.require().softplus(*plain(x.reshape(-1)), None, y.view(-1))
    return y


@native.custom_op("softplus_vjp", device_types="cpu")
@checked("x: float32 t d, v_y: float32 t d")
def _softplus_vjp(x: Tensor, v_y: Tensor) -> Tensor:
    v_x = contiguous_like(x)
    native.require().softplus(*plain(x.reshape(-1), v_y.reshape(-1)), v_x.view(-1))
    return v_x


def _dense_rows(rows: Tensor) -> Tensor:
    """Rows whose own numbers are contiguous: a part of the columns is not copied."""
    rows = rows.detach()
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _rows(weight: Tensor) -> Tensor:
    """(D, width) -> (width, D), the row itself first."""
    return weight.flip(1).T


def _empty_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return contiguous_like(x), x.new_empty(x.shape[0])


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], inputs[1], output[1])
    ctx.mark_non_differentiable(output[1])


def _keep_conv(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, starts, ctx.reverse = inputs
    ctx.save_for_backward(x, weight, starts)


def _backward_norm(ctx: Any, v_y: Tensor | None, _: Tensor | None, vjp: Any = _norm_vjp) -> tuple[Tensor | None, ...]:
    return (None, None, None) if v_y is None else (*vjp(*ctx.saved_tensors, v_y), None)


def _backward_conv(ctx: Any, v_y: Tensor | None, vjp: Any = _conv_vjp) -> tuple[Tensor | None, ...]:
    x, weight, starts = ctx.saved_tensors
    return (*((None, None, None) if v_y is None else vjp(x, weight, starts, ctx.reverse, v_y)), None, None)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_gate(ctx: Any, v_y: Tensor | None, vjp: Any = _gate_vjp) -> tuple[Tensor | None, ...]:
    return (None, None) if v_y is None else vjp(*ctx.saved_tensors, v_y)


def _backward_softplus(ctx: Any, v_y: Tensor | None, vjp: Any = _softplus_vjp) -> Tensor | None:
    return None if v_y is None else vjp(*ctx.saved_tensors, v_y)


_norm.register_fake(_empty_norm)
_norm_vjp.register_fake(lambda x, weight, scales, v_y: (contiguous_like(x), contiguous_like(weight)))
_conv.register_fake(lambda x, weight, bias, starts, reverse: contiguous_like(x))
_conv_vjp.register_fake(
    lambda x, weight, starts, reverse, v_y: (contiguous_like(x), contiguous_like(weight), x.new_empty(x.shape[1]))
)
_norm.register_autograd(_backward_norm, setup_context=_keep_norm)
_conv.register_autograd(_backward_conv, setup_context=_keep_conv)
_NORM = native.eager_function(_norm, _keep_norm, _backward_norm, _norm_vjp)
_CONV = native.eager_function(_conv, _keep_conv, _backward_conv, _conv_vjp)
_gate.register_fake(lambda gate, x: contiguous_like(x))
_gate_vjp.register_fake(lambda gate, x, v_y: (contiguous_like(x), contiguous_like(x)))
_softplus.register_fake(contiguous_like)
_softplus_vjp.register_fake(lambda x, v_y: contiguous_like(x))
_gate.register_autograd(_backward_gate, setup_context=_keep_inputs)
_softplus.register_autograd(_backward_softplus, setup_context=_keep_inputs)
_GATE = native.eager_function(_gate, _keep_inputs, _backward_gate, _gate_vjp)
_SOFTPLUS = native.eager_function(_softplus, _keep_inputs, _backward_softplus, _softplus_vjp)
