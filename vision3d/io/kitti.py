"""The KITTI object set: label .txt with the calibration .txt of the same frame.

Labels are in the rectified frame of camera 0 (x right, y down, z forward): the center of the bottom face of each box, height,
width, length, and the rotation about y. Ours are in the frame of the LiDAR. The yaw is -ry - pi/2, as in detectors: the tilt of
some tenths of a degree between the two frames is ignored.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.scene.boxes import Boxes
from vision3d.scene.checks import check_shape

_NUM_VALUES = (14, 15)  # after the class; the last is a score
DONT_CARE = "DontCare"
"""Class of the regions of the image in which objects are not labelled."""


@dataclass(frozen=True, eq=False)
class KittiLabels:
    """All columns of a label file, B objects and K regions without labels."""

    boxes: Boxes
    """In the frame of the LiDAR, with class names."""
    truncation: Float[Tensor, " b"]
    """Share of the object outside the image, in [0, 1]; -1 unknown."""
    occlusion: Int64[Tensor, " b"]
    """0 visible, 1 partly, 2 largely occluded, 3 unknown; -1 in files of detections."""
    alpha: Float[Tensor, " b"]
    """Observation angle [rad]: the rotation about y minus the bearing of the object."""
    boxes_2d: Float[Tensor, "b 4"]
    """Left, top, right, bottom [pixels]; zeros if unknown."""
    dont_care: Float[Tensor, "k 4"]
    """Regions of the image in which objects are not labelled [pixels]."""

    def __post_init__(self) -> None:
        count = len(self.boxes)
        for name, shape in (("truncation", (count,)), ("alpha", (count,)), ("boxes_2d", (count, 4)), ("dont_care", ("K", 4))):
            check_shape(f"KittiLabels.{name}", getattr(self, name), shape)
        check_shape("KittiLabels.occlusion", self.occlusion, (count,), kind="int64")

    @classmethod
    def of(cls, boxes: Boxes, calibration: Float[Tensor, "4 4"]) -> "KittiLabels":
        """Boxes of which only the observation angle is known."""
        count, values = len(boxes), boxes.boxes.detach().cpu().double()
        centers = values[:, :3] @ calibration[:3, :3].double().T + calibration[:3, 3].double()
        alpha = _wrapped(-values[:, 6] - math.pi / 2 - torch.atan2(centers[:, 0], centers[:, 2]))
        unknown = torch.full((count,), -1, dtype=torch.int64)
        return cls(boxes, unknown.float(), unknown, alpha.float(), torch.zeros(count, 4), torch.zeros(0, 4))


def read_calibration(path: Path | str) -> Float[Tensor, "4 4"]:
    """LiDAR to rectified camera 0, float64: R0_rect Tr_velo_to_cam.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It lacks one of the two, has invalid numbers, or their product is singular.
    """
    rows = _rows(Path(path))
    rectify, to_camera = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    rectify[:3, :3] = _matrix(Path(path), rows, ("R0_rect", "R_rect"), (3, 3))
    to_camera[:3] = _matrix(Path(path), rows, ("Tr_velo_to_cam", "Tr_velo_cam"), (3, 4))
    matrix = rectify @ to_camera
    if abs(float(torch.linalg.det(matrix))) < 1e-6:
        raise FileFormatError(path, "R0_rect Tr_velo_to_cam is singular, want a rigid motion")
    return matrix


def read_projection(path: Path | str) -> Float[Tensor, "3 4"]:
    """P2 of a calibration .txt, float64: rectified camera 0 to pixels of the left color camera.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It lacks P2, or P2 has invalid numbers.
    """
    return _matrix(Path(path), _rows(Path(path)), ("P2",), (3, 4))


def write_calibration(path: Path | str, calibration: Float[Tensor, "4 4"], projection: Float[Tensor, "3 4"]) -> None:
    """Write a calibration .txt atomically: R0_rect is the identity, and all four cameras are the one given.

    Args:
        path: The .txt.
        calibration: LiDAR to rectified camera.
        projection: Rectified camera to pixels.
    """
    identity = torch.eye(4, dtype=torch.float64)
    named = {f"P{i}": projection for i in range(4)}
    named |= {"R0_rect": identity[:3, :3], "Tr_velo_to_cam": calibration[:3], "Tr_imu_to_velo": identity[:3]}
    lines = [f"{name}: {' '.join(f'{float(value):.12e}' for value in matrix.reshape(-1))}" for name, matrix in named.items()]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def read_image_size(path: Path | str) -> tuple[int, int]:
    """Width and height of an image [pixels], from its header.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not an image.
    """
    from PIL import Image, UnidentifiedImageError

    if not Path(path).is_file():
        raise MissingFileError(path, "an image")
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError) as error:
        raise FileFormatError(path, "is not an image") from error


def read_labels(path: Path | str, calibration: Path | str | Tensor | None = None) -> Boxes:
    """The boxes of a label file in the frame of the LiDAR.

    Args, errors: as for `read_label_columns`.
    """
    return read_label_columns(path, calibration).boxes


def read_label_columns(path: Path | str, calibration: Path | str | Tensor | None = None) -> KittiLabels:
    """Read all columns of a label file, or of a file of detections; the boxes are in the frame of the LiDAR.

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
    names, rows, regions = [], [], []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        name, *words = line.split() or [""]
        if not name:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) not in _NUM_VALUES or not all(map(math.isfinite, values)):
            raise FileFormatError(path, f"has {len(words)} values after the class, want 14 or 15 numbers", f"line {number}")
        if name == DONT_CARE:
            regions.append(values[3:7])
        else:
            names.append(name)
            rows.append(values)
    has_scores = bool(rows) and all(len(row) == 15 for row in rows)
    scores = torch.tensor([row[14] for row in rows], dtype=torch.float32) if has_scores else None
    values = torch.tensor([row[:14] for row in rows], dtype=torch.float64).reshape(-1, 14)
    height, width, length, x, y, z, turn = values[:, 7:14].unbind(1)
    camera_to_lidar = torch.linalg.inv(lidar_to_camera.double())
    centers = torch.stack([x, y - height / 2, z], 1) @ camera_to_lidar[:3, :3].T + camera_to_lidar[:3, 3]
    sizes_and_yaw = torch.stack([length, width, height, _wrapped(-turn - math.pi / 2)], 1)
    try:
        boxes = Boxes.of_names(torch.cat([centers, sizes_and_yaw], 1).float(), names, scores).validate()
    except InputError as error:
        raise FileFormatError(path, str(error)) from error
    return KittiLabels(
        boxes,
        truncation=values[:, 0].float(),
        occlusion=values[:, 1].long(),
        alpha=values[:, 2].float(),
        boxes_2d=values[:, 3:7].float(),
        dont_care=torch.tensor(regions, dtype=torch.float32).reshape(-1, 4),
    )


