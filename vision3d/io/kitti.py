"""Boxes of the KITTI object set: label .txt with the calibration .txt of the same frame.

Labels are in the rectified frame of camera 0 (x right, y down, z forward): the center of the bottom face of each box, height,
width, length, and the rotation about y. Ours are in the frame of the LiDAR. DontCare lines are skipped. The yaw is
-ry - pi/2, as in detectors: the tilt of some tenths of a degree between the two frames is ignored.
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.scene.boxes import Boxes

_NUM_VALUES = (14, 15)  # after the class; the last is a score


def read_calibration(path: Path | str) -> Float[Tensor, "4 4"]:
    """LiDAR to rectified camera 0, float64: R0_rect Tr_velo_to_cam.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It lacks one of the two, or has invalid numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a KITTI calibration .txt")
    rows = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        name, _, values = line.partition(":")
        rows[name.strip()] = values.split()
    matrices = []
    for names, shape in ((("R0_rect", "R_rect"), (3, 3)), (("Tr_velo_to_cam", "Tr_velo_cam"), (3, 4))):
        found = next((rows[name] for name in names if name in rows), None)
        if found is None:
            raise FileFormatError(path, f"lacks {names[0]}")
        try:
            values = torch.tensor([float(value) for value in found], dtype=torch.float64).reshape(shape)
        except (ValueError, RuntimeError) as error:
            raise FileFormatError(path, f"{names[0]} has not {math.prod(shape)} numbers") from error
        if not bool(torch.isfinite(values).all()):
            raise FileFormatError(path, f"{names[0]} is not finite")
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[: shape[0], : shape[1]] = values
        matrices.append(matrix)
    return matrices[0] @ matrices[1]


def read_labels(path: Path | str, calibration: Path | str | Tensor | None = None) -> Boxes:
    """Read a label file into the frame of the LiDAR.

    Args:
        path: The label .txt.
        calibration: Calibration .txt, or the matrix of `read_calibration`; None looks in `../calib`.

    Raises:
        MissingFileError: One of the files does not exist.
        FileFormatError: A line is invalid; the message has its number.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a KITTI label .txt")
    lidar_to_camera = calibration if isinstance(calibration, Tensor) else read_calibration(calibration or _beside(path))
    names, rows, scores = [], [], []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        name, *words = line.split() or ["DontCare"]
        if name == "DontCare":
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) not in _NUM_VALUES or not all(map(math.isfinite, values)):
            raise FileFormatError(path, f"has {len(words)} values after the class, want 14 or 15 numbers", f"line {number}")
        height, width, length, x, y, z, turn = values[7:14]
        names.append(name)
        rows.append([x, y - height / 2, z, length, width, height, -turn - math.pi / 2])
        scores.append(values[14] if len(values) == 15 else None)
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 7)
    camera_to_lidar = torch.linalg.inv(lidar_to_camera.double())
    values[:, :3] = values[:, :3] @ camera_to_lidar[:3, :3].T + camera_to_lidar[:3, 3]
    values[:, 6] = torch.remainder(values[:, 6] + math.pi, 2 * math.pi) - math.pi
    classes = tuple(dict.fromkeys(names))
    has_scores = bool(scores) and all(score is not None for score in scores)
    try:
        return Boxes(
            values.float(),
            torch.tensor([classes.index(name) for name in names], dtype=torch.int64),
            torch.tensor(scores, dtype=torch.float32) if has_scores else None,
            classes,
        ).validate()
    except InputError as error:
        raise FileFormatError(path, str(error)) from error


def write_labels(path: Path | str, boxes: Boxes, calibration: Path | str | Tensor) -> None:
    """Write a label file atomically; truncation and occlusion are -1 (unknown), the box in the image is 0.

    Args:
        path: The label .txt.
        boxes: In the frame of the LiDAR, with labels and class names.
        calibration: Calibration .txt, or the matrix of `read_calibration`.

    Raises:
        InputError: The boxes have no class names, or invalid values.
    """
    boxes.validate()
    if boxes.labels is None or not boxes.classes:
        raise InputError(f"{path}: a KITTI label file needs labels and classes")
    matrix = calibration if isinstance(calibration, Tensor) else read_calibration(calibration)
    values = boxes.boxes.detach().cpu().double()
    centers = values[:, :3] @ matrix[:3, :3].double().T + matrix[:3, 3].double()
    lines = []
    for i, (center, box, label) in enumerate(zip(centers.tolist(), values.tolist(), boxes.labels.tolist())):
        length, width, height, yaw = box[3:]
        turn = math.remainder(-yaw - math.pi / 2, 2 * math.pi)
        alpha = math.remainder(turn - math.atan2(center[0], center[2]), 2 * math.pi)
        numbers = [height, width, length, center[0], center[1] + height / 2, center[2], turn]
        numbers += [] if boxes.scores is None else [float(boxes.scores[i])]
        lines.append(f"{boxes.classes[label]} -1 -1 {alpha:.6f} 0 0 0 0 {' '.join(f'{n:.6f}' for n in numbers)}")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def load(path: Path) -> Boxes:
    """Codec: read the boxes of a label file whose calibration is in `../calib`."""
    return read_labels(path)


def _beside(path: Path) -> Path:
    found = path.parent.parent / "calib" / path.name
    if not found.is_file():
        raise MissingFileError(found, "the calibration of the labels, or one given to vision3d.io.kitti.read_labels")
    return found
