"""Gaussian scenes as .ksplat (mkkellogg/GaussianSplats3D, SplatBuffer): versions 0.1 and later 0.x are read.

A header of 4096 bytes, a header of 1024 bytes per section, then the sections: sizes of the partially filled buckets, centers
of the buckets, rows. Level 0 has floats; levels 1 and 2 have half floats and positions as 16-bit steps from the center of
a bucket; level 2 has harmonics as bytes. Quaternions are wxyz, scales linear, axes those of the .ply.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision3d.core.errors import FileFormatError
from vision3d.geometry.spherical_harmonics import SH0
from vision3d.io.guards import read_bytes
from vision3d.io.splat_arrays import SplatArrays, any_numbers, logits_of_bytes, logs_of_scales
from vision3d.scene.gaussians import GaussianScene

_HEADER, _SECTION_HEADER = 4096, 1024
_FLOATS = ("<f4", "<f2", "<f2")  # scales and rotations, by level
_POSITIONS = ("<f4", "<u2", "<u2")
_HARMONICS = ("<f4", "<f2", "u1")
_DEFAULT_RANGE = 1.5  # range of harmonics stored as bytes
_STEPS = (1, 32767, 32767)  # half the number of steps of a position in a bucket, by level
_MAX_DEGREE = 3


@dataclass
class _Section:
    """The numbers of a section's header, and its position."""

    count: int
    max_count: int
    capacity: int
    num_buckets: int
    block: float
    bucket_bytes: int
    steps: int
    full: int
    partial: int
    degree: int
    place: int

    @property
    def buckets_bytes(self) -> int:
        return 4 * self.partial + self.bucket_bytes * self.num_buckets


@any_numbers
def read_gaussians(path: Path | str, *, drop_nan: bool = False) -> GaussianScene:
    """Read a .ksplat of level 0, 1 or 2; missing harmonics of sections with a lower degree are zero.

    Args:
        path: The file.
        drop_nan: Drop Gaussians that are not finite or have a rotation of length zero instead of raising an error.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It has another version or level, is truncated, or its counts do not match its length.
    """
    path = Path(path)
    data = read_bytes(path, "a .ksplat file")
    if len(data) < _HEADER:
        raise FileFormatError(path, f"header is truncated: {len(data)} of {_HEADER} bytes", len(data))
    major, minor = data[0], data[1]
    if major != 0 or minor < 1:
        raise FileFormatError(path, f"has version {major}.{minor}; 0.1 and later ones of 0 are read", 0)
    (num_sections,), (count,), (level,) = (struct.unpack_from(k, data, p) for k, p in (("<I", 4), ("<I", 16), ("<H", 20)))
    low, high = struct.unpack_from("<2f", data, 36)
    if level > 2:
        raise FileFormatError(path, f"has compression level {level}; 0, 1 and 2 are read", 20)
    if _HEADER + num_sections * _SECTION_HEADER > len(data):
        raise FileFormatError(path, f"is truncated within the headers of its {num_sections} sections", len(data))
    sections, place = [], _HEADER + num_sections * _SECTION_HEADER
    for index in range(num_sections):
        section = _section(path, data, _HEADER + index * _SECTION_HEADER, place, level)
        place += section.buckets_bytes + section.max_count * _row(level, section.degree).itemsize
        if section.count:
            sections.append(section)
    if sum(section.count for section in sections) != count:
        total = sum(section.count for section in sections)
        raise FileFormatError(path, f"has {count} Gaussians in its header and {total} in its sections", 16)
    if count == 0:
        raise FileFormatError(path, "holds 0 Gaussians, want at least one", 16)
    num_coeffs = (max(section.degree for section in sections) + 1) ** 2
    limits = (low or -_DEFAULT_RANGE, high or _DEFAULT_RANGE)
    parts = [_decoded(path, data, section, level, num_coeffs, limits) for section in sections]
    return SplatArrays.joined(parts).to_scene(path, drop_nan=drop_nan)


def load(path: Path) -> GaussianScene:
    """Codec: read Gaussians."""
    return read_gaussians(path)


