"""Overlap and non-maximum suppression of upright boxes, as detectors in point clouds predict them.

Boxes are rows `x y z l w h yaw` as in `vision3d.scene.Boxes`: center and sizes [m], yaw counter-clockwise about z [rad]. "bev"
compares them seen from above (bird's-eye view), "3d" their volumes.
"""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.core.op_checks import check_memory, checked
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.reference import rotated_boxes as reference

BoxMode = Literal["bev", "3d"]


def box_iou(first: Float[Tensor, "n 7"], second: Float[Tensor, "m 7"], *, mode: BoxMode = "bev") -> Float[Tensor, "n m"]:
    """Intersection over union of every box of the first set with every box of the second.

    Computed in float64. 0 for boxes that only touch or have no extent, NaN where a size is negative or a value is not finite
    (or larger than 1e75).
    Differentiable once.

    Raises:
        InputError: The mode is unknown, or the matrix does not fit into memory.
        ShapeError: A shape or dtype is wrong.

    Example:
        >>> square = torch.tensor([[0.0, 0, 0, 1, 1, 1, 0]])
        >>> turned = torch.tensor([[0.0, 0, 0, 1, 1, 1, torch.pi / 4]])
        >>> box_iou(square, turned).round(decimals=4)
        tensor([[0.7071]])
    """
    _check(first, second, mode)
    check_memory(first, len(first) * len(second), "the matrix of overlaps")
    if _runs_natively(first, second):
        return native.direct(_box_iou, _BOX_IOU)(first, second, mode == "3d", False)
    return reference.box_iou(first[:, None], second[None], mode == "3d")


def paired_box_iou(first: Float[Tensor, "n 7"], second: Float[Tensor, "n 7"], *, mode: BoxMode = "bev") -> Float[Tensor, " n"]:
    """Intersection over union of each box with the box in the same row; otherwise as `box_iou`.

    Raises:
        InputError: The mode is unknown.
        ShapeError: A shape or dtype is wrong.
    """
    _check(first, second, mode)
    if len(first) != len(second):
        raise ShapeError("second", second.shape, f"({len(first)}, 7)")
    if _runs_natively(first, second):
        return native.direct(_box_iou, _BOX_IOU)(first, second, mode == "3d", True)
    return reference.box_iou(first, second, mode == "3d")


def box_nms(
    boxes: Float[Tensor, "n 7"],
    scores: Float[Tensor, " n"],
    threshold: float,
    *,
    labels: Int64[Tensor, " n"] | None = None,
    mode: BoxMode = "bev",
    max_count: int | None = None,
) -> Int64[Tensor, " k"]:
    """Indices of the boxes that no kept box with a higher score overlaps by more than `threshold`, by decreasing score.

    Of equal scores the earlier box is preferred.

    Args:
        boxes: Finite, no size negative.
        scores: Any finite numbers.
        threshold: Largest IoU that is not suppressed.
        labels: Boxes of different labels do not suppress each other; None ignores classes.
        mode: "bev" or "3d".
        max_count: Maximum number of boxes to keep, those with the highest scores.

    Raises:
        InputError: A value is not finite, a size is negative, or an option is invalid.
        ShapeError: A shape or dtype is wrong.
    """
    _check(boxes, boxes, mode)
    if scores.shape != boxes.shape[:1] or not scores.is_floating_point():
        raise ShapeError("scores", scores.dtype if scores.shape == boxes.shape[:1] else scores.shape, f"({len(boxes)},) floats")
    if labels is not None and (labels.shape != scores.shape or labels.dtype != torch.int64):
        raise ShapeError("labels", labels.dtype if labels.shape == scores.shape else labels.shape, f"({len(boxes)},) int64")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold: got {threshold}, want 0 to 1")
    if max_count is not None and max_count < 0:
        raise InputError(f"max_count: got {max_count}, want at least 0")
    is_valid = torch.isfinite(boxes).all(1) & torch.isfinite(scores) & (boxes[:, 3:6] >= 0).all(1)
    if not bool(is_valid.all()):
        bad = int((~is_valid).nonzero()[0])
        raise InputError(
            f"boxes: box {bad} is {boxes[bad].tolist()} with score {float(scores[bad])}, want finite values and sizes that are "
            "not negative"
        )
    order = torch.argsort(scores.detach(), descending=True, stable=True)
    groups = torch.zeros_like(order) if labels is None else labels[order]
    arguments = boxes.detach()[order], groups, float(threshold), mode == "3d", len(boxes) if max_count is None else max_count
    with torch.no_grad():
        run = native.direct(_box_nms) if _runs_natively(boxes) else reference.box_nms
        return order[run(*arguments)]


