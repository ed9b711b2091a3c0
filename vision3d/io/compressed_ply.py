"""Gaussian scenes as SuperSplat's compressed .ply (layout: playcanvas/splat-transform, decompress-ply.ts): 16 bytes per
Gaussian, and one byte per harmonic coefficient up to degree 3.

Rows are grouped in chunks of 256 neighbors along a Z curve. Element `chunk` has the bounds of each, `vertex` four 32-bit
words per Gaussian: position (11, 10, 11 bits between the bounds), rotation (index of the largest component of wxyz in 2 bits,
the three others in 10 bits each), log scale (11, 10, 11), color and opacity (8 each). Element `sh` has f_rest_*, channel-major,
as
bytes of (value / 8 + 0.5) 256. Axes, names and the mode in comments are those of the plain .ply.
"""

from pathlib import Path

import numpy as np

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError
from vision3d.geometry.spherical_harmonics import SH0
from vision3d.io.ply_file import read_elements, read_table
from vision3d.io.ply_modes import mode_comments, read_mode
from vision3d.io.splat_arrays import (
    Losses,
    SplatArrays,
    any_numbers,
    arrays_of,
    from_smallest_three,
    largest_first,
    logits_of_bytes,
    morton_order,
    opacities_of,
)
from vision3d.scene.gaussians import GaussianScene

_CHUNK = 256
_WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_LOW, _HIGH = ("min_x", "min_y", "min_z"), ("max_x", "max_y", "max_z")
_LOW_SCALE, _HIGH_SCALE = ("min_scale_x", "min_scale_y", "min_scale_z"), ("max_scale_x", "max_scale_y", "max_scale_z")
_LOW_COLOR, _HIGH_COLOR = ("min_r", "min_g", "min_b"), ("max_r", "max_g", "max_b")
_BOUNDS = (_LOW, _HIGH, _LOW_SCALE, _HIGH_SCALE, _LOW_COLOR, _HIGH_COLOR)
_VECTOR_BITS = ((21, 11), (11, 10), (0, 11))  # shift and width of x, y, z
_ROTATION_BITS = ((20, 10), (10, 10), (0, 10))
_COLOR_BITS = ((24, 8), (16, 8), (8, 8))
_SH_VALUES = ((np.arange(256, dtype=np.float32) + 0.5) / 32 - 4).astype(np.float32)
_SH_VALUES[[0, 255]] = -4, 4
_MAX_LOG_SCALE = 20.0


@any_numbers
def read_gaussians(path: Path | str, *, drop_nan: bool = False) -> GaussianScene:
    """Read a compressed .ply.

    Args:
        path: The file.
        drop_nan: Drop Gaussians that are not finite instead of raising an error.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: The file is not a compressed .ply, is truncated, or its counts are inconsistent.
    """
    path = Path(path)
    names = list(read_elements(path, with_empty=True))
    if "chunk" not in names:
        raise FileFormatError(
            path, f"is not a compressed .ply: it has no element chunk; elements: {', '.join(names)}", "header"
        )
    chunk, vertex = read_table(path, "chunk"), read_table(path, "vertex")
    has_colors = _LOW_COLOR[0] in chunk.names
    bounds = _BOUNDS if has_colors else _BOUNDS[:4]
    for table, wanted in ((chunk, [name for names in bounds for name in names]), (vertex, _WORDS)):
        if missing := [name for name in wanted if name not in table.names]:
            raise FileFormatError(
                path, f"lacks {' '.join(missing)}, which a compressed .ply has; it has {' '.join(table.names)}", "header"
            )
    count = len(vertex)
    if len(chunk) != -(-count // _CHUNK):
        raise FileFormatError(path, f"has {len(chunk)} chunks for {count} Gaussians, want {-(-count // _CHUNK)}", "header")
    sh = _read_sh(path, count) if "sh" in names else np.empty((count, 1, 3), np.float32)
    limits = chunk.columns(*bounds)
    words = (vertex.columns(_WORDS, dtype=np.int64)[0] & 0xFFFFFFFF).astype(np.uint32)
    position, rotation, scale, color = (np.ascontiguousarray(words[:, i]) for i in range(4))
    others = (_fractions(rotation, _ROTATION_BITS) - np.float32(0.5)) * np.float32(2**0.5)
    colors = _fractions(color, _COLOR_BITS)
    if has_colors:
        colors = _between(colors, limits[4], limits[5])
    sh[:, 0] = (colors - 0.5) / np.float32(SH0)
    mode, antialiased = read_mode(vertex.comments, 3)
    arrays = SplatArrays(
        _between(_fractions(position, _VECTOR_BITS), limits[0], limits[1]),
        from_smallest_three(rotation >> np.uint32(30), others),
        _between(_fractions(scale, _VECTOR_BITS), limits[2], limits[3]),
        logits_of_bytes(color & np.uint32(255)),
        sh,
        mode,
        antialiased,
    )
    return arrays.to_scene(path, drop_nan=drop_nan)


def write_gaussians(path: Path | str, scene: GaussianScene) -> None:
    """Write a compressed .ply; what it cannot store (labels, degree 4, out-of-range values) is logged as one warning.

    Raises:
        InputError: The scene is empty or has values that are not finite.
    """
    path = Path(path)
    losses = Losses(path, scene, max_degree=3, modes=True, antialiased=not (scene.antialiased and scene.mode == "2dgs"))
    arrays = arrays_of(scene, 3)
    losses.clipped("log scale", arrays.log_scales, -_MAX_LOG_SCALE, _MAX_LOG_SCALE, " log m")
    rest = arrays.sh[:, 1:]
    losses.clipped("harmonics", rest, -4, 4)
    order = morton_order(arrays.means)
    words = np.empty((len(order), 4), "<u4")
    limits = []
    scales = np.clip(arrays.log_scales[order], -_MAX_LOG_SCALE, _MAX_LOG_SCALE)
    colors = (arrays.sh[order, 0] * np.float32(SH0) + np.float32(0.5)).astype(np.float32)
    for column, (values, bits) in {
        0: (arrays.means[order], _VECTOR_BITS),
        2: (scales, _VECTOR_BITS),
        3: (colors, _COLOR_BITS),
    }.items():
        fractions, low, high = _within_chunks(values)
        words[:, column] = _packed(fractions, bits)
        limits += [low, high]
    words[:, 3] |= np.rint(opacities_of(arrays.opacity_logits[order]) * 255).astype(np.uint32)
    largest, others = largest_first(arrays.quats[order])
    words[:, 1] = _packed(others * np.float32(0.5**0.5) + 0.5, _ROTATION_BITS) | (largest.astype(np.uint32) << np.uint32(30))
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in mode_comments(scene))]
    lines += [f"element chunk {len(limits[0])}", *(f"property float {name}" for names in _BOUNDS for name in names)]
    lines += [f"element vertex {len(order)}", *(f"property uint {name}" for name in _WORDS)]
    if rest.size:
        lines += [f"element sh {len(order)}", *(f"property uchar f_rest_{i}" for i in range(rest[0].size))]
    levels = np.clip((rest[order] / 8 + 0.5) * 256, 0, 255).astype(np.uint8).transpose(0, 2, 1)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join([*lines, "end_header", ""]).encode())
        file.write(np.concatenate(limits, 1).astype("<f4").tobytes())
        file.write(words.tobytes())
        file.write(levels.tobytes())
    losses.log()


