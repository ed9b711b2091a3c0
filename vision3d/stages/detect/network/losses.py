"""Losses of the center head."""

import torch
from torch import Tensor
from torch.nn import functional

from vision3d.geometry.rotated_boxes import paired_box_iou
from vision3d.stages.detect.config import GridConfig, LossConfig
from vision3d.stages.detect.data.targets import Targets
from vision3d.stages.detect.network.head import Outputs, boxes_at


def total_loss(outputs: Outputs, targets: Targets, grid: GridConfig, config: LossConfig) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum of the losses, and each of them.

    Args:
        outputs: Predictions.
        targets: Targets.
        grid: The grid.
        config: Weights.
    """
    shape = outputs.heat.shape[2], outputs.heat.shape[3]
    sample, x, y = targets.at.unbind(1)
    total = targets.weights.sum().clamp(min=1)
    values = outputs.boxes[sample, :, x, y]
    direction, iou = outputs.direction[sample, 0, x, y], outputs.iou[sample, 0, x, y]
    wanted = encoded(targets.boxes, x, y, grid, shape)
    error = (values - wanted).abs().sum(1)
    is_front = (torch.cos(targets.boxes[:, 6]) >= 0).to(direction)
    turn = functional.binary_cross_entropy_with_logits(direction, is_front, reduction="none")
    # The way along the axis is left to the direction: turned by half a circle the overlap is the same.
    overlap = paired_box_iou(boxes_at(values, is_front - 0.5, x, y, grid, shape), targets.boxes, mode="3d")
    parts = {
        "heat": focal(outputs.heat, targets.heat, targets.counted),
        "box": (error * targets.weights).sum() / total / 8,
        "direction": (turn * targets.weights).sum() / total,
        "overlap": ((1 - overlap) * targets.weights).sum() / total,
        "iou": ((iou - (2 * overlap.detach() - 1)).abs() * targets.weights).sum() / total,
    }
    loss = sum((getattr(config, name) * part for name, part in parts.items()), outputs.heat.new_zeros(()))
    return loss, {f"loss_{name}": float(part.detach()) for name, part in parts.items()}


def focal(logits: Tensor, heat: Tensor, counted: Tensor) -> Tensor:
    """Focal loss of heat maps (Zhou et al. 2019, eq. 1): exponent 2, weight (1 - heat)^4 of the cells near a center."""
    score = logits.sigmoid()
    is_center = (heat == 1).to(score)
    near = (1 - heat) ** 4 * (1 - is_center) * counted[:, None]
    positive = functional.logsigmoid(logits) * (1 - score) ** 2 * is_center
    negative = functional.logsigmoid(-logits) * score**2 * near
    return -(positive.sum() + negative.sum()) / is_center.sum().clamp(min=1)


def encoded(boxes: Tensor, x: Tensor, y: Tensor, grid: GridConfig, shape: tuple[int, int]) -> Tensor:
    """What the head should predict at cells (x, y) for these boxes; the inverse of `boxes_at`."""
    size = [(grid.high[i] - grid.low[i]) / shape[i] for i in range(2)]
    off_x = (boxes[:, 0] - grid.low[0]) / size[0] - x - 0.5
    off_y = (boxes[:, 1] - grid.low[1]) / size[1] - y - 0.5
    twice = 2 * boxes[:, 6]
    place = torch.stack([off_x, off_y, boxes[:, 2]], 1)
    return torch.cat([place, boxes[:, 3:6].log(), torch.stack([twice.sin(), twice.cos()], 1)], 1)
