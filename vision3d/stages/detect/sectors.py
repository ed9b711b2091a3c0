"""Detection in a whole sweep by a network that sees a sector: the sweep is rotated, and the boxes rotated back."""

import functools
import logging
import math
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.rotated_boxes import box_nms
from vision3d.scene.boxes import Boxes
from vision3d.stages.detect.config import GROUND, GridConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.ground import ground_plane, level_transform
from vision3d.stages.detect.network.detector import Network
from vision3d.stages.detect.network.files import Detector
from vision3d.stages.detect.network.head import Peaks
from vision3d.stages.detect.network.norms import folded

logger = logging.getLogger(__name__)

_OVERLAP = 0.1  # two objects of a class do not share more of the ground
_FEWEST = 20  # points of a sector worth looking at


def detect_boxes(
    detector: Detector,
    points: Float[Tensor, "n 4"],
    *,
    lowest: float = 0.1,
    sensor_height: float | None = None,
    iou_power: float = 0.5,
) -> Boxes:
    """The boxes of a sweep, by descending score.

    Args:
        detector: The detector.
        points: x y z [m], intensity in [0, 1]; x forward, z up.
        lowest: Minimum score.
        sensor_height: Height of the sensor above a horizontal ground [m]; None: the ground is estimated.
        iou_power: Weight of the predicted overlap in the score, if the head predicts one.

    Raises:
        InputError: A coordinate is not finite.
    """
    if not bool(torch.isfinite(points).all()):
        raise InputError("points: some values are not finite; drop them first")
    plane = ground_plane(points[:, :3]) if sensor_height is None else (0.0, 0.0, -sensor_height)
    level = level_transform(plane).to(points)
    xyz = points[:, :3] @ level[:3, :3].T + level[:3, 3]
    grid, device = detector.config.grid, next(detector.network.parameters()).device
    number = num_sectors(grid)
    clouds, angles = [], []
    for sector in range(number):
        angle = 2 * math.pi * sector / number
        turned = torch.cat([xyz @ _about_z(angle).to(xyz), points[:, 3:4]], 1)
        low, high = turned.new_tensor(grid.low), turned.new_tensor(grid.high)
        turned = turned[((turned[:, :3] >= low) & (turned[:, :3] < high)).all(1)]
        if len(turned) >= _FEWEST:
            clouds.append(turned)
            angles.append(angle)
    if not clouds:
        logger.warning(
            "no sector has %d points within %g m of the sensor and %g to %g m above the ground, so no boxes; want metres, z up",
            _FEWEST, grid.high[0], grid.low[2] - GROUND, grid.high[2] - GROUND,
        )  # fmt: skip
    found: list[Peaks] = []
    for peaks, angle in zip(_in_sectors(detector, clouds, device, lowest, iou_power), angles):
        bearing = torch.atan2(peaks.boxes[:, 1], peaks.boxes[:, 0]).abs()
        keep = bearing <= math.pi / number + math.radians(3) if number > 1 else torch.ones_like(bearing, dtype=torch.bool)
        boxes = peaks.boxes[keep].cpu()
        boxes[:, :3] = boxes[:, :3] @ _about_z(angle).T.to(boxes)
        boxes[:, 6] += angle
        found.append(Peaks(boxes, peaks.labels[keep].cpu(), peaks.scores[keep].cpu()))
    return _merged(found, detector.config.classes, torch.linalg.inv(level.double()))


def _in_sectors(detector: Detector, clouds: list[Tensor], device: torch.device, lowest: float, iou_power: float) -> list[Peaks]:
    """The boxes of each sector. On a CPU every thread takes a sector of its own: the layers are too small to be divided."""
    network = folded(detector.network)
    assert isinstance(network, Network)

    def one(cloud: Tensor) -> Peaks:
        with torch.inference_mode():
            outputs = network(PointBatch.of([cloud]).to(device))
            return network.head.decode(outputs, lowest=lowest, iou_power=iou_power)[0]

    threads = min(len(clouds), torch.get_num_threads()) if device.type == "cpu" else 1
    if threads < 2:
        return [one(cloud) for cloud in clouds]
    return list(_pool(threads).map(one, clouds))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay, with their memory; torch's layers use as many threads as are set in the calling one."""
    return ThreadPoolExecutor(threads, "sector", torch.set_num_threads, (1,))


def num_sectors(grid: GridConfig) -> int:
    """Number of sectors for a whole circle up to the range of the grid; 1 if the grid surrounds the sensor."""
    if grid.low[0] < 0:
        return 1
    side = min(-grid.low[1], grid.high[1])
    return max(1, math.ceil(math.pi / math.asin(min(1.0, max(side / grid.high[0], 0.1))) - 1e-9))


def _merged(found: list[Peaks], classes: tuple[str, ...], to_sensor: Tensor) -> Boxes:
    boxes = torch.cat([peaks.boxes for peaks in found]) if found else torch.zeros(0, 7)
    labels = torch.cat([peaks.labels for peaks in found]) if found else torch.zeros(0, dtype=torch.int64)
    scores = torch.cat([peaks.scores for peaks in found]) if found else torch.zeros(0)
    keep = box_nms(boxes, scores, _OVERLAP, labels=labels)
    boxes, labels, scores = boxes[keep], labels[keep], scores[keep]
    boxes[:, :3] = boxes[:, :3] @ to_sensor[:3, :3].T.to(boxes) + to_sensor[:3, 3].to(boxes)
    boxes[:, 6] = torch.remainder(boxes[:, 6] + math.pi, 2 * math.pi) - math.pi
    return Boxes(boxes, labels, scores, classes)


def _about_z(angle: float) -> Tensor:
    """Rotation by an angle, as a matrix R: x' = R x; points as rows multiplied by it rotate the other way."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