def _check(first: Tensor, second: Tensor, mode: str) -> None:
    if mode not in get_args(BoxMode):
        raise InputError(f"mode: got {mode!r}, want {' or '.join(get_args(BoxMode))}")
    for name, boxes in (("first", first), ("second", second)):
        check_trailing(name, boxes, 7)
        if boxes.ndim != 2:
            raise ShapeError(name, boxes.shape, "(n, 7)")
    if first.dtype != second.dtype:
        raise ShapeError("second", second.dtype, first.dtype)


def _runs_natively(*boxes: Tensor) -> bool:
    return boxes[0].dtype in (torch.float32, torch.float64) and native.is_plain(*boxes)


@native.custom_op("box_iou")
@checked("first: float n 7, second: float m 7")
def _box_iou(first: Tensor, second: Tensor, is_3d: bool, is_paired: bool) -> Tensor:
    out = _empty(first, second, is_3d, is_paired)
    boxes = first.detach().contiguous(), second.detach().contiguous()
    native.require().box_iou(*boxes, is_3d, is_paired, out.view(-1), **native.where(first))
    return out


@native.custom_op("box_iou_vjp")
@checked("first: float n 7, second: float m 7, is_3d, is_paired, v_iou: float *s")
def _box_iou_vjp(first: Tensor, second: Tensor, is_3d: bool, is_paired: bool, v_iou: Tensor) -> tuple[Tensor, Tensor]:
    boxes = first.detach().contiguous(), second.detach().contiguous()
    grads = torch.empty_like(boxes[0]), torch.empty_like(boxes[1])
    v_out = v_iou.detach().contiguous().view(-1)
    native.require().box_iou_vjp(*boxes, is_3d, is_paired, v_out, *grads, **native.where(first))
    return grads


@native.custom_op("box_nms")
@checked("boxes: float n 7, groups: int64 n")
def _box_nms(boxes: Tensor, groups: Tensor, threshold: float, is_3d: bool, max_kept: int) -> Tensor:
    count = len(boxes)
    kept = groups.new_empty(count, dtype=torch.uint8)
    scratch = None if native.is_on_cpu(boxes) else groups.new_empty((count + 1) * -(-count // 64))
    values = boxes.detach().contiguous(), groups.contiguous()
    native.require().box_nms(*values, threshold, is_3d, max_kept, kept, scratch, **native.where(boxes))
    return kept.bool()


def _empty(first: Tensor, second: Tensor, is_3d: bool, is_paired: bool) -> Tensor:
    return first.new_empty(first.shape[:1] if is_paired else (first.shape[0], second.shape[0]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.options = inputs[2:]


def _backward(ctx: Any, v_iou: Tensor | None, vjp: Any = _box_iou_vjp) -> tuple[Tensor | None, ...]:
    if v_iou is None:
        return (None,) * 4
    return (*vjp(*ctx.saved_tensors, *ctx.options, v_iou), None, None)


_box_iou.register_fake(_empty)
_box_iou_vjp.register_fake(
    lambda first, second, is_3d, is_paired, v_iou: (first.new_empty(first.shape), second.new_empty(second.shape))
)
_box_nms.register_fake(lambda boxes, groups, threshold, is_3d, max_kept: groups.new_empty(groups.shape, dtype=torch.bool))
_box_iou.register_autograd(_backward, setup_context=_keep)
_BOX_IOU = native.eager_function(_box_iou, _keep, _backward, _box_iou_vjp)
