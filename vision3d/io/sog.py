"""Gaussian scenes as SOG version 2 (.sog, playcanvas/splat-transform): a zip of meta.json and lossless WebP pictures.

A pixel of each picture is a Gaussian. Positions are 16-bit steps of sign(x) ln(1 + |x|) between bounds, in a picture of low
and one of high bytes; rotations the three smaller components of wxyz as bytes with 252 + index of the largest in alpha;
log scales and colour coefficients indices into tables of 256 values, opacity the alpha of the colours. Harmonics are rows
of a palette of at most 65536, whose values are indices into a table. Axes are those of the .ply.
"""

import io
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.atomic import atomic_write
from vision3d.errors import FileFormatError
from vision3d.io.guards import check_size, read_bytes
from vision3d.io.palette import codebook_of, nearest_entries, palette_of
from vision3d.io.splat_arrays import (
    Losses,
    SplatArrays,
    any_numbers,
    arrays_of,
    check_scene,
    from_smallest_three,
    largest_first,
    logits_of_bytes,
    morton_order,
    opacities_of,
    to_bytes,
)
from vision3d.scene.gaussians import GaussianScene, SplatMode

_MODELS: dict[str, tuple[SplatMode, bool]] = {
    "default": ("3dgs", False),
    "antialiased": ("3dgs", True),
    "2dgs": ("2dgs", False),
}
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_META = 1 << 22  # bytes
_MAX_SIDE = 16383  # px, of WebP
_MAX_PALETTE = 1 << 16
_PALETTE_WIDTH = 64  # rows of the palette in a row of pixels


@any_numbers
def read_gaussians(path: Path | str, *, drop_nan: bool = False) -> GaussianScene:
    """Read a .sog of version 2.

    Args:
        path: The file.
        drop_nan: Leave out Gaussians that are not finite, instead of refusing the file.

    Raises:
        MissingFileError: There is no such file.
        FileFormatError: It is no zip or is damaged, has another version, lacks a picture, or has one of another size.
    """
    path = Path(path)
    data = read_bytes(path, "a .sog file")
    archive = _Archive(path, data)
    meta = _Meta(path, archive.meta())
    count = meta.integer("count", 1, _MAX_SIDE**2)
    version = meta.content.get("version")
    if version != 2:
        raise FileFormatError(path, f"has SOG version {version!r}; 2 is read", "meta.json: version")
    names = [*meta.files("means", 2), *meta.files("quats", 1), *meta.files("scales", 1), *meta.files("sh0", 1)]
    degree = 0
    if meta.content.get("shN") is not None:
        degree, num_rows = meta.integer("shN.bands", 1, 3), meta.integer("shN.count", 1, _MAX_PALETTE)
        names += meta.files("shN", 2)
    wanted = [count] * 5 + ([-1, count] if degree else [])
    archive.check(names, wanted)
    low, high, quats, scales, colors = (archive.pixels(name)[:count] for name in names[:5])
    steps = low[:, :3].astype(np.float32) + high[:, :3].astype(np.float32) * 256
    mins, maxs = meta.numbers("means.mins", 3), meta.numbers("means.maxs", 3)
    with np.errstate(over="ignore", invalid="ignore"):
        logs = mins + (maxs - mins) * (steps / np.float32(65535))
        means = np.copysign(np.expm1(np.abs(logs)), logs)
    is_untagged = quats[:, 3] < 252
    others = (quats[:, :3].astype(np.float32) / 255 * 2 - 1) * np.float32(0.5**0.5)
    rotations = from_smallest_three(np.maximum(quats[:, 3], 252) - 252, others)
    rotations[is_untagged] = (1, 0, 0, 0)
    sh = np.empty((count, (degree + 1) ** 2, 3), np.float32)
    sh[:, 0] = meta.numbers("sh0.codebook", 256)[colors[:, :3]]
    if degree:
        table = archive.pixels(names[5])[:, :3]
        coeffs = (degree + 1) ** 2 - 1
        palette = meta.numbers("shN.codebook", 256)[table]
        width = archive.size(names[5])[0]
        if width != _PALETTE_WIDTH * coeffs or len(palette) < num_rows * coeffs:
            text = f"palette {names[5]} is {width} px wide with {len(palette)} pixels"
            raise FileFormatError(path, f"{text}; want {_PALETTE_WIDTH * coeffs} px, and {num_rows * coeffs} pixels")
        labels = archive.pixels(names[6])[:count, :2].astype(np.int64)
        labels = labels[:, 0] + 256 * labels[:, 1]
        if labels.max() >= num_rows:
            raise FileFormatError(path, f"palette has {num_rows} rows, and row {labels.max()} is used", names[6])
        sh[:, 1:] = palette.reshape(-1, coeffs, 3)[labels]
    log_scales = meta.numbers("scales.codebook", 256)[scales[:, :3]]
    mode, antialiased = _MODELS.get(str(meta.content.get("model", "default")), ("3dgs", False))
    arrays = SplatArrays(means, rotations, log_scales, logits_of_bytes(colors[:, 3]), sh, mode, antialiased)
    return arrays.to_scene(path, drop_nan=drop_nan)


