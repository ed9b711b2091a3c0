"""The files of a SOG: meta.json and lossless WebP images, in a zip or in a folder. Everything is checked here before it is
unpacked."""

import abc
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError
from vision3d.core.inside import inside
from vision3d.core.plain import from_json
from vision3d.io.guards import check_pixels, check_size, read_bytes

MAX_SIDE = 16383
"""Maximum side length of a WebP image [px]."""
MAX_PALETTE = 1 << 16
"""Maximum number of rows of a palette of harmonics."""
MAX_META = 1 << 22
"""Maximum bytes of meta.json."""
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _Files(abc.ABC):
    """Shared by archives and folders: images by name, whose sizes are known before they are unpacked."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        self.path, self.num_bytes = path, num_bytes
        self.images: dict[str, tuple[bytes, tuple[int, int]]] = {}

    @abc.abstractmethod
    def bytes_of(self, name: str, largest: int) -> bytes:
        """The bytes of a file, at most `largest`."""

    def where(self, name: str) -> str:
        """Name of a file in messages."""
        return f"member {name!r}"

    def meta(self) -> bytes:
        """The bytes of meta.json."""
        return self.bytes_of("meta.json", MAX_META)

    def check(self, names: list[str], wanted: list[int]) -> None:
        """Check image sizes: `wanted` pixels and at most a row or 4 times as many, or -1 for a palette."""
        total = 0
        for name, count in zip(names, wanted):
            content = self.bytes_of(name, 20 * self.num_bytes)
            width, height = _webp_size(self.path, name, content)
            largest = 4 * count + MAX_SIDE if count >= 0 else 15 * 2 * MAX_PALETTE
            if not max(count, 1) <= width * height <= largest:
                text = f"is an image of {width}x{height}, want {max(count, 1)} to {largest} pixels"
                raise FileFormatError(self.path, text, self.where(name))
            check_pixels(self.path, width, height, None, self.where(name))
            total += 4 * width * height
            self.images[name] = content, (width, height)
        check_size(self.path, total, self.num_bytes, "meta.json: count", "has images of")

    def size(self, name: str) -> tuple[int, int]:
        """Width and height of a checked image."""
        return self.images[name][1]

    def pixels(self, name: str) -> np.ndarray:
        """The pixels (N, 4) of a checked image."""
        from PIL import Image

        content, size = self.images[name]
        try:
            with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
                if image.size != size:
                    raise FileFormatError(self.path, f"has {image.size} pixels inside and {size} outside", self.where(name))
                return np.asarray(image.convert("RGBA")).reshape(-1, 4)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(self.path, f"is a damaged image ({str(error)[:80]})", self.where(name)) from error


class Archive(_Files):
    """The members of a zip; sizes are checked before unpacking, and nothing is written to disk."""

    def __init__(self, path: Path) -> None:
        data = read_bytes(path, "a .sog file")
        super().__init__(path, len(data))
        try:
            self.archive = zipfile.ZipFile(io.BytesIO(data))
            self.members = {info.filename: info for info in self.archive.infolist()}
        except _ZIP_ERRORS as error:
            raise FileFormatError(path, f"is damaged or not a zip file ({str(error)[:80]!a})", 0) from error
        for name in self.members:
            if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
                raise FileFormatError(path, "has a name outside the archive", f"member {name!r}")

    def bytes_of(self, name: str, largest: int) -> bytes:
        """The bytes of a member, at most `largest`."""
        info = self.members.get(name)
        if info is None:
            raise FileFormatError(
                self.path, f"lacks {name[:80]}; it has {', '.join(list(self.members)[:10]) or 'nothing'}", "meta.json"
            )
        where = self.where(name)
        if info.compress_type not in _METHODS:
            raise FileFormatError(self.path, f"is compressed by method {info.compress_type}, want stored or deflated", where)
        if info.file_size > largest:
            raise FileFormatError(self.path, f"has {info.file_size} bytes, want at most {largest}", where)
        try:
            return self.archive.read(info)
        except _ZIP_ERRORS as error:
            raise FileFormatError(self.path, f"is damaged ({str(error)[:80]!a})", where) from error


class Folder(_Files):
    """A meta.json and the images next to it, as splat-transform writes them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, len(read_bytes(path, "a meta.json of SOG")))

    def bytes_of(self, name: str, largest: int) -> bytes:
        """The bytes of a file of the folder; a small file cannot unpack to more than `check` allows."""
        if name == "meta.json":
            if self.num_bytes > largest:
                raise FileFormatError(self.path, f"has {self.num_bytes} bytes, want at most {largest}")
            return self.path.read_bytes()
        content = read_bytes(inside(self.path, name), f"an image that {self.path.name} refers to")
        self.num_bytes += len(content)
        return content

    def where(self, name: str) -> str:
        """Name of a file in messages."""
        return f"file {name!r}"


