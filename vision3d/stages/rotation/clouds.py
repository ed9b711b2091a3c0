"""Point clouds for training and evaluation, from an .npz or folders of .pts and .xyz files."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io.guards import NUMPY_ERRORS, check_size

WANT = "an .npz with arrays train and test (clouds, points, 3), or a folder with points/ and points_test/ of .pts or .xyz files"
_SUFFIXES = (".pts", ".xyz")
_LARGEST = 1e30  # maximum coordinate
_MAX_BYTES = 64 << 20  # maximum size of a text file


@dataclass(frozen=True)
class Clouds:
    """Training and test clouds; all have the same number of points."""

    train: Float32[Tensor, "n p 3"]
    test: Float32[Tensor, "m p 3"]
    source: str
    """File or folder, and a fingerprint of its contents."""


def read_clouds(path: Path | str, points: int = 0) -> Clouds:
    """Read point clouds.

    Args:
        path: An .npz with float arrays `train` and `test`, or a folder with `points/` and `points_test/`.
        points: Minimum number of points per cloud; 0: no minimum.

    Raises:
        MissingFileError: The file or folder does not exist.
        FileFormatError: Arrays or numbers are invalid.
        InputError: A cloud has too few points, no clouds are given, or a cloud is in both parts.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(path, WANT)
    train, test = _read_folder(path) if path.is_dir() else _read_npz(path)
    for name, clouds in (("train", train), ("test", test)):
        if clouds.shape[1] < max(points, 1):
            raise InputError(f"{path}: clouds of {name} have {clouds.shape[1]} points, fewer than --points {points}")
    digests = [{hashlib.sha256(cloud.tobytes()).digest() for cloud in clouds} for clouds in (train, test)]
    if both := digests[0] & digests[1]:
        raise InputError(f"{path}: {len(both)} of the test clouds are also training clouds")
    digest = hashlib.sha256(train.tobytes() + test.tobytes()).hexdigest()[:12]
    source = f"{path.name}, {len(train)} training and {len(test)} test clouds of {train.shape[1]} points, {digest}"
    return Clouds(torch.from_numpy(train), torch.from_numpy(test), source)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = []
    try:
        if not zipfile.is_zipfile(path):
            raise FileFormatError(path, f"is damaged or not an .npz; want {WANT}")
        with zipfile.ZipFile(path) as archive:
            check_size(path, sum(entry.file_size for entry in archive.infolist()), path.stat().st_size, "its directory")
        with np.load(path, allow_pickle=False) as arrays:
            missing = {"train", "test"} - set(arrays.files)
            if missing:
                there = ", ".join(sorted(arrays.files)[:8]) or "none"
                raise FileFormatError(path, f"has arrays {there}; want train and test (clouds, points, 3)")
            for name in ("train", "test"):
                found.append(_checked(path, name, arrays[name]))
    except FileFormatError:
        raise
    except NUMPY_ERRORS as error:
        text = (str(error) or type(error).__name__).splitlines()[0][:120]
        if "allow_pickle" in text:
            text = "an array holds pickled objects, which could run code; nothing was executed"
        raise FileFormatError(path, f"cannot be read: {text}") from error
    return found[0], found[1]


def _checked(path: Path, name: str, clouds: np.ndarray) -> np.ndarray:
    if clouds.dtype.kind != "f" or clouds.ndim != 3 or clouds.shape[-1] != 3 or not clouds.size:
        raise FileFormatError(path, f"holds {clouds.dtype} {clouds.shape}, want floats (clouds, points, 3)", f"array {name}")
    with np.errstate(over="ignore"):
        clouds = np.ascontiguousarray(clouds, np.float32)
    if not np.isfinite(clouds).all():
        bad = int((~np.isfinite(clouds)).any((1, 2)).argmax())
        raise FileFormatError(path, f"cloud {bad} has numbers that are not finite", f"array {name}")
    return clouds


def _read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for name in ("points", "points_test"):
        files = sorted(p for p in (folder / name).glob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        if not files:
            raise InputError(f"{folder / name}: holds no .pts or .xyz files; want {WANT}")
        parts.append([_read_text(file) for file in files])
    # Files have different numbers of points; the same number is taken from each, in file order.
    least = min(len(cloud) for part in parts for cloud in part)
    return np.stack([cloud[:least] for cloud in parts[0]]), np.stack([cloud[:least] for cloud in parts[1]])


def _read_text(path: Path) -> np.ndarray:
    if path.stat().st_size > _MAX_BYTES:
        raise FileFormatError(path, f"has {path.stat().st_size} bytes, want at most {_MAX_BYTES}")
    lines = path.read_text("utf-8", "replace").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()[:3]]
        except ValueError:
            row = []
        if len(row) != 3 or not all(abs(value) < _LARGEST for value in row):
            raise FileFormatError(path, f"{line.strip()[:40]!r} is not a point, want x y z", f"line {number}")
        rows.append(row)
    if not rows:
        raise FileFormatError(path, "holds no points")
    return np.array(rows, np.float32)
