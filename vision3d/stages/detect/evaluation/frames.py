"""Labels and detections as the evaluation takes them, and all frames of a set as flat arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vision3d.core.errors import InputError, ShapeError
from vision3d.stages.detect.evaluation.difficulties import DONT_CARE

_NO_ALPHA = -10  # in KITTI's files


@dataclass(frozen=True, eq=False)
class FrameObjects:
    """The labels, or the detections, of one frame; arrays or tensors on the CPU, with a row for each of n objects."""

    names: Sequence[str]
    """Class of each object; upper and lower case are equal. `DontCare` labels are regions of the image, without a box."""
    boxes: Any
    """(n, 7) x y z l w h yaw: center and sizes [m], yaw about z [rad], in any upright frame. KITTI's own program compares boxes
    in the frame of the camera: `upright_boxes`."""
    boxes_2d: Any = None
    """(n, 4) left, top, right, bottom in the image [px]; None, for all frames: no heights are checked, no 2D metrics."""
    truncation: Any = None
    """(n,) of labels, fraction outside of the image; None is 0."""
    occlusion: Any = None
    """(n,) of labels, 0 visible to 3 unknown; None is 0."""
    alphas: Any = None
    """(n,) observation angle [rad] for the orientation similarity; not evaluated if a frame has None or -10."""
    scores: Any = None
    """(n,) confidence of detections, any finite numbers."""


def upright_boxes(rows: Any) -> np.ndarray:
    """Boxes of a KITTI label file in an upright frame, with the overlaps that they have in the frame of the camera.

    Args:
        rows: (n, 7) height, width, length, x, y, z, rotation_y: the center of the bottom face in the frame of the camera (x
            right, y down, z forward), sizes [m], rotation about y [rad].

    Returns:
        (n, 7) x y z l w h yaw with x forward, y left, z up.
    """
    height, width, length, x, y, z, turn = np.asarray(rows, dtype=np.float64).reshape(-1, 7).T
    return np.stack([z, -x, height / 2 - y, length, width, height, -turn - math.pi / 2], 1)


@dataclass(frozen=True)
class Objects:
    """The objects of all frames, one after the other."""

    names: np.ndarray
    """Lower case."""
    frames: np.ndarray
    """Index of the frame of each object, which does not decrease."""
    counts: np.ndarray
    """Number of objects of each frame."""
    boxes: np.ndarray
    boxes_2d: np.ndarray | None
    truncation: np.ndarray
    occlusion: np.ndarray
    alphas: np.ndarray | None
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)


def gather(what: str, frames: Sequence[FrameObjects], *, have_scores: bool) -> Objects:
    """All frames as flat arrays.

    Args:
        what: `labels` or `detections`, for error messages.

    Raises:
        ShapeError: An array does not have a row per name.
        InputError: A value is not finite, a size is not positive, or only some frames have `boxes_2d`.
    """
    names = [name.lower() for frame in frames for name in frame.names]
    counts = np.array([len(frame.names) for frame in frames], dtype=np.int64)
    of_objects = np.array([name != DONT_CARE for name in names], dtype=bool)
    starts = np.repeat(np.arange(len(frames)), counts)

    def stacked(name: str, *shape: int, default: float | None = None, sizes: bool = False) -> np.ndarray | None:
        parts = []
        for index, frame in enumerate(frames):
            value = getattr(frame, name)
            want = (len(frame.names), *shape)
            if value is None and default is None and want[0]:
                return None
            part = np.full(want, default or 0.0) if value is None else np.asarray(value, dtype=np.float64)
            if part.shape != want:
                raise ShapeError(f"{what}, frame {index}: {name}", part.shape, want)
            parts.append(part)
        values = np.concatenate(parts) if parts else np.zeros((0, *shape))
        is_bad = ~np.isfinite(values).all(tuple(range(1, values.ndim)))
        if name != "boxes_2d":
            is_bad &= of_objects
        if is_bad.any():
            bad = int(np.flatnonzero(is_bad)[0])
            raise InputError(
                f"{what}, frame {starts[bad]}: {name} of a {names[bad]} is {values[bad].tolist()}, want finite values"
            )
        is_flat = of_objects & (values[:, 3:6] <= 0).any(1) if sizes else np.zeros(0, dtype=bool)
        if is_flat.any():
            bad = int(np.flatnonzero(is_flat)[0])
            raise InputError(
                f"{what}, frame {starts[bad]}: sizes of a {names[bad]} are {values[bad, 3:6].tolist()}, want positive ones"
            )
        return values

    some = {frame.boxes_2d is None for frame in frames if len(frame.names)}
    if len(some) > 1:
        raise InputError(f"{what}: only some of the frames have boxes_2d, want all or none")
    boxes, scores = stacked("boxes", 7, sizes=True), stacked("scores") if have_scores else np.zeros(len(names))
    if boxes is None or scores is None:
        raise InputError(f"{what}: a frame has no {'boxes' if boxes is None else 'scores'}")
    truncation, occlusion = stacked("truncation", default=0), stacked("occlusion", default=0)
    assert truncation is not None and occlusion is not None
    boxes_2d = None if True in some else stacked("boxes_2d", 4, default=0)
    if have_scores and boxes_2d is not None and len(boxes_2d) and bool((boxes_2d[:, 3] <= boxes_2d[:, 1]).all()):
        raise InputError(
            f"{what}: boxes_2d of all {len(boxes_2d)} detections are empty, so that none would count; want the boxes "
            "projected to the image, or None"
        )
    alphas = stacked("alphas")
    if alphas is not None and bool((alphas[of_objects] == _NO_ALPHA).any()):
        alphas = None
    return Objects(np.array(names, dtype=object), starts, counts, boxes, boxes_2d, truncation, occlusion, alphas, scores)