def write_archive(path: Path, meta: dict[str, Any], images: dict[str, bytes]) -> None:
    """Write a .sog atomically; the same content gives the same bytes."""
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {"meta.json": json.dumps(meta).encode(), **images}.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # with a fixed date


def write_folder(path: Path, meta: dict[str, Any], images: dict[str, bytes]) -> None:
    """Write images and then the meta.json `path`. An existing one is removed first, so that it never refers to new images."""
    path.unlink(missing_ok=True)
    for name, content in images.items():
        with atomic_write(path.with_name(name)) as temporary:
            temporary.write_bytes(content)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(meta), encoding="utf-8")


class Meta:
    """Contents of meta.json, validated on access by dotted keys."""

    def __init__(self, path: Path, text: bytes) -> None:
        self.path = path
        try:
            self.content = from_json(text)
        except (ValueError, RecursionError) as error:
            raise FileFormatError(path, f"is not JSON ({error})", "meta.json") from error
        if not isinstance(self.content, dict):
            raise FileFormatError(path, "is not an object", "meta.json")

    def value(self, key: str) -> Any:
        """The value, or None."""
        value: Any = self.content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """An integer in a range."""
        value = self.value(key)
        if type(value) is not int or not low <= value <= high:
            raise self._error(key, f"a whole number from {low} to {high}")
        return value

    def numbers(self, key: str, count: int) -> np.ndarray:
        """A list of numbers; non-finite ones are detected where they are used."""
        value = self.value(key)
        if not isinstance(value, list) or len(value) != count or not all(type(v) in (int, float) for v in value):
            raise self._error(key, f"a list of {count} numbers")
        try:
            with np.errstate(over="ignore"):
                return np.array([float(v) for v in value]).astype(np.float32)
        except OverflowError:
            raise self._error(key, f"a list of {count} numbers") from None

    def number(self, key: str) -> float:
        """One number."""
        value = self.value(key)
        if type(value) not in (int, float):
            raise self._error(key, "a number")
        return float(value)

    def shape(self, key: str, most: int) -> list[int]:
        """A list of integers, the first at most `most`."""
        value = self.value(key)
        if not isinstance(value, list) or not value or not all(type(v) is int for v in value) or not 1 <= value[0] <= most:
            raise self._error(key, f"a list of whole numbers, the first from 1 to {most}")
        return value

    def codebook(self, key: str) -> np.ndarray:
        """A codebook of 256 numbers. Some writers put null first: like other readers, extrapolate the codebook to it."""
        table = self.value(f"{key}.codebook")
        if (
            isinstance(table, list)
            and len(table) == 256
            and table[0] is None
            and {type(table[1]), type(table[255])} <= {int, float}
        ):
            table[0] = table[1] + (table[1] - table[255]) / 255
        return self.numbers(f"{key}.codebook", 256)

    def files(self, key: str, count: int) -> list[str]:
        """Names of members."""
        value = self.value(f"{key}.files")
        if not isinstance(value, list) or len(value) != count or not all(isinstance(v, str) for v in value):
            raise self._error(f"{key}.files", f"a list of {count} names")
        return value

    def _error(self, key: str, want: str) -> FileFormatError:
        text = json.dumps(self.value(key))[:60]
        return FileFormatError(self.path, f"got {text}, want {want}", f"meta.json: {key}")


def webp_bytes(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, 4) of bytes as a lossless WebP."""
    from PIL import Image

    buffer = io.BytesIO()
    # exact: keep colors under alpha 0.
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, exact=True, quality=50, method=2)
    return buffer.getvalue()


def _webp_size(path: Path, name: str, data: bytes) -> tuple[int, int]:
    """Width and height of a lossless WebP from its header."""
    where = f"member {name!r}"
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise FileFormatError(path, "is not a WebP image", where)
    kind, place = data[12:16], 20
    if kind == b"VP8X":
        canvas = tuple(1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        place = data.find(b"VP8L", 30) + 8
        if place < 8 or place + 5 > len(data) or data[20] & 2:
            raise FileFormatError(path, "is not a still, lossless WebP image", where)
    elif kind != b"VP8L":
        raise FileFormatError(path, f"is a WebP image of kind {kind!r}, want a lossless one", where)
    bits = int.from_bytes(data[place + 1 : place + 5], "little")
    size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8X" and canvas != size:
        raise FileFormatError(path, f"is a WebP image of {size} on a canvas of {canvas}", where)
    return size
