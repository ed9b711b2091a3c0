"""Losses of the center head."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from vision3d.stages.detect.config import GridConfig, LossConfig
from vision3d.stages.detect.data.targets import Targets
from vision3d.stages.detect.network.head import Outputs, boxes_at

Overlap = Callable[[Tensor, Tensor], Tensor]


def total_loss(
    outputs: Outputs, targets: Targets, grid: GridConfig, config: LossConfig, overlap: Overlap
) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum of the losses, and each of them.

    Args:
        outputs: Predictions.
        targets: Targets.
        grid: The grid.
        config: Weights.
        overlap: Overlap (intersection over union) of pairs of boxes (n, 7), (n, 7) -> (n,).
    """
    sample, x, y = targets.at.unbind(1)
    total = targets.weights.sum().clamp(min=1)
    values = outputs.boxes[sample, :, x, y]
    direction, iou = outputs.direction[sample, 0, x, y], outputs.iou[sample, 0, x, y]
    wanted = encoded(targets.boxes, x, y, grid, outputs.heat.shape[2:])
    error = (values - wanted).abs().sum(1)
    is_front = torch.cos(targets.boxes[:, 6]) >= 0
    turn = functional.binary_cross_entropy_with_logits(direction, is_front.to(direction), reduction="none")
    with torch.no_grad():
        truth = 2 * overlap(boxes_at(values, direction, x, y, grid, outputs.heat.shape[2:]), targets.boxes) - 1
    parts = {
        "heat": focal(outputs.heat, targets.heat, targets.counted),
        "box": (error * targets.weights).sum() / total / 8,
        "direction": (turn * targets.weights).sum() / total,
        "iou": ((iou - truth).abs() * targets.weights).sum() / total,
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


def encoded(boxes: Tensor, x: Tensor, y: Tensor, grid: GridConfig, shape: tuple[int, ...]) -> Tensor:
    """What the head should predict at cells (x, y) for these boxes; the inverse of `boxes_at`."""
    size = [(grid.high[i] - grid.low[i]) / shape[i] for i in range(2)]
    off_x = (boxes[:, 0] - grid.low[0]) / size[0] - x - 0.5
    off_y = (boxes[:, 1] - grid.low[1]) / size[1] - y - 0.5
    twice = 2 * boxes[:, 6]
    place = torch.stack([off_x, off_y, boxes[:, 2]], 1)
    return torch.cat([place, boxes[:, 3:6].log(), torch.stack([twice.sin(), twice.cos()], 1)], 1)


def unturned_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Overlap of boxes after rotating both by the nearest multiple of 90 degrees, for tests."""
    sizes = []
    for boxes in (a, b):
        swap = (torch.remainder(boxes[:, 6] + math.pi / 4, math.pi) > math.pi / 2)[:, None]
        sizes.append(torch.cat([torch.where(swap, boxes[:, [4, 3]], boxes[:, [3, 4]]), boxes[:, 5:6]], 1))
    low = torch.maximum(a[:, :3] - sizes[0] / 2, b[:, :3] - sizes[1] / 2)
    high = torch.minimum(a[:, :3] + sizes[0] / 2, b[:, :3] + sizes[1] / 2)
    common = (high - low).clamp(min=0).prod(1)
    return common / (sizes[0].prod(1) + sizes[1].prod(1) - common)
