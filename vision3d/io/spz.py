"""Gaussian scenes as .spz (nianticlabs/spz, README and load-spz.cc): versions 2, 3 and 4 are read, 2 and 4 written.

Versions 2 and 3 are one gzip stream: a header of 16 bytes, then positions, opacities, colors, scales, rotations and
harmonics, each for all Gaussians. Version 4 has a plain header of 32 bytes, a table of lengths, and one zstd stream for each.
Uncompressed files of version 2 or 3 are read as well.

Axes in the file are right, up, back (RUB); those of a .ply right, down, forward. As in niantic's library the scene is
rotated by 180 degrees about x between the two, including harmonics.
"""

import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError
from vision3d.io.guards import check_size, read_bytes
from vision3d.io.splat_arrays import (
    Gunzip,
    Losses,
    SplatArrays,
    any_numbers,
    arrays_of,
    from_smallest_three,
    largest_first,
    logits_of_bytes,
    opacities_of,
    sh_signs,
    to_bytes,
    unzstd,
    zstd_module,
)
from vision3d.scene.gaussians import GaussianScene

_MAGIC = b"NGSP"
_HEADER = struct.Struct("<4sIIBBBB")  # magic, version, count, degree, fraction bits, flags, streams (0 before version 4)
_ANTIALIASED, _EXTENDED = 1, 2
_AXES = (1, -1, -1)
_COLOR_SCALE = 0.15
_FRACTION_BITS = 12
_SH_STEPS = (8, 16)  # of 256 levels: degree 1, degrees above
_STREAMS = ("positions", "alphas", "colors", "scales", "rotations", "sh")
_MAX_DEGREE = 4


@any_numbers
def read_gaussians(path: Path | str, *, drop_nan: bool = False) -> GaussianScene:
    """Read an .spz of version 2, 3 or 4.

    Args:
        path: The file.
        drop_nan: Drop Gaussians whose values are not finite (intact files have none).

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not an .spz, has another version, is damaged or truncated, or its lengths are inconsistent.
        MissingDependencyError: Version 4 without the package zstandard.
    """
    path = Path(path)
    return from_bytes(path, read_bytes(path, "an .spz file"), drop_nan=drop_nan)


def from_bytes(path: Path, data: bytes, *, drop_nan: bool = False) -> GaussianScene:
    """The scene of the bytes of an .spz; `path` is for messages.

    Raises:
        FileFormatError, MissingDependencyError: As for `read_gaussians`.
    """
    if data[:2] == b"\x1f\x8b":
        stream = Gunzip(path, data)
        head, place = stream.take(_HEADER.size), "byte 0 of the unpacked stream"
    elif data[:4] == _MAGIC:
        stream, head, place = None, data[: _HEADER.size], 0
        if len(head) < _HEADER.size:
            raise FileFormatError(path, "header is truncated", len(head))
    else:
        raise FileFormatError(path, f"is not an .spz file (begins with {data[:4]!r}, want gzip or {_MAGIC!r})", 0)
    magic, version, count, degree, fraction_bits, flags, _ = _HEADER.unpack(head)
    if magic != _MAGIC:
        raise FileFormatError(path, f"is not an .spz file (it holds {magic!r}, want {_MAGIC!r})", place)
    if version not in (2, 3, 4):
        raise FileFormatError(path, f"has version {version}; 2, 3 and 4 are read", place)
    if version == 4 and stream is not None:
        raise FileFormatError(path, f"has version {version} inside a gzip stream, want 2 or 3", place)
    if degree > _MAX_DEGREE or fraction_bits > 23 or count == 0:
        text = f"has {count} Gaussians, harmonics of degree {degree} and {fraction_bits} fraction bits"
        raise FileFormatError(path, f"{text}; want 1 or more, 0 to {_MAX_DEGREE}, 0 to 23", place)
    sizes = _sizes(version, count, degree)
    if version == 4:
        parts = _zstd_parts(path, data, sizes)
    else:
        parts = _plain_parts(path, data, stream, sizes, has_more=bool(flags & _EXTENDED))
    arrays = _decoded(parts, version, count, degree, fraction_bits)
    arrays.antialiased = bool(flags & _ANTIALIASED)
    return arrays.to_scene(path, drop_nan=drop_nan)


def write_gaussians(path: Path | str, scene: GaussianScene, *, version: Literal[2, 4] = 4) -> None:
    """Write an .spz; what it cannot store (labels, modes other than 3dgs, out-of-range values) is logged as one warning.

    Steps: positions 2^-12 m (coarser if they exceed 2048 m), log scales 1/16, opacities 1/255, colors
    1/38.25 of a coefficient, harmonics 1/16 (degree 1) and 1/8, rotations 1/127.5 (version 2) or 1/722 (version 4).

    Args:
        path: The file.
        scene: The Gaussians.
        version: 4, which needs the package zstandard, or 2.

    Raises:
        InputError: The scene is empty or has values that are not finite.
        MissingDependencyError: Version 4 without the package zstandard.
    """
    content = to_bytes_of(path, scene, version=version)
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(content)