def _row(level: int, degree: int) -> np.dtype:
    fields = [("means", _POSITIONS[level], 3), ("scales", _FLOATS[level], 3), ("quats", _FLOATS[level], 4)]
    fields += [("colors", "u1", 4), ("sh", _HARMONICS[level], 3 * ((degree + 1) ** 2 - 1))]
    return np.dtype(fields)


def _section(path: Path, data: bytes, header: int, place: int, level: int) -> _Section:
    count, max_count, capacity, num_buckets = struct.unpack_from("<4I", data, header)
    (block,), (bucket_bytes,), (steps,) = (
        struct.unpack_from(kind, data, header + at) for kind, at in (("<f", 16), ("<H", 20), ("<I", 24))
    )
    full, partial, degree = struct.unpack_from("<2IH", data, header + 32)
    section = _Section(
        count, max_count, capacity, num_buckets, block, bucket_bytes, steps or _STEPS[level], full, partial, degree, place
    )
    if degree > _MAX_DEGREE:
        raise FileFormatError(path, f"has harmonics of degree {degree} in a section, want 0 to {_MAX_DEGREE}", header + 40)
    if count > max_count:
        raise FileFormatError(path, f"has {count} Gaussians in a section with room for {max_count}", header)
    if level and (bucket_bytes < 12 or full + partial > num_buckets):
        text = f"has buckets of {bucket_bytes} bytes, {full} full and {partial} other ones of {num_buckets}"
        raise FileFormatError(path, f"{text}; want 12 bytes or more, and no more than there are", header + 12)
    # Unused capacity of the last section may be cut off.
    end = place + section.buckets_bytes + count * _row(level, degree).itemsize
    if end > len(data):
        raise FileFormatError(path, f"is truncated: a section of {count} Gaussians ends at byte {end}", len(data))
    return section


def _decoded(
    path: Path, data: bytes, section: _Section, level: int, num_coeffs: int, limits: tuple[float, float]
) -> SplatArrays:
    rows = np.frombuffer(data, _row(level, section.degree), section.count, section.place + section.buckets_bytes)
    means = rows["means"].astype(np.float32)
    if level:
        centers = np.frombuffer(data, np.uint8, section.bucket_bytes * section.num_buckets, section.place + 4 * section.partial)
        centers = np.ascontiguousarray(centers.reshape(section.num_buckets, section.bucket_bytes)[:, :12]).view("<f4")
        with np.errstate(over="ignore", invalid="ignore"):
            step = np.float32(section.block / 2 / section.steps)
            means = (means - np.float32(section.steps)) * step + centers[_buckets(path, data, section)]
    sh = np.zeros((section.count, num_coeffs, 3), np.float32)
    sh[:, 0] = (rows["colors"][:, :3].astype(np.float32) / 255 - 0.5) / np.float32(SH0)
    place = 0
    for degree in range(1, section.degree + 1):  # for each degree all of red, then green, then blue
        width = 2 * degree + 1
        band = rows["sh"][:, 3 * place : 3 * (place + width)].astype(np.float32).reshape(-1, 3, width).transpose(0, 2, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            sh[:, 1 + place : 1 + place + width] = band if level < 2 else band * ((limits[1] - limits[0]) / 255) + limits[0]
        place += width
    return SplatArrays(
        means,
        rows["quats"].astype(np.float32),
        logs_of_scales(rows["scales"]),
        logits_of_bytes(rows["colors"][:, 3]),
        sh,
    )


def _buckets(path: Path, data: bytes, section: _Section) -> np.ndarray:
    """The bucket of each row: the full ones first, then the others with their number of rows."""
    index = np.arange(section.count)
    in_full = section.full * section.capacity
    result = index // max(section.capacity, 1)
    if section.count > in_full:
        sizes = np.frombuffer(data, "<u4", section.partial, section.place).astype(np.int64)
        ends = in_full + np.cumsum(sizes)
        if not len(ends) or ends[-1] < section.count:
            rows = int(ends[-1]) if len(ends) else in_full
            raise FileFormatError(path, f"has buckets for {rows} of the {section.count} Gaussians of a section", section.place)
        later = index >= in_full
        result[later] = section.full + np.searchsorted(ends, index[later], "right")
    return result
