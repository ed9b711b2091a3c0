"""Targets of the heads: heat maps, ignored cells, the box of each cell near a center, and the objects."""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.stages.detect.config import GridConfig
from vision3d.stages.detect.data.sweeps import LabelledSweep

_OVERLAP = 0.1  # lowest overlap of a box moved by the radius (Yin et al. 2021)
_SMALLEST = 2  # cells


@dataclass(frozen=True)
class Targets:
    """Targets of a batch."""

    heat: Float[Tensor, "b k x y"]
    """1 at centers, falling to 0 within their radius."""
    counted: Bool[Tensor, "b x y"]
    """Cells outside ignored objects."""
    at: Int64[Tensor, "n 3"]
    """Sample, x and y of the cells with a box."""
    boxes: Float[Tensor, "n 7"]
    """Their boxes."""
    weights: Float[Tensor, " n"]
    """Their weights: the heat."""
    objects: Float[Tensor, "m 7"]
    """Boxes of the objects, without ignored ones."""
    labels: Int64[Tensor, " m"]
    """Their classes."""
    samples: Int64[Tensor, " m"]
    """Their samples."""

    def to(self, device: torch.device) -> "Targets":
        """The targets on a device."""
        return Targets(*(getattr(self, field.name).to(device) for field in fields(self)))


def gaussian_radius(length: Tensor, width: Tensor, overlap: float = _OVERLAP) -> Tensor:
    """How far a box may move along both axes until its overlap with itself is `overlap`, in the unit of the sizes.

    From (l - r)(w - r) / (2 l w - (l - r)(w - r)) = overlap, of the three cases of CornerNet (Law & Deng 2018) the one of a box
    of equal size.
    """
    total, area = length + width, length * width * (1 - overlap) / (1 + overlap)
    return (total - (total * total - 4 * area).clamp(min=0).sqrt()) / 2


def make_targets(
    sweeps: list[LabelledSweep], grid: GridConfig, num_classes: int, cells: tuple[int, int] | None = None
) -> Targets:
    """The targets of cropped sweeps.

    Args:
        sweeps: Points and boxes in the grid.
        grid: The region.
        num_classes: Number of classes.
        cells: Cells along x and y of the image that the head sees; by default those of the grid.
    """
    width, height = cells or grid.shape[:2]
    cell = [(grid.high[i] - grid.low[i]) / count for i, count in enumerate((width, height))]
    heat = torch.zeros(len(sweeps), num_classes, width, height)
    counted = torch.ones(len(sweeps), width, height, dtype=torch.bool)
    xs = (torch.arange(width) + 0.5) * cell[0] + grid.low[0]
    ys = (torch.arange(height) + 0.5) * cell[1] + grid.low[1]
    at, boxes, weights = [], [], []
    for sample, sweep in enumerate(sweeps):
        radii = gaussian_radius(sweep.boxes[:, 3] / cell[0], sweep.boxes[:, 4] / cell[1]).floor().clamp(min=_SMALLEST)
        for box, label, radius in zip(sweep.boxes, sweep.labels.tolist(), radii.tolist()):
            if label < 0:
                counted[sample] &= ~_covered(box, xs, ys)
                continue
            x = int((float(box[0]) - grid.low[0]) / cell[0])
            y = int((float(box[1]) - grid.low[1]) / cell[1])
            _draw(heat[sample, label], x, y, int(radius))
            for i in range(max(x - 1, 0), min(x + 2, width)):
                for j in range(max(y - 1, 0), min(y + 2, height)):
                    at.append((sample, i, j))
                    boxes.append(box)
                    weights.append(math.exp(-((i - x) ** 2 + (j - y) ** 2) / 2))
    return Targets(
        heat,
        counted | (heat.amax(1) == 1),
        torch.tensor(at, dtype=torch.int64).reshape(-1, 3),
        torch.stack(boxes) if boxes else torch.zeros(0, 7),
        torch.tensor(weights),
        torch.cat([sweep.boxes[sweep.labels >= 0] for sweep in sweeps]),
        torch.cat([sweep.labels[sweep.labels >= 0] for sweep in sweeps]),
        torch.cat([torch.full((int((sweep.labels >= 0).sum()),), sample) for sample, sweep in enumerate(sweeps)]),
    )


def _draw(heat: Tensor, x: int, y: int, radius: int) -> None:
    """Raise the heat around a center to a Gaussian with a standard deviation of a third of its extent."""
    sigma = (2 * radius + 1) / 6
    left, right = max(x - radius, 0), min(x + radius + 1, heat.shape[0])
    low, high = max(y - radius, 0), min(y + radius + 1, heat.shape[1])
    columns = torch.exp(-((torch.arange(left, right) - x) ** 2) / (2 * sigma**2))
    rows = torch.exp(-((torch.arange(low, high) - y) ** 2) / (2 * sigma**2))
    part = heat[left:right, low:high]
    torch.maximum(part, columns[:, None] * rows[None], out=part)


def _covered(box: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Cells whose centers lie in a box, enlarged by half a meter."""
    dx, dy = xs[:, None] - box[0], ys[None] - box[1]
    cosine, sine = box[6].cos(), box[6].sin()
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    return (along.abs() <= box[3] / 2 + 0.5) & (across.abs() <= box[4] / 2 + 0.5)