def is_compressed(path: Path) -> bool:
    """Whether a .ply has the elements of a compressed one."""
    return "chunk" in read_elements(path, with_empty=True)


def load(path: Path) -> GaussianScene:
    """Codec: read Gaussians."""
    return read_gaussians(path)


def save(path: Path, value: GaussianScene) -> None:
    """Codec: write Gaussians."""
    write_gaussians(path, value)


def _read_sh(path: Path, count: int) -> np.ndarray:
    """Harmonics (N, K, 3); the first coefficient is filled in later."""
    table = read_table(path, "sh")
    names = [f"f_rest_{i}" for i in range(len(table.names))]
    if len(names) not in (9, 24, 45) or set(names) != set(table.names):
        raise FileFormatError(path, f"element sh has {len(names)} properties, want f_rest_* in number 9, 24 or 45", "header")
    if len(table) != count:
        raise FileFormatError(path, f"has {len(table)} rows of harmonics for {count} Gaussians", "header")
    (levels,) = table.columns(names, dtype=np.uint8)
    num = len(names) // 3
    sh = np.empty((count, num + 1, 3), np.float32)
    for start in range(0, count, 1 << 14):  # sized to fit the cache
        block = levels[start : start + (1 << 14)].reshape(-1, 3, num).transpose(0, 2, 1)
        sh[start : start + (1 << 14), 1:] = _SH_VALUES[block]
    return sh


def _fractions(words: np.ndarray, bits: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Bit fields of words (N,) as numbers (N, 3) in [0, 1]."""
    result = np.empty((len(words), len(bits)), np.float32)
    for column, (shift, width) in enumerate(bits):
        top = (1 << width) - 1
        result[:, column] = ((words >> np.uint32(shift)) & np.uint32(top)).astype(np.float32) / np.float32(top)
    return result


def _packed(fractions: np.ndarray, bits: tuple[tuple[int, int], ...]) -> np.ndarray:
    words = np.zeros(len(fractions), np.uint32)
    for column, (shift, width) in enumerate(bits):
        top = (1 << width) - 1
        words |= np.clip(np.rint(fractions[:, column] * top), 0, top).astype(np.uint32) << np.uint32(shift)
    return words


def _between(fractions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Interpolate by fractions (N, 3) between the lower and upper bounds of their chunks."""
    with np.errstate(over="ignore", invalid="ignore"):  # non-finite bounds are detected in the results
        span = np.repeat(high - low, _CHUNK, 0)[: len(fractions)]
        return fractions * span + np.repeat(low, _CHUNK, 0)[: len(fractions)]


def _within_chunks(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (N, 3) as fractions between the bounds of their chunks, and the bounds (chunks, 3)."""
    starts = np.arange(0, len(values), _CHUNK)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    span = np.repeat(np.where(high > low, high - low, 1), _CHUNK, 0)[: len(values)]
    return (values - np.repeat(low, _CHUNK, 0)[: len(values)]) / span, low, high
