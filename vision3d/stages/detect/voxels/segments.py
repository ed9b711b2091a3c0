"""Sums, means and maxima of the rows that belong together, and copies back to the rows."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import InputError
from vision3d.core.op_checks import checked
from vision3d.stages.detect.voxels.reference import sparse as reference


class Segments(NamedTuple):
    """A partition of N rows into M segments, none of which is empty."""

    order: Int64[Tensor, " n"]
    """Rows by segment, in increasing order within a segment."""
    starts: Int64[Tensor, " m+1"]
    """Place in `order` at which each segment begins, and N."""
    inverse: Int64[Tensor, " n"]
    """Segment of each row."""

    @staticmethod
    def of_keys(keys: Int64[Tensor, " n"]) -> "tuple[Int64[Tensor, ' m'], Segments]":
        """The different keys, sorted, and the rows of each; keys are not negative."""
        ordered, order = sort_keys(keys)
        is_first = torch.ones_like(ordered, dtype=torch.bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        inverse = torch.empty_like(order)
        inverse[order] = is_first.cumsum(0) - 1
        firsts = is_first.nonzero()[:, 0]
        return ordered[firsts], Segments(order, torch.cat([firsts, firsts.new_tensor([len(keys)])]), inverse)

    @property
    def sizes(self) -> Int64[Tensor, " m"]:
        """Number of rows of each segment."""
        return self.starts.diff()


def sort_keys(keys: Int64[Tensor, " n"]) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Sorted keys, none negative, and the row of each; equal keys keep their order. On a CPU faster than `sort`."""
    if keys.device.type == "cpu" and native.is_plain(keys):
        with torch.no_grad():
            return native.direct(_sort_keys)(keys)
    ordered, order = keys.sort(stable=True)
    return ordered, order


def segment_sum(values: Float[Tensor, "n c"], segments: Segments) -> Float[Tensor, "m c"]:
    """Sum of the rows of each segment."""
    if native.is_plain(values):
        return native.direct(_segment_sum, _SEGMENT_SUM)(values, *segments)
    return reference.segment_sum(values, segments.inverse, len(segments.starts) - 1)


def segment_mean(values: Float[Tensor, "n c"], segments: Segments) -> Float[Tensor, "m c"]:
    """Mean of the rows of each segment."""
    return segment_sum(values, segments) / segments.sizes[:, None]


def segment_max(values: Float[Tensor, "n c"], segments: Segments) -> Float[Tensor, "m c"]:
    """Maximum of the rows of each segment in each channel; the gradient goes to the first of equal rows."""
    if native.is_plain(values):
        with_places = values.requires_grad and torch.is_grad_enabled()
        return native.direct(_segment_max, _SEGMENT_MAX)(values, segments.order, segments.starts, with_places)[0]
    return reference.segment_max(values, segments.inverse, len(segments.starts) - 1)


def expand(values: Float[Tensor, "m c"], segments: Segments) -> Float[Tensor, "n c"]:
    """A copy of its segment's values for each row: the transpose of `segment_sum`."""
    if native.is_plain(values):
        return native.direct(_segment_expand, _SEGMENT_EXPAND)(values, *segments)
    return values[segments.inverse]


@native.custom_op("sort_keys", device_types="cpu")
@checked("keys: int64 n")
def _sort_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    ordered, order = torch.empty_like(keys), torch.empty_like(keys)
    native.require().sort_keys(keys.contiguous(), ordered, order)
    return ordered, order


@native.custom_op("segment_sum")
@checked("values: float n c, order: int64 n, starts: int64 m, inverse: int64 n")
def _segment_sum(values: Tensor, order: Tensor, starts: Tensor, inverse: Tensor) -> Tensor:
    out = _fake_sum(values, order, starts, inverse)
    given = values.detach().contiguous(), order.contiguous(), starts.contiguous()
    native.require().segment_sum(*given, out, **native.where(values))
    return out


@native.custom_op("segment_expand")
@checked("values: float m c, order: int64 n, starts: int64 p, inverse: int64 n")
def _segment_expand(values: Tensor, order: Tensor, starts: Tensor, inverse: Tensor) -> Tensor:
    try:
        return values.detach().index_select(0, inverse)
    except IndexError as error:
        low, high = inverse.aminmax()
        raise InputError(f"inverse: got {int(low)} to {int(high)}, want 0 to {len(values) - 1}") from error


@native.custom_op("segment_max")
@checked("values: float n c, order: int64 n, starts: int64 m")
def _segment_max(values: Tensor, order: Tensor, starts: Tensor, with_places: bool) -> tuple[Tensor, Tensor]:
    out, places = _fake_max(values, order, starts, with_places)
    given = values.detach().contiguous(), order.contiguous(), starts.contiguous()
    native.require().segment_max(*given, out, places if with_places else None, **native.where(values))
    return out, places


@native.custom_op("segment_max_vjp")
@checked("v_out: float m c, places: int64 m c")
def _segment_max_vjp(v_out: Tensor, places: Tensor, rows: int) -> Tensor:
    return v_out.new_zeros(rows, v_out.shape[1]).scatter_(0, places, v_out.detach())


def _fake_sum(values: Tensor, order: Tensor, starts: Tensor, inverse: Tensor) -> Tensor:
    return values.new_empty((starts.shape[0] - 1, values.shape[1]))


def _fake_max(values: Tensor, order: Tensor, starts: Tensor, with_places: bool) -> tuple[Tensor, Tensor]:
    out = values.new_empty((starts.shape[0] - 1, values.shape[1]))
    return out, out.new_empty(out.shape if with_places else (0, 0), dtype=torch.int64)


def _keep_segments(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _keep_places(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.rows = inputs[0].shape[0]


def _backward_sum(ctx: Any, v: Tensor | None, vjp: Any = _segment_expand) -> tuple[Tensor | None, ...]:
    return (None if v is None else vjp(v, *ctx.saved_tensors), None, None, None)


def _backward_expand(ctx: Any, v: Tensor | None, vjp: Any = _segment_sum) -> tuple[Tensor | None, ...]:
    return (None if v is None else vjp(v, *ctx.saved_tensors), None, None, None)


def _backward_max(ctx: Any, v: Tensor | None, _: Tensor | None, vjp: Any = _segment_max_vjp) -> tuple[Tensor | None, ...]:
    return (None if v is None else vjp(v, *ctx.saved_tensors, ctx.rows), None, None, None)


_sort_keys.register_fake(lambda keys: (torch.empty_like(keys), torch.empty_like(keys)))
_segment_sum.register_fake(_fake_sum)
_segment_expand.register_fake(lambda values, order, starts, inverse: values.new_empty((inverse.shape[0], values.shape[1])))
_segment_max.register_fake(_fake_max)
_segment_max_vjp.register_fake(lambda v_out, places, rows: v_out.new_empty((rows, v_out.shape[1])))
_segment_sum.register_autograd(_backward_sum, setup_context=_keep_segments)
_segment_expand.register_autograd(_backward_expand, setup_context=_keep_segments)
_segment_max.register_autograd(_backward_max, setup_context=_keep_places)
_SEGMENT_SUM = native.eager_function(_segment_sum, _keep_segments, _backward_sum, _segment_expand)
_SEGMENT_EXPAND = native.eager_function(_segment_expand, _keep_segments, _backward_expand, _segment_sum)
_SEGMENT_MAX = native.eager_function(_segment_max, _keep_places, _backward_max, _segment_max_vjp)
