"""A LiDAR sweep with its boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, nearest_names
from vision3d.io.kitti import KittiLabels
from vision3d.scene.points import PointCloud
from vision3d.stages.detect.camera import Camera

IGNORED = -1
"""Label of objects that are neither learned nor counted as mistakes."""

_SAME = {"Van": "Car"}
_KNOWN = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare")


@dataclass(frozen=True)
class LabelledSweep:
    """Points and boxes in the frame of the sensor: x forward, y left, z up."""

    points: Float[Tensor, "n 4"]
    """x y z [m], intensity in [0, 1]."""
    boxes: Float[Tensor, "b 7"]
    """x y z of the center, length, width, height [m], yaw [rad]."""
    labels: Int64[Tensor, " b"]
    """Index of the class, or `IGNORED`."""
    name: str = ""


@dataclass(frozen=True, eq=False)
class EvalFrame:
    """A sweep, its labels and its camera, which decides what counts."""

    name: str
    points: Float[Tensor, "n 4"]
    labels: KittiLabels
    """In the frame of the sensor."""
    camera: Camera


def rows_of(cloud: PointCloud) -> Float[Tensor, "n 4"]:
    """Points as the network takes them: x y z, and the intensity, 0 if there is none."""
    intensity = torch.zeros_like(cloud.points[:, 0]) if cloud.intensity is None else cloud.intensity
    return torch.cat([cloud.points, intensity[:, None]], 1).float()


def labels_of(names: Sequence[str], classes: Sequence[str], source: str = "labels") -> Int64[Tensor, " b"]:
    """Labels of class names of KITTI: vans are cars, and classes that the network has not are ignored.

    Raises:
        InputError: A name is neither one of the classes nor one of KITTI.
    """
    found = []
    for name in names:
        own = name if name in classes else _SAME.get(name, name)
        if own not in classes and name not in _KNOWN:
            near = nearest_names(name, {*classes, *_KNOWN})
            raise InputError(f"{source}: unknown class {name!r}; {near} (--model.classes: {', '.join(classes)})")
        found.append(classes.index(own) if own in classes else IGNORED)
    return torch.tensor(found, dtype=torch.int64)


def inside(points: Float[Tensor, "n 3"], boxes: Float[Tensor, "b 7"], slack: float = 0.0) -> Bool[Tensor, "b n"]:
    """Which points lie in which boxes, enlarged by `slack` [m] on all sides."""
    found = torch.zeros(len(boxes), len(points), dtype=torch.bool, device=points.device)
    x, halves = points[:, 0].contiguous(), boxes[:, 3:6] / 2 + slack
    reaches = torch.linalg.vector_norm(halves[:, :2], dim=1)
    # Only points within reach along x are tested further: few, in a sweep of streets.
    for index, (box, half) in enumerate(zip(boxes, halves)):
        rows = ((x - box[0]).abs_() <= reaches[index]).nonzero()[:, 0]
        offset = points[rows] - box[:3]
        cosine, sine = box[6].cos(), box[6].sin()
        along = offset[:, 0] * cosine + offset[:, 1] * sine
        across = offset[:, 1] * cosine - offset[:, 0] * sine
        found[index, rows] = (along.abs() <= half[0]) & (across.abs() <= half[1]) & (offset[:, 2].abs() <= half[2])
    return found


def turned(sweep: LabelledSweep, angle: float) -> LabelledSweep:
    """The sweep rotated about the vertical axis of the sensor by an angle [rad], counter-clockwise."""
    turn = torch.tensor(angle)
    cosine, sine = turn.cos(), turn.sin()
    rotation = torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])]).to(sweep.points)
    points, boxes = sweep.points.clone(), sweep.boxes.clone()
    points[:, :2] = points[:, :2] @ rotation.T
    boxes[:, :2] = boxes[:, :2] @ rotation.T
    boxes[:, 6] += angle
    return LabelledSweep(points, boxes, sweep.labels, sweep.name)