def write_gaussians(path: Path | str, scene: GaussianScene) -> None:
    """Write a .sog; what it does not hold (labels, mode flat, degree 4, a palette that is too small) is logged in one line.

    Raises:
        InputError: The scene is empty or has values that are not finite.
    """
    path = Path(path)
    model = {value: name for name, value in _MODELS.items()}.get((scene.mode, scene.antialiased))
    losses = Losses(path, scene, max_degree=3, modes=model is not None, antialiased=model is not None)
    arrays = arrays_of(scene, 3)
    order = morton_order(arrays.means)
    width = 4 * math.ceil(math.sqrt(len(order)) / 4)
    height = math.ceil(len(order) / width)
    files: dict[str, bytes] = {}

    def picture(name: str, columns: list[np.ndarray], size: tuple[int, int] = (width, height)) -> list[str]:
        pixels = np.zeros((size[0] * size[1], 4), np.uint8)
        pixels[:, 3] = 255
        for channel, values in enumerate(columns):
            pixels[: len(values), channel] = values
        files[name] = _webp(pixels.reshape(size[1], size[0], 4))
        return [name]

    means = arrays.means[order].astype(np.float64)
    logs = np.copysign(np.log1p(np.abs(means)), means)
    mins, maxs = logs.min(0), logs.max(0)
    steps = np.rint((logs - mins) / np.where(maxs > mins, maxs - mins, 1) * 65535).astype(np.uint16)
    meta: dict[str, Any] = {"version": 2, "asset": {"generator": "vision3d"}, "count": len(order)}
    if model not in (None, "default"):
        meta["model"] = model
    parts = [list(part.T) for part in (steps & 255, steps >> 8)]
    meta["means"] = {
        "mins": mins.tolist(),
        "maxs": maxs.tolist(),
        "files": picture("means_l.webp", parts[0]) + picture("means_u.webp", parts[1]),
    }
    scales = codebook_of(arrays.log_scales)
    indices = nearest_entries(scales, arrays.log_scales[order])
    meta["scales"] = {"codebook": scales.tolist(), "files": picture("scales.webp", list(indices.T))}
    largest, others = largest_first(arrays.quats[order])
    levels = to_bytes((others * math.sqrt(2) * 0.5 + 0.5) * 255)
    meta["quats"] = {"files": picture("quats.webp", [*levels.T, (largest + 252).astype(np.uint8)])}
    colors = codebook_of(arrays.sh[:, 0])
    indices = nearest_entries(colors, arrays.sh[order, 0])
    alphas = to_bytes(opacities_of(arrays.opacity_logits[order]) * 255)
    meta["sh0"] = {"codebook": colors.tolist(), "files": picture("sh0.webp", [*indices.T, alphas])}
    coeffs = arrays.sh.shape[1] - 1
    if coeffs:
        palette, labels = palette_of(arrays.sh[order, 1:].reshape(len(order), -1), _MAX_PALETTE)
        if len(palette) < len(order):
            losses.texts.append(f"each one's harmonics (a palette of {len(palette)} stands for {len(order)})")
        table = codebook_of(palette)
        pixels = nearest_entries(table, palette).reshape(-1, 3)
        size = (_PALETTE_WIDTH * coeffs, math.ceil(len(palette) / _PALETTE_WIDTH))
        names = picture("shN_centroids.webp", list(pixels.T), size)
        names += picture("shN_labels.webp", [labels & 255, labels >> 8, np.zeros(len(labels), np.uint8)])
        bands = math.isqrt(coeffs + 1) - 1
        meta["shN"] = {"count": len(palette), "bands": bands, "codebook": table.tolist(), "files": names}
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {"meta.json": json.dumps(meta).encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of a fixed date: the same scene gives the same bytes
    losses.log()


def load(path: Path) -> GaussianScene:
    """Codec: the Gaussians of a file."""
    return read_gaussians(path)


def save(path: Path, value: object) -> None:
    """Codec: write Gaussians."""
    write_gaussians(path, check_scene(path, value))


class _Archive:
    """The members of a zip; nothing is unpacked before its size has been checked, and nothing is written anywhere."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.num_bytes = path, len(data)
        self.pictures: dict[str, tuple[bytes, tuple[int, int]]] = {}
        try:
            self.archive = zipfile.ZipFile(io.BytesIO(data))
            self.members = {info.filename: info for info in self.archive.infolist()}
        except _ZIP_ERRORS as error:
            raise FileFormatError(path, f"is no zip file, or a damaged one ({error})", 0) from error
        for name in self.members:
            if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
                raise FileFormatError(path, "has a name that leads out of the archive", f"member {name!r}")

    def meta(self) -> bytes:
        """The bytes of meta.json."""
        return self._bytes("meta.json", _MAX_META)

    def check(self, names: list[str], wanted: list[int]) -> None:
        """Check the pictures' sizes: `wanted` pixels and at most a row or 4 times as many, or -1 for a palette's."""
        total = 0
        for name, count in zip(names, wanted):
            content = self._bytes(name, 20 * self.num_bytes)
            width, height = _webp_size(self.path, name, content)
            largest = 4 * count + _MAX_SIDE if count >= 0 else 15 * 2 * _MAX_PALETTE
            if not max(count, 1) <= width * height <= largest:
                text = f"is a picture of {width}x{height}, want {max(count, 1)} to {largest} pixels"
                raise FileFormatError(self.path, text, f"member {name!r}")
            total += 4 * width * height
            self.pictures[name] = content, (width, height)
        check_size(self.path, total, self.num_bytes, "meta.json: count", "has pictures of")

    def size(self, name: str) -> tuple[int, int]:
        """Width and height of a picture that was checked."""
        return self.pictures[name][1]

    def pixels(self, name: str) -> np.ndarray:
        """The pixels (N, 4) of a picture that was checked."""
        from PIL import Image

        content, size = self.pictures[name]
        try:
            with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
                if image.size != size:
                    raise FileFormatError(self.path, f"has {image.size} pixels inside and {size} outside", f"member {name!r}")
                return np.asarray(image.convert("RGBA")).reshape(-1, 4)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(self.path, f"is a damaged picture ({error})", f"member {name!r}") from error

    def _bytes(self, name: str, largest: int) -> bytes:
        info = self.members.get(name)
        if info is None:
            raise FileFormatError(self.path, f"lacks {name}; it has {', '.join(list(self.members)[:10]) or 'nothing'}")
        where = f"member {name!r}"
        if info.compress_type not in _METHODS:
            raise FileFormatError(self.path, f"is packed by method {info.compress_type}, want stored or deflated", where)
        if info.file_size > largest:
            raise FileFormatError(self.path, f"has {info.file_size} bytes, want at most {largest}", where)
        try:
            return self.archive.read(info)
        except _ZIP_ERRORS as error:
            raise FileFormatError(self.path, f"is damaged ({error})", where) from error


class _Meta:
    """What meta.json says, checked where it is asked for by dotted keys."""

    def __init__(self, path: Path, text: bytes) -> None:
        self.path = path
        try:
            self.content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileFormatError(path, f"is no JSON ({error})", "meta.json") from error
        if not isinstance(self.content, dict):
            raise FileFormatError(path, "holds no object", "meta.json")

    def value(self, key: str) -> Any:
        """Whatever stands there, or None."""
        value: Any = self.content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number in a range."""
        value = self.value(key)
        if type(value) is not int or not low <= value <= high:
            raise self._error(key, f"a whole number from {low} to {high}")
        return value

    def numbers(self, key: str, count: int) -> np.ndarray:
        """A list of numbers; those that are not finite are found where they are used."""
        value = self.value(key)
        if not isinstance(value, list) or len(value) != count or not all(type(v) in (int, float) for v in value):
            raise self._error(key, f"a list of {count} numbers")
        try:
            with np.errstate(over="ignore"):
                return np.array([float(v) for v in value]).astype(np.float32)
        except OverflowError:
            raise self._error(key, f"a list of {count} numbers") from None

    def files(self, key: str, count: int) -> list[str]:
        """Names of members."""
        value = self.value(f"{key}.files")
        if not isinstance(value, list) or len(value) != count or not all(isinstance(v, str) for v in value):
            raise self._error(f"{key}.files", f"a list of {count} names")
        return value

    def _error(self, key: str, want: str) -> FileFormatError:
        text = json.dumps(self.value(key))[:60]
        return FileFormatError(self.path, f"got {text}, want {want}", f"meta.json: {key}")


def _webp(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    # exact: colours under alpha 0 count here.
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, exact=True, quality=50, method=2)
    return buffer.getvalue()


def _webp_size(path: Path, name: str, data: bytes) -> tuple[int, int]:
    """Width and height of a lossless WebP by its header alone."""
    where = f"member {name!r}"
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise FileFormatError(path, "is no WebP picture", where)
    kind, place = data[12:16], 20
    if kind == b"VP8X":
        canvas = tuple(1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        place = data.find(b"VP8L", 30) + 8
        if place < 8 or place + 5 > len(data) or data[20] & 2:
            raise FileFormatError(path, "is no still, lossless WebP picture", where)
    elif kind != b"VP8L":
        raise FileFormatError(path, f"is a WebP picture of kind {kind!r}, want a lossless one", where)
    bits = int.from_bytes(data[place + 1 : place + 5], "little")
    size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8X" and canvas != size:
        raise FileFormatError(path, f"is a WebP picture of {size} on a canvas of {canvas}", where)
    return size
