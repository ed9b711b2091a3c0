"""Depthwise convolution of rows inside their groups, in either direction."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vision3d.stages.detect.operators import native_layers
from vision3d.stages.detect.operators.groups import Groups


def shifted_sum(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups, reverse: bool = False, before: Tensor | None = None
) -> Tensor:
    """Depthwise convolution inside each group with the last `width` rows, or the next ones if reversed.

    Args:
        x: (T, D).
        weight: (D, width), the last column for the row itself.
        bias: (D,), or None.
        groups: Which rows belong together.
        reverse: Of the rows that follow.
        before: (groups, width - 1, D) rows in front of each group.
    """
    if before is None and native_layers.is_native(x):
        bias = x.new_zeros(x.shape[1]) if bias is None else bias
        return native_layers.group_conv(x, weight, bias, groups.starts, reverse)
    if before is None:
        y: Tensor = _ShiftedSum.apply(x, weight, groups, -1 if reverse else 1)  # type: ignore[assignment]  # pyright: ignore
        return y if bias is None else y + bias
    y = x * weight[:, -1]
    for by in range(1, weight.shape[1]):
        y = torch.addcmul(y, groups.shifted(x, by, before), weight[:, -1 - by])
    return y if bias is None else y + bias


class _ShiftedSum(torch.autograd.Function):
    """Keeps only x; without the shifted copies that autograd would keep."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, groups: Groups, direction: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups, ctx.direction = groups, direction
        return _summed(x, weight, groups, direction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_y: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        v_weight = torch.empty_like(weight)
        for by in range(weight.shape[1]):
            v_weight[:, -1 - by] = _product(v_y, x, ctx.groups, ctx.direction * by)
        return _summed(v_y, weight, ctx.groups, -ctx.direction), v_weight, None, None


def _summed(x: Tensor, weight: Tensor, groups: Groups, direction: int) -> Tensor:
    y = x * weight[:, -1]
    for by in range(1, weight.shape[1]):
        target, source = _aligned(y, x, groups, direction * by)
        target.addcmul_(source, weight[:, -1 - by])
    if groups.size is None:
        _correct_ends(y, x, weight, groups, direction)
    return y


def _correct_ends(y: Tensor, x: Tensor, weight: Tensor, groups: Groups, direction: int) -> None:
    """Compute the rows anew that took from another group: those with fewer rows in front of them than the width."""
    rows, place = groups.ends(weight.shape[1] - 1, direction < 0)
    value = x[rows] * weight[:, -1]
    for by in range(1, weight.shape[1]):
        source = x[(rows - direction * by).clamp(0, max(len(x) - 1, 0))]
        value = torch.addcmul(value, torch.where((place >= by)[:, None], source, 0), weight[:, -1 - by])
    y.index_copy_(0, rows, value)


def _product(target: Tensor, source: Tensor, groups: Groups, by: int) -> Tensor:
    """Sum over all rows t of target[t] * source[t - by] in the same group."""
    rows, partners = _aligned(target, source, groups, by)
    total = (rows * partners).sum(tuple(range(rows.dim() - 1)))
    if groups.size is None and by:
        ends, place = groups.ends(abs(by), by < 0)
        others = ends - by
        crossing = (place < abs(by)) & (others >= 0) & (others < len(source))
        total = total - (target[ends[crossing]] * source[others[crossing]]).sum(0)
    return total


def _aligned(target: Tensor, source: Tensor, groups: Groups, by: int) -> tuple[Tensor, Tensor]:
    """Rows t of the target, as a view, and rows t - by of the source.

    Groups of equal size do not mix. Others are shifted as one sequence, so at their ends rows of different groups meet.
    """
    if groups.size is None:
        kept = max(len(target) - abs(by), 0)
        late, early = slice(len(target) - kept, None), slice(0, kept)
        return (target[late], source[early]) if by > 0 else (target[early], source[late])
    target, source = (value.view(groups.count, groups.size, value.shape[1]) for value in (target, source))
    kept = max(groups.size - abs(by), 0)
    late, early = slice(groups.size - kept, None), slice(0, kept)
    return (target[:, late], source[:, early]) if by > 0 else (target[:, early], source[:, late])