def to_bytes_of(path: Path | str, scene: GaussianScene, *, version: Literal[2, 4]) -> bytes:
    """The bytes that `write_gaussians` writes; what they cannot store is logged for `path`.

    Raises:
        InputError, MissingDependencyError: As for `write_gaussians`.
    """
    path = Path(path)
    if version not in (2, 4):
        raise InputError(f"version: got {version}, want 2 or 4")
    zstandard = zstd_module("writing .spz of version 4 (version 2 does without)") if version == 4 else None
    max_degree = 4 if version == 4 else 3  # readers of version 2 support no more
    losses = Losses(path, scene, max_degree=max_degree, antialiased=True)
    arrays = arrays_of(scene, max_degree).turned(_AXES)
    degree = round(arrays.sh.shape[1] ** 0.5) - 1
    fraction_bits = _fraction_bits(arrays.means)
    if fraction_bits < _FRACTION_BITS:
        losses.texts.append(f"positions finer than {2.0**-fraction_bits:g} m (they reach {np.abs(arrays.means).max():.6g} m)")
    parts = _encoded(arrays, version, fraction_bits, losses)
    header = [_MAGIC, version, len(arrays), degree, fraction_bits, _ANTIALIASED * scene.antialiased]
    if zstandard is None:
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        pieces = [_HEADER.pack(*header, 0), *(part.tobytes() for part in parts)]
        content = b"".join([*map(packer.compress, pieces), packer.flush()])
    else:
        parts = [part for part in parts if part.size]
        packed = [zstandard.ZstdCompressor(level=9).compress(part.tobytes()) for part in parts]
        table = [struct.pack("<QQ", len(after), before.nbytes) for after, before in zip(packed, parts)]
        content = b"".join([_HEADER.pack(*header, len(parts)), struct.pack("<I12x", 32), *table, *packed])
    losses.log()
    return content


def load(path: Path) -> GaussianScene:
    """Codec: read Gaussians."""
    return read_gaussians(path)


def save(path: Path, value: GaussianScene) -> None:
    """Codec: write Gaussians as version 4."""
    write_gaussians(path, value)


def _sizes(version: int, count: int, degree: int) -> list[int]:
    """Bytes of each part, in the order of the file."""
    return [count * size for size in (9, 1, 3, 3, 3 if version == 2 else 4, 3 * ((degree + 1) ** 2 - 1))]


def _plain_parts(path: Path, data: bytes, stream: Gunzip | None, sizes: list[int], *, has_more: bool) -> list[np.ndarray]:
    total = sum(sizes)
    if stream is None:
        if len(data) != _HEADER.size + total and not (has_more and len(data) > _HEADER.size + total):
            raise FileFormatError(path, f"has {len(data)} bytes, want {_HEADER.size + total} for its header", len(data))
        body, start = data, _HEADER.size
    else:
        check_size(path, total, len(data), "byte 8 of the unpacked stream")
        body, start = stream.take(total), 0
        if not has_more and stream.has_more():
            raise FileFormatError(path, f"holds more than the {total} bytes of its header's counts", "end of the stream")
    ends = start + np.cumsum(sizes)
    return [np.frombuffer(body, np.uint8, size, end - size) for size, end in zip(sizes, ends.tolist())]


def _zstd_parts(path: Path, data: bytes, sizes: list[int]) -> list[np.ndarray]:
    wanted = [(name, size) for name, size in zip(_STREAMS, sizes) if size]
    if len(data) < 32:
        raise FileFormatError(path, "header is truncated", len(data))
    num_streams, table = data[15], struct.unpack_from("<I", data, 16)[0]
    if num_streams != len(wanted):
        raise FileFormatError(path, f"has {num_streams} streams, want {len(wanted)} for its degree", 15)
    place = table + 16 * num_streams
    if not 32 <= table <= len(data) - 16 * num_streams:
        raise FileFormatError(path, f"table of streams at byte {table} is outside of the file of {len(data)} bytes", 16)
    check_size(path, sum(sizes), len(data), 8)
    parts = []
    for index, (name, size) in enumerate(wanted):
        entry = table + 16 * index
        packed, unpacked = struct.unpack_from("<QQ", data, entry)
        if unpacked != size:
            raise FileFormatError(path, f"stream {name} has {unpacked} bytes, want {size} for the count of the header", entry)
        if packed > len(data) - place:
            raise FileFormatError(path, f"is truncated: stream {name} of {packed} bytes begins at byte {place}", len(data))
        parts.append(unzstd(path, memoryview(data)[place : place + packed], size, place))
        place += packed
    if place != len(data):
        raise FileFormatError(path, f"{len(data) - place} bytes follow the last stream", place)
    return parts + [np.empty(0, np.uint8)] * (len(sizes) - len(parts))


