"""COLMAP models: cameras, images and points3D as .bin or .txt, read and written.

Poses are world to camera with OpenCV axes and quaternions wxyz, pixel centers at +0.5: COLMAP's conventions are ours.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError

MODELS = {  # name -> id, number of parameters
    "SIMPLE_PINHOLE": (0, 3),
    "PINHOLE": (1, 4),
    "SIMPLE_RADIAL": (2, 4),
    "RADIAL": (3, 5),
    "OPENCV": (4, 8),
    "OPENCV_FISHEYE": (5, 8),
    "FULL_OPENCV": (6, 12),
    "FOV": (7, 5),
    "SIMPLE_RADIAL_FISHEYE": (8, 4),
    "RADIAL_FISHEYE": (9, 5),
    "THIN_PRISM_FISHEYE": (10, 12),
}
_BY_ID = {number: (name, count) for name, (number, count) in MODELS.items()}
NO_POINT = np.uint64(2**64 - 1)
"""Point id of an observation without a 3D point."""

_POINT2D = np.dtype([("xy", "<f8", 2), ("point_id", "<u8")])
_TRACK = np.dtype([("image_id", "<u4"), ("point2d_idx", "<u4")])
T = TypeVar("T")


@dataclass
class ColmapCamera:
    """Intrinsics shared by several images."""

    model: str
    width: int
    height: int
    params: np.ndarray
    """In COLMAP's order for the model, float64."""


@dataclass
class ColmapImage:
    """An image with its pose and observations."""

    name: str
    camera_id: int
    qvec: np.ndarray
    """Rotation world to camera, wxyz."""
    tvec: np.ndarray
    """Translation world to camera."""
    xys: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    """Observations [px]."""
    point_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    """Ids of their points, or NO_POINT."""


@dataclass
class ColmapPoints:
    """The sparse points."""

    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    xyz: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    rgb: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    errors: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Mean reprojection errors [px]."""
    tracks: list[np.ndarray] = field(default_factory=list)
    """For each point the (image id, observation index) of its observations."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class ColmapModel:
    """A reconstruction; dictionaries are keyed by COLMAP's ids."""

    cameras: dict[int, ColmapCamera]
    images: dict[int, ColmapImage]
    points: ColmapPoints


def read_model(folder: Path | str) -> ColmapModel:
    """Read the model in a folder, preferring binary files.

    Raises:
        MissingFileError: The folder has no cameras and images.
        FileFormatError: A file is truncated or damaged (the message has the byte or line), or refers to a missing camera.
    """
    folder = Path(folder)
    suffix = next((s for s in (".bin", ".txt") if all((folder / f"{n}{s}").is_file() for n in ("cameras", "images"))), None)
    if suffix is None:
        raise MissingFileError(folder / "cameras.bin", "cameras and images as .bin or .txt")
    readers: tuple[Callable, Callable, Callable] = _BINARY if suffix == ".bin" else _TEXT
    cameras = readers[0](folder / f"cameras{suffix}")
    images = readers[1](folder / f"images{suffix}")
    points_path = folder / f"points3D{suffix}"
    points = readers[2](points_path) if points_path.is_file() else ColmapPoints()
    for key, image in images.items():
        if image.camera_id not in cameras:
            where = f"image {key} ({image.name})"
            raise FileFormatError(folder / f"images{suffix}", f"{where} refers to camera {image.camera_id}, which is missing")
    return ColmapModel(cameras, images, points)


def write_model(folder: Path | str, model: ColmapModel, *, binary: bool = True) -> None:
    """Write a model that COLMAP reads, each file atomically.

    Args:
        folder: Created if it does not exist.
        model: Cameras, images and points.
        binary: Write .bin instead of .txt.

    Raises:
        InputError: An image name has a space, and the form is .txt.
    """
    if not binary and (spaced := [image.name for image in model.images.values() if len(image.name.split()) != 1]):
        raise InputError(f"image name {spaced[0]!r} has a space, which COLMAP's text form cannot hold; write it as .bin")
    for name, data in (_to_binary(model) if binary else _to_text(model)).items():
        with atomic_write(Path(folder) / name) as temporary:
            temporary.write_bytes(data)


