"""Depthwise convolution of rows inside their groups, in either direction."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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
            target, source = _aligned(v_y, x, ctx.groups, ctx.direction * by)
            v_weight[:, -1 - by] = (target * source).sum(tuple(range(target.dim() - 1)))
        return _summed(v_y, weight, ctx.groups, -ctx.direction), v_weight, None, None


def _summed(x: Tensor, weight: Tensor, groups: Groups, direction: int) -> Tensor:
    y = x * weight[:, -1]
    for by in range(1, weight.shape[1]):
        target, source = _aligned(y, x, groups, direction * by)
        target.addcmul_(source, weight[:, -1 - by])
    return y


def _aligned(target: Tensor, source: Tensor, groups: Groups, by: int) -> tuple[Tensor, Tensor]:
    """Rows t of the target, as a view, and rows t - by of the source; of rows without such a partner the source is zero."""
    if groups.size is None:
        return target, groups.shifted(source, by)
    target, source = (value.view(groups.count, groups.size, value.shape[1]) for value in (target, source))
    kept = max(groups.size - abs(by), 0)
    late, early = slice(groups.size - kept, None), slice(0, kept)
    return (target[:, late], source[:, early]) if by > 0 else (target[:, early], source[:, late])