def _decoded(parts: list[np.ndarray], version: int, count: int, degree: int, fraction_bits: int) -> SplatArrays:
    positions, alphas, colors, scales, rotations, rest = parts
    fixed = np.zeros((count, 3, 4), np.uint8)
    fixed[..., 1:] = positions.reshape(count, 3, 3)  # times 256, with its sign in the highest byte
    means = fixed.view("<i4")[..., 0].astype(np.float32) * np.float32(2.0 ** (-8 - fraction_bits))
    if version == 2:
        vectors = rotations.reshape(count, 3).astype(np.float32) / np.float32(127.5) - 1
        w = np.sqrt(np.maximum(0, 1 - np.einsum("ij,ij->i", vectors, vectors)))
        quats = np.concatenate([w[:, None], vectors], 1)
    else:
        words = rotations.view("<u4")
        tens = np.stack([words >> np.uint32(shift) for shift in (20, 10, 0)], 1)
        values = (tens & np.uint32(511)).astype(np.float32) * np.float32(0.5**0.5 / 511)
        values[(tens & np.uint32(512)) != 0] *= -1
        quats = from_smallest_three(words >> np.uint32(30), values)[:, [3, 0, 1, 2]]  # theirs are xyzw
    num_coeffs = (degree + 1) ** 2
    sh = np.empty((count, num_coeffs, 3), np.float32)
    sh[:, 0] = (colors.reshape(count, 3).astype(np.float32) / 255 - 0.5) / np.float32(_COLOR_SCALE)
    x, y, z = _AXES
    if degree:
        factors = (sh_signs(_AXES, degree)[1:] / 128)[:, None].astype(np.float32)
        for start in range(0, count, 1 << 14):  # sized to fit the cache
            block = rest.reshape(count, -1, 3)[start : start + (1 << 14)].astype(np.float32)
            block -= 128
            np.multiply(block, factors, out=sh[start : start + (1 << 14), 1:])
    return SplatArrays(
        means * np.array(_AXES, np.float32),
        quats * np.array([1, y * z, x * z, x * y], np.float32),
        scales.reshape(count, 3).astype(np.float32) / 16 - 10,
        logits_of_bytes(alphas),
        sh,
    )


def _encoded(arrays: SplatArrays, version: int, fraction_bits: int, losses: Losses) -> list[np.ndarray]:
    scale = 2.0**fraction_bits
    fixed = np.clip(np.rint(arrays.means.astype(np.float64) * scale), -(2**23), 2**23 - 1).astype("<i4")
    losses.clipped("position", arrays.means, -(2**23) / scale, (2**23 - 1) / scale, " m")
    losses.clipped("log scale", arrays.log_scales, -10, 255 / 16 - 10, " log m")
    limit = 0.5 / _COLOR_SCALE
    losses.clipped("color coefficient", arrays.sh[:, 0], -limit, limit)
    parts = [
        np.ascontiguousarray(fixed[..., None].view(np.uint8)[..., :3]),
        to_bytes(opacities_of(arrays.opacity_logits) * 255),
        to_bytes(arrays.sh[:, 0] * (_COLOR_SCALE * 255) + 127.5),
        to_bytes((arrays.log_scales + 10) * 16),
    ]
    if version == 2:
        vectors = arrays.quats[:, 1:] * np.where(arrays.quats[:, :1] < 0, -1, 1)
        parts.append(to_bytes(vectors * 127.5 + 127.5))
    else:
        largest, others = largest_first(arrays.quats[:, [1, 2, 3, 0]])
        sizes = np.rint(np.abs(others) * (511 * 2**0.5)).clip(0, 511).astype(np.uint32)
        tens = sizes | (np.uint32(512) * (others < 0)).astype(np.uint32)
        words = largest.astype(np.uint32) << np.uint32(30)
        for column, shift in enumerate((20, 10, 0)):
            words |= tens[:, column] << np.uint32(shift)
        parts.append(words.astype("<u4").view(np.uint8))
    rest = arrays.sh[:, 1:]
    losses.clipped("harmonics", rest, -1, 127 / 128)
    steps = np.array([_SH_STEPS[k >= 3] for k in range(rest.shape[1])], np.float32)[:, None]
    levels = np.rint(rest * (128 / steps)) * steps + 128  # 0 is a level
    parts.append(np.clip(levels, 0, 255).astype(np.uint8))
    return parts


def _fraction_bits(means: np.ndarray) -> int:
    """12, or as many as the farthest position permits in 24 bits."""
    farthest = float(np.abs(means).max())
    bits = _FRACTION_BITS
    while bits > 0 and farthest * 2**bits > 2**23 - 1:
        bits -= 1
    return bits