def write_labels(path: Path | str, boxes: Boxes | KittiLabels, calibration: Path | str | Tensor) -> None:
    """Write a label file atomically; of plain boxes, truncation and occlusion are -1 (unknown), the box in the image is 0.

    Args:
        path: The label .txt.
        boxes: In the frame of the LiDAR, with labels and class names; or with all columns.
        calibration: Calibration .txt, or the matrix of `read_calibration`.

    Raises:
        InputError: The boxes have no class names, or invalid values.
    """
    matrix = calibration if isinstance(calibration, Tensor) else read_calibration(calibration)
    columns = KittiLabels.of(boxes, matrix) if isinstance(boxes, Boxes) else boxes
    boxes = columns.boxes.validate()
    if boxes.labels is None or not boxes.classes:
        raise InputError(f"{path}: a KITTI label file needs labels and classes")
    values = boxes.boxes.detach().cpu().double()
    centers = values[:, :3] @ matrix[:3, :3].double().T + matrix[:3, 3].double()
    lines = []
    for i, (center, box, label) in enumerate(zip(centers.tolist(), values.tolist(), boxes.labels.tolist())):
        length, width, height, yaw = box[3:]
        turn = math.remainder(-yaw - math.pi / 2, 2 * math.pi)
        numbers = [height, width, length, center[0], center[1] + height / 2, center[2], turn]
        numbers += [] if boxes.scores is None else [float(boxes.scores[i])]
        first = (
            f"{boxes.classes[label]} {float(columns.truncation[i]):g} {int(columns.occlusion[i])} {float(columns.alpha[i]):.6f}"
        )
        inside = " ".join(f"{side:.2f}" if side else "0" for side in columns.boxes_2d[i].tolist())
        lines.append(f"{first} {inside} {' '.join(f'{n:.6f}' for n in numbers)}")
    for region in columns.dont_care.tolist():
        lines.append(f"{DONT_CARE} -1 -1 -10 {' '.join(f'{side:.2f}' for side in region)} -1 -1 -1 -1000 -1000 -1000 -10")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def load(path: Path) -> Boxes:
    """Codec: read the boxes of a label file whose calibration is in `../calib`."""
    return read_labels(path)


def _wrapped(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def _rows(path: Path) -> dict[str, list[str]]:
    """The words of each line of a calibration file, by name."""
    if not path.is_file():
        raise MissingFileError(path, "a KITTI calibration .txt")
    rows = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        name, _, values = line.partition(":")
        rows[name.strip()] = values.split()
    return rows


def _matrix(path: Path, rows: dict[str, list[str]], names: tuple[str, ...], shape: tuple[int, int]) -> Tensor:
    found = next((rows[name] for name in names if name in rows), None)
    if found is None:
        raise FileFormatError(path, f"lacks {names[0]}")
    try:
        values = torch.tensor([float(value) for value in found], dtype=torch.float64).reshape(shape)
    except (ValueError, RuntimeError) as error:
        raise FileFormatError(path, f"{names[0]} has not {math.prod(shape)} numbers") from error
    if not bool(torch.isfinite(values).all()):
        raise FileFormatError(path, f"{names[0]} is not finite")
    return values


def _beside(path: Path) -> Path:
    found = path.parent.parent / "calib" / path.name
    if not found.is_file():
        raise MissingFileError(found, "the calibration of the labels, or one given to vision3d.io.kitti.read_labels")
    return found