class _Reader:
    """Reads values from a binary file and reports the position if it ends early."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.size = path, file, path.stat().st_size

    def take(self, layout: str) -> tuple:
        return struct.unpack(f"<{layout}", self.bytes(struct.calcsize(f"<{layout}")))

    def bytes(self, count: int) -> bytes:
        start = self.file.tell()
        if start + count > self.size:  # checked before reading: a damaged count may be huge
            raise FileFormatError(self.path, f"is truncated: {count} bytes expected, {self.size - start} are left", start)
        return self.file.read(count)

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        return np.frombuffer(self.bytes(count * dtype.itemsize), dtype)

    def name(self) -> str:
        start = self.file.tell()
        data = bytearray()
        while (byte := self.bytes(1)) != b"\0":
            data += byte
            if len(data) > 4096:
                raise FileFormatError(self.path, "holds a name without an end", start)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileFormatError(self.path, "holds a name that is not UTF-8", start) from error


def _from_binary(read: Callable[[_Reader, int], T]) -> Callable[[Path], T]:
    def reader(path: Path) -> T:
        with path.open("rb") as file:
            source = _Reader(path, file)
            value = read(source, source.take("Q")[0])
            if file.tell() != source.size:
                raise FileFormatError(path, f"has {source.size - file.tell()} bytes more than it announces", file.tell())
            return value

    return reader


def _binary_cameras(source: _Reader, count: int) -> dict[int, ColmapCamera]:
    cameras = {}
    for _ in range(count):
        start = source.file.tell()
        key, number, width, height = source.take("IiQQ")
        if number not in _BY_ID:
            raise FileFormatError(source.path, f"camera {key} has the unknown model {number}; want {', '.join(MODELS)}", start)
        name, num_params = _BY_ID[number]
        cameras[key] = ColmapCamera(name, width, height, source.array(np.dtype("<f8"), num_params))
    return cameras


def _binary_images(source: _Reader, count: int) -> dict[int, ColmapImage]:
    images = {}
    for _ in range(count):
        (key,) = source.take("I")
        pose = source.array(np.dtype("<f8"), 7)
        (camera_id,) = source.take("I")
        name = source.name()
        seen = source.array(_POINT2D, source.take("Q")[0])
        images[key] = ColmapImage(name, camera_id, pose[:4], pose[4:], seen["xy"], seen["point_id"])
    return images


def _binary_points(source: _Reader, count: int) -> ColmapPoints:
    rows, tracks = [], []
    for _ in range(count):
        key, x, y, z, red, green, blue, error, length = source.take("QdddBBBdQ")
        rows.append((key, x, y, z, red, green, blue, error))
        tracks.append(source.array(_TRACK, length))
    return _points(rows, tracks)


def _points(rows: list[tuple], tracks: list[np.ndarray]) -> ColmapPoints:
    if not rows:
        return ColmapPoints()
    table = np.array([row[1:] for row in rows], np.float64)
    ids = np.array([row[0] for row in rows], np.uint64)
    return ColmapPoints(ids, table[:, :3], table[:, 3:6].astype(np.uint8), table[:, 6], tracks)


def _from_text(read: Callable[[list[tuple[int, str]]], T]) -> Callable[[Path], T]:
    def reader(path: Path) -> T:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise FileFormatError(path, "is not UTF-8 text") from error
        numbered = [(i + 1, line.strip()) for i, line in enumerate(lines) if not line.lstrip().startswith("#")]
        try:
            return read(numbered)
        except _LineError as error:
            raise FileFormatError(path, f"{error.args[1]}", f"line {error.args[0]}") from error.__cause__

    return reader


class _LineError(Exception):
    """Line number and error message."""


def _text_cameras(lines: list[tuple[int, str]]) -> dict[int, ColmapCamera]:
    cameras = {}
    for number, line in lines:
        words = line.split()
        if not words:
            continue
        if len(words) > 1 and words[1] not in MODELS:
            raise _LineError(number, f"camera {words[0]} has the unknown model {words[1]}; want {', '.join(MODELS)}")
        try:
            params = np.array(words[4:], np.float64)
            cameras[_whole(words[0])] = ColmapCamera(words[1], _whole(words[2]), _whole(words[3]), params)
        except (ValueError, IndexError) as error:
            raise _LineError(number, "is not: camera id, model, width, height, parameters") from error
        if len(params) != MODELS[words[1]][1]:
            raise _LineError(number, f"model {words[1]} has {len(params)} parameters, want {MODELS[words[1]][1]}")
    return cameras


def _text_images(lines: list[tuple[int, str]]) -> dict[int, ColmapImage]:
    # Two lines per image; the second is empty if nothing was observed, so only there empty lines count.
    images = {}
    rest = iter(lines)
    for number, line in rest:
        if not line:
            continue
        words = line.split(maxsplit=9)
        _, seen = next(rest, (0, ""))
        try:
            pose = np.array(words[1:8], np.float64)
            table = np.array(seen.split(), np.float64).reshape(-1, 3)
            key, camera_id, name = _whole(words[0]), _whole(words[8]), words[9]
            point_ids = np.array([_whole(word, -1) % 2**64 for word in seen.split()[2::3]], np.uint64)
        except (ValueError, IndexError, OverflowError) as error:
            text = "is not: image id, quaternion, translation, camera id, name; then x, y, point id in the next line"
            raise _LineError(number, text) from error
        images[key] = ColmapImage(name, camera_id, pose[:4], pose[4:], table[:, :2], point_ids)
    return images


def _text_points(lines: list[tuple[int, str]]) -> ColmapPoints:
    rows, tracks = [], []
    for number, line in lines:
        words = line.split()
        if not words:
            continue
        try:
            rgb = [_whole(word) for word in words[4:7]]
            if max(rgb) > 255:
                raise ValueError
            rows.append((_whole(words[0]), *map(float, words[1:4]), *rgb, float(words[7])))
            pairs = np.array([_whole(word) for word in words[8:]], np.uint32).reshape(-1, 2)
        except (ValueError, IndexError, OverflowError) as error:
            raise _LineError(number, "is not: point id, x, y, z, r, g, b, error, track") from error
        track = np.empty(len(pairs), _TRACK)
        track["image_id"], track["point2d_idx"] = pairs.T
        tracks.append(track)
    return _points(rows, tracks)


def _whole(word: str, least: int = 0) -> int:
    value = int(word)
    if not least <= value < 2**64:
        raise ValueError
    return value


def _to_binary(model: ColmapModel) -> dict[str, bytes]:
    cameras = [struct.pack("<Q", len(model.cameras))]
    for key, camera in model.cameras.items():
        cameras.append(struct.pack("<IiQQ", key, MODELS[camera.model][0], camera.width, camera.height))
        cameras.append(np.asarray(camera.params, "<f8").tobytes())
    images = [struct.pack("<Q", len(model.images))]
    for key, image in model.images.items():
        images.append(struct.pack("<I7dI", key, *image.qvec, *image.tvec, image.camera_id) + image.name.encode() + b"\0")
        seen = np.empty(len(image.xys), _POINT2D)
        seen["xy"], seen["point_id"] = image.xys, image.point_ids
        images.append(struct.pack("<Q", len(seen)) + seen.tobytes())
    points = [struct.pack("<Q", len(model.points))]
    for key, xyz, rgb, error, track in _rows(model):
        points.append(struct.pack("<Q3d3BdQ", key, *xyz, *rgb, error, len(track)) + track.tobytes())
    return {"cameras.bin": b"".join(cameras), "images.bin": b"".join(images), "points3D.bin": b"".join(points)}


def _to_text(model: ColmapModel) -> dict[str, bytes]:
    cameras = ["# camera id, model, width, height, parameters"]
    for key, camera in model.cameras.items():
        cameras.append(f"{key} {camera.model} {camera.width} {camera.height} {_numbers(camera.params)}")
    images = ["# image id, qw, qx, qy, qz, tx, ty, tz, camera id, name", "# x, y, point id of each observation"]
    for key, image in model.images.items():
        images.append(f"{key} {_numbers(image.qvec)} {_numbers(image.tvec)} {image.camera_id} {image.name}")
        ids = image.point_ids.astype(np.int64).tolist()  # no point: -1
        images.append(" ".join(f"{_numbers(xy)} {i}" for xy, i in zip(image.xys, ids)))
    points = ["# point id, x, y, z, r, g, b, error, (image id, observation index) of its track"]
    for key, xyz, rgb, error, track in _rows(model):
        pairs = " ".join(f"{a} {b}" for a, b in track.tolist())
        points.append(f"{key} {_numbers(xyz)} {' '.join(map(str, rgb))} {error!r} {pairs}".rstrip())
    texts = {"cameras.txt": cameras, "images.txt": images, "points3D.txt": points}
    return {name: "\n".join([*lines, ""]).encode() for name, lines in texts.items()}


def _rows(model: ColmapModel):
    points = model.points
    return zip(points.ids.tolist(), points.xyz.tolist(), points.rgb.tolist(), points.errors.tolist(), points.tracks)


def _numbers(values) -> str:
    return " ".join(repr(float(value)) for value in values)


_BINARY = (_from_binary(_binary_cameras), _from_binary(_binary_images), _from_binary(_binary_points))
_TEXT = (_from_text(_text_cameras), _from_text(_text_images), _from_text(_text_points))
