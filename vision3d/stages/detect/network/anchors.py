"""Boxes relative to anchors, given boxes at every cell (SECOND, Yan et al. 2018), as LION uses them on KITTI.

Differs from the published head in two details: anchors are at the centers of the cells, and the anchor that an object overlaps
most predicts this object even if it overlaps another one more.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from vision3d.geometry.rotated_boxes import box_nms
from vision3d.stages.detect.config import AnchorConfig, GridConfig
from vision3d.stages.detect.data.targets import Targets
from vision3d.stages.detect.network.head import Head, Peaks
from vision3d.stages.detect.network.losses import class_focal
from vision3d.stages.detect.network.sparse_bev import CellRows

YAWS = (0.0, math.pi / 2)
"""Yaws of the anchors of a class [rad]."""

_PRIOR = 0.01  # probability of an object before training (Lin et al. 2017)
_OFFSET = math.pi / 4  # where the two directions meet, away from the yaws that are common on roads
_BETA = 1 / 9  # error at which the smooth L1 becomes linear
_CANDIDATES = 4096  # boxes before those that overlap are removed
_OVERLAP = 0.01  # largest overlap of two boxes of any classes


@dataclass(frozen=True)
class AnchorOutputs:
    """Predictions per anchor and cell; anchor 2 k + r is that of class k with the yaw r of `YAWS`."""

    classes: Float[Tensor, "b a k x y"]
    """Logits of the classes."""
    boxes: Float[Tensor, "b a 7 x y"]
    """The code of `encode_boxes`."""
    direction: Float[Tensor, "b a 2 x y"]
    """Logits of the directions of `directions_of`."""


class AnchorHead(Head[AnchorOutputs]):
    """Class, box and direction for each anchor, by 1x1 convolutions.

    Args:
        inputs: Features of the bird's-eye image.
        grid: The region of the image.
        config: The anchors.
    """

    def __init__(self, inputs: int, grid: GridConfig, config: AnchorConfig) -> None:
        super().__init__()
        self.grid, self.config = grid, config
        self.num_classes = len(config.sizes)
        self.num_anchors = len(YAWS) * self.num_classes
        self.classes = nn.Conv2d(inputs, self.num_anchors * self.num_classes, 1)
        self.box = nn.Conv2d(inputs, self.num_anchors * 7, 1)
        self.direction = nn.Conv2d(inputs, self.num_anchors * 2, 1)
        assert self.classes.bias is not None
        nn.init.constant_(self.classes.bias, -math.log(1 / _PRIOR - 1))
        nn.init.normal_(self.box.weight, std=0.001)

    def forward(self, image: Float[Tensor, "b c x y"]) -> AnchorOutputs:
        return self._outputs(layer(image) for layer in (self.classes, self.box, self.direction))

    def at_cells(self, image: CellRows) -> AnchorOutputs:
        maps = []
        for layer in (self.classes, self.box, self.direction):
            rows = functional.linear(image.rows, layer.weight[:, :, 0, 0], layer.bias)
            maps.append(CellRows(rows, image.cells).image(layer.bias))
        return self._outputs(maps)

    def _outputs(self, maps: Iterable[Tensor]) -> AnchorOutputs:
        return AnchorOutputs(*(values.unflatten(1, (self.num_anchors, -1)) for values in maps))

    def anchors(self, anchor: Tensor, x: Tensor, y: Tensor, shape: tuple[int, int]) -> Float[Tensor, "n 7"]:
        """Boxes of anchors at cells (x, y) of an image of this shape, float32."""
        config, device = self.config, anchor.device
        steps = [(self.grid.high[i] - self.grid.low[i]) / shape[i] for i in range(2)]
        places = [(cell + 0.5) * step + low for cell, step, low in zip((x, y), steps, self.grid.low)]
        kind = anchor // len(YAWS)
        sizes = torch.tensor(config.sizes, device=device)[kind]
        z = torch.tensor(config.bottoms, device=device)[kind] + sizes[:, 2] / 2
        yaw = torch.tensor(YAWS, device=device)[anchor % len(YAWS)]
        return torch.cat([torch.stack([*places, z], 1), sizes, yaw[:, None]], 1)

    def parts(self, outputs: AnchorOutputs, targets: Targets) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        shape = outputs.classes.shape[-2], outputs.classes.shape[-1]
        for sample in range(len(outputs.classes)):
            is_here = targets.samples == sample
            objects, labels = targets.objects[is_here].float(), targets.labels[is_here]
            owner, counted = self.assign(objects, labels, targets.counted[sample])
            anchor, x, y = (owner >= 0).nonzero(as_tuple=True)
            own = owner[anchor, x, y]
            logits = outputs.classes[sample].float()
            wanted = torch.zeros_like(logits)
            wanted[anchor, labels[own], x, y] = 1
            values = outputs.boxes[sample, anchor, :, x, y].float()
            error = values - encode_boxes(objects[own], self.anchors(anchor, x, y, shape))
            # Boxes that are turned by half a circle look alike; the direction distinguishes them.
            error = torch.cat([error[:, :6], error[:, 6:].sin()], 1)
            turns = outputs.direction[sample, anchor, :, x, y].float()
            parts = {
                "heat": (class_focal(logits, wanted) * counted[:, None]).sum(),
                "box": functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="sum", beta=_BETA),
                "direction": functional.cross_entropy(turns, directions_of(objects[own, 6]), reduction="sum"),
            }
            for name, part in parts.items():
                totals[name] = totals.get(name, 0) + part / (max(len(own), 1) * len(outputs.classes))
        return totals

    def assign(
        self, objects: Float[Tensor, "n 7"], labels: Int64[Tensor, " n"], counted: Bool[Tensor, "x y"]
    ) -> tuple[Int64[Tensor, "a x y"], Bool[Tensor, "a x y"]]:
        """What each anchor shall predict.

        Args:
            objects: Boxes of a sample.
            labels: Their classes.
            counted: Cells outside ignored objects.

        Returns:
            The object of each anchor, or -1; and which anchors are learned: neither those between the thresholds, nor those in
            ignored cells without an object.
        """
        shape = counted.shape[0], counted.shape[1]
        owners = torch.full((self.num_anchors, *shape), -1, device=counted.device)
        learned = counted.expand(owners.shape).clone()
        for kind in range(self.num_classes):
            own = (labels == kind).nonzero()[:, 0]
            if not len(own):
                continue
            overlaps = self._overlaps(objects[own], kind, shape)
            best, nearest = overlaps.max(0)
            is_positive = best >= self.config.positive[kind]
            owner = torch.where(is_positive, own[nearest], -1).flatten()
            most, place = overlaps.flatten(1).max(1)
            # In ascending order: of objects with the same best anchor, the one with the largest overlap is written last.
            order = most.argsort()
            for i in order[most[order] > 0].tolist():
                owner[place[i]] = own[i]
            owner = owner.view_as(best)
            here = slice(len(YAWS) * kind, len(YAWS) * (kind + 1))
            owners[here] = owner
            learned[here] = (owner >= 0) | (learned[here] & (best < self.config.negative[kind]))
        return owners, learned

    def _overlaps(self, boxes: Float[Tensor, "n 7"], kind: int, shape: tuple[int, int]) -> Float[Tensor, "n r x y"]:
        """IoU of boxes and the anchors of a class from above, all of them turned to the nearest axis."""
        length, width, _ = self.config.sizes[kind]
        extent = torch.where(is_across(boxes[:, 6])[:, None], boxes[:, [4, 3]], boxes[:, 3:5])
        areas = extent.prod(1)[:, None, None] + length * width
        found = []
        for sizes in ((length, width), (width, length)):
            common = []
            for i in range(2):
                step = (self.grid.high[i] - self.grid.low[i]) / shape[i]
                centers = (torch.arange(shape[i], device=boxes.device) + 0.5) * step + self.grid.low[i]
                low = torch.maximum(centers - sizes[i] / 2, (boxes[:, i] - extent[:, i] / 2)[:, None])
                high = torch.minimum(centers + sizes[i] / 2, (boxes[:, i] + extent[:, i] / 2)[:, None])
                common.append((high - low).clamp(min=0))
            both = common[0][:, :, None] * common[1][:, None]
            found.append(both / (areas - both))
        return torch.stack(found, 1)

    def strongest(self, outputs: AnchorOutputs, count: int, iou_power: float = 0.5, lowest: float = 0.0) -> list[Peaks]:
        """The boxes of the best class of each anchor; `iou_power` and `lowest` are not used."""
        shape = outputs.classes.shape[-2], outputs.classes.shape[-1]
        cells, found = shape[0] * shape[1], []
        for sample in range(len(outputs.classes)):
            best, labels = outputs.classes[sample].max(1)
            scores, place = best.flatten().sigmoid().topk(min(count, best.numel()))
            anchor, x, y = place // cells, place % cells // shape[1], place % shape[1]
            boxes = decode_boxes(outputs.boxes[sample, anchor, :, x, y], self.anchors(anchor, x, y, shape))
            direction = outputs.direction[sample, anchor, :, x, y].argmax(1)
            yaw = torch.remainder(boxes[:, 6] - _OFFSET, math.pi) + _OFFSET + math.pi * direction
            yaw = torch.remainder(yaw + math.pi, 2 * math.pi) - math.pi
            found.append(Peaks(torch.cat([boxes[:, :6], yaw[:, None]], 1), labels.flatten()[place], scores))
        return found

    def decode(self, outputs: AnchorOutputs, *, count: int = 200, lowest: float = 0.05, iou_power: float = 0.5) -> list[Peaks]:
        """The boxes that no better one of any class overlaps; `iou_power` is not used."""
        found = []
        for peaks in self.strongest(outputs, _CANDIDATES):
            sure = peaks.scores >= lowest
            boxes, labels, scores = peaks.boxes[sure], peaks.labels[sure], peaks.scores[sure]
            keep = box_nms(boxes, scores, _OVERLAP, max_count=count)
            found.append(Peaks(boxes[keep], labels[keep], scores[keep]))
        return found


def is_across(yaw: Tensor) -> Tensor:
    """Whether the y axis is nearer to the length of a box than the x axis."""
    return (torch.remainder(yaw + math.pi / 4, math.pi) - math.pi / 4).abs() > math.pi / 4


def directions_of(yaw: Tensor) -> Int64[Tensor, " n"]:
    """0 from 45 to 225 degrees, else 1."""
    return (torch.remainder(yaw - _OFFSET, 2 * math.pi) >= math.pi).long()


def encode_boxes(boxes: Float[Tensor, "n 7"], anchors: Float[Tensor, "n 7"]) -> Float[Tensor, "n 7"]:
    """Boxes relative to anchors: x and y by the diagonal, z by the height, logarithms of the ratios of the sizes, yaw [rad]."""
    diagonal = anchors[:, 3:5].norm(dim=1, keepdim=True)
    place = (boxes[:, :3] - anchors[:, :3]) / torch.cat([diagonal, diagonal, anchors[:, 5:6]], 1)
    return torch.cat([place, (boxes[:, 3:6] / anchors[:, 3:6]).log(), boxes[:, 6:] - anchors[:, 6:]], 1)


def decode_boxes(values: Float[Tensor, "n 7"], anchors: Float[Tensor, "n 7"]) -> Float[Tensor, "n 7"]:
    """The inverse of `encode_boxes`; sizes are limited to 1/20 to 20 times those of the anchors."""
    diagonal = anchors[:, 3:5].norm(dim=1, keepdim=True)
    place = values[:, :3] * torch.cat([diagonal, diagonal, anchors[:, 5:6]], 1) + anchors[:, :3]
    return torch.cat([place, values[:, 3:6].clamp(-3, 3).exp() * anchors[:, 3:6], values[:, 6:] + anchors[:, 6:]], 1)
