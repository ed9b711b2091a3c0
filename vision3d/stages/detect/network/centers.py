"""Boxes at the centers of objects (CenterPoint, Yin et al. 2021), with the orientation as an axis and a direction.

An L1 loss on the sine and cosine of the yaw has its optimum near zero where front and back look alike. So the head predicts
the axis (sine and cosine of twice the yaw) and a vector whose sign along it says which way: a classification for which no yaw
is a border, as it would be for "the yaw is in [-pi/2, pi/2)".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.geometry.rotated_boxes import paired_box_iou
from vision3d.stages.detect.config import GridConfig
from vision3d.stages.detect.data.targets import Targets
from vision3d.stages.detect.network.bev import block
from vision3d.stages.detect.network.head import Head, Peaks
from vision3d.training.heat import heat_focal

_PRIOR = -2.19  # logit of a probability of 0.1 (Lin et al. 2017)


@dataclass(frozen=True)
class CenterOutputs:
    """Predictions per cell of the bird's-eye image."""

    heat: Float[Tensor, "b k x y"]
    """Logits of the classes' centers."""
    boxes: Float[Tensor, "b 8 x y"]
    """Offset of the center from that of the cell [cells], z [m], log of length, width, height, sine and cosine of twice the
    yaw."""
    direction: Float[Tensor, "b 2 x y"]
    """Vector in the frame of the image; its component along a yaw is the logit of that yaw against the opposite one."""
    iou: Float[Tensor, "b 1 x y"]
    """Predicted overlap with the true box, in [-1, 1] for 0 to 1."""


class CenterHead(Head[CenterOutputs]):
    """Heat map of each class and one box per cell.

    Args:
        inputs: Features of the bird's-eye image.
        channels: Features of the head.
        num_classes: Number of classes.
        grid: The region of the image.
    """

    def __init__(self, inputs: int, channels: int, num_classes: int, grid: GridConfig) -> None:
        super().__init__()
        self.grid = grid
        self.shared = block(inputs, channels, kernel=1)
        self.heat = nn.Sequential(block(channels, channels), nn.Conv2d(channels, num_classes, 1))
        self.box = nn.Sequential(block(channels, channels), nn.Conv2d(channels, 11, 1))
        last = self.heat[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias, _PRIOR)

    def forward(self, image: Float[Tensor, "b c x y"]) -> CenterOutputs:
        image = self.shared(image)
        box = self.box(image)
        return CenterOutputs(self.heat(image), box[:, :8], box[:, 8:10], box[:, 10:11])

    def parts(self, outputs: CenterOutputs, targets: Targets) -> dict[str, Tensor]:
        grid, shape = self.grid, (outputs.heat.shape[2], outputs.heat.shape[3])
        sample, x, y = targets.at.unbind(1)
        total = targets.weights.sum().clamp(min=1)
        values = outputs.boxes[sample, :, x, y]
        direction, iou = outputs.direction[sample, :, x, y], outputs.iou[sample, 0, x, y]
        wanted = encoded(targets.boxes, x, y, grid, shape)
        error = (values - wanted).abs()
        vertical = error[:, 2] + error[:, 5]
        way = unit_vectors(targets.boxes[:, 6]).to(direction)
        turn = functional.softplus(-(direction * way).sum(1))
        # The way along the axis is left to the direction: turned by half a circle the overlap is the same.
        overlap = paired_box_iou(boxes_at(values, way, x, y, grid, shape), targets.boxes, mode="3d")
        return {
            "heat": heat_focal(outputs.heat, targets.heat, targets.counted),
            "box": ((error.sum(1) - vertical) * targets.weights).sum() / total / 8,
            "vertical": (vertical * targets.weights).sum() / total / 8,
            "direction": (turn * targets.weights).sum() / total,
            "overlap": ((1 - overlap) * targets.weights).sum() / total,
            "iou": ((iou - (2 * overlap.detach() - 1)).abs() * targets.weights).sum() / total,
        }

    def strongest(self, outputs: CenterOutputs, count: int, iou_power: float = 0.5, lowest: float = 0.0) -> list[Peaks]:
        """The peaks of the heat maps."""
        heat = outputs.heat.sigmoid()
        heat = torch.where(functional.max_pool2d(heat, 3, 1, 1) == heat, heat, 0)
        (width, height), found = heat.shape[2:], []
        for sample in range(len(heat)):
            scores, order = heat[sample].flatten().topk(min(count, heat[sample].numel()))
            labels, place = order // (width * height), order % (width * height)
            x, y = place // height, place % height
            values, direction = outputs.boxes[sample, :, x, y].T, outputs.direction[sample, :, x, y].T
            boxes = boxes_at(values, direction, x, y, self.grid, (width, height))
            overlap = ((outputs.iou[sample, 0, x, y] + 1) / 2).clamp(1e-3, 1.0)
            # A cell that is not a peak has no score, also with a high overlap.
            scores = torch.where((scores > 0) & (scores >= lowest), scores ** (1 - iou_power) * overlap**iou_power, 0)
            found.append(Peaks(boxes, labels, scores))
        return found

    def decode(self, outputs: CenterOutputs, *, count: int = 200, lowest: float = 0.05, iou_power: float = 0.5) -> list[Peaks]:
        """The peaks of the heat maps; overlapping ones are not removed."""
        found = []
        for peaks in self.strongest(outputs, count, iou_power, lowest):
            order = peaks.scores.argsort(descending=True, stable=True)
            order = order[peaks.scores[order] >= lowest]
            found.append(Peaks(peaks.boxes[order], peaks.labels[order], peaks.scores[order]))
        return found


def boxes_at(
    values: Float[Tensor, "n 8"],
    direction: Float[Tensor, "n 2"],
    x: Tensor,
    y: Tensor,
    grid: GridConfig,
    shape: tuple[int, int],
) -> Float[Tensor, "n 7"]:
    """Boxes of predictions at cells (x, y)."""
    size = [(grid.high[i] - grid.low[i]) / shape[i] for i in range(2)]
    center_x = (x + 0.5 + values[:, 0]) * size[0] + grid.low[0]
    center_y = (y + 0.5 + values[:, 1]) * size[1] + grid.low[1]
    sizes = values[:, 3:6].clamp(-3, 4).exp()
    yaw = torch.atan2(values[:, 6], values[:, 7]) / 2
    yaw = torch.where((direction * unit_vectors(yaw)).sum(1) >= 0, yaw, yaw + math.pi)
    yaw = torch.remainder(yaw + math.pi, 2 * math.pi) - math.pi
    return torch.cat([torch.stack([center_x, center_y, values[:, 2]], 1), sizes, yaw[:, None]], 1)


def unit_vectors(yaw: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """The forward axis of boxes with these yaws."""
    return torch.stack([yaw.cos(), yaw.sin()], 1)


def encoded(boxes: Tensor, x: Tensor, y: Tensor, grid: GridConfig, shape: tuple[int, int]) -> Tensor:
    """What the head should predict at cells (x, y) for these boxes; the inverse of `boxes_at`."""
    size = [(grid.high[i] - grid.low[i]) / shape[i] for i in range(2)]
    off_x = (boxes[:, 0] - grid.low[0]) / size[0] - x - 0.5
    off_y = (boxes[:, 1] - grid.low[1]) / size[1] - y - 0.5
    twice = 2 * boxes[:, 6]
    place = torch.stack([off_x, off_y, boxes[:, 2]], 1)
    return torch.cat([place, boxes[:, 3:6].log(), torch.stack([twice.sin(), twice.cos()], 1)], 1)
