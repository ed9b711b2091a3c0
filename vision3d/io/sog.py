"""Gaussian scenes as SOG version 2 (playcanvas/splat-transform): meta.json and lossless WebP images, in a zip (.sog) or in a
folder, given by the path of its meta.json.

Each image has one pixel per Gaussian. Positions are 16-bit steps of sign(x) ln(1 + |x|) between bounds, in one image of low
and one of high bytes; rotations the three smaller components of wxyz as bytes with 252 + index of the largest in alpha;
log scales and color coefficients indices into codebooks of 256 values, opacity the alpha of the colors. Harmonics are rows of
a palette of at most 65536 rows, whose values are indices into a codebook. Axes are those of the .ply.

Version 1 (playcanvas/sogs), which is read but not written, has no version number: the count is the first of the shape of the
positions, bytes are steps between `mins` and `maxs` instead of indices into codebooks, and opacity is a step between
logits.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.core.errors import FileFormatError
from vision3d.io.palette import codebook_of, nearest_entries, palette_of
from vision3d.io.sog_files import MAX_PALETTE, MAX_SIDE, Archive, Folder, Meta, webp_bytes, write_archive, write_folder
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
    to_bytes,
)
from vision3d.scene.gaussians import GaussianScene, SplatMode

_MODELS: dict[str, tuple[SplatMode, bool]] = {
    "default": ("3dgs", False),
    "antialiased": ("3dgs", True),
    "2dgs": ("2dgs", False),
}
_PALETTE_WIDTH = 64  # palette rows per pixel row


@any_numbers
def read_gaussians(path: Path | str, *, drop_nan: bool = False) -> GaussianScene:
    """Read a .sog of version 1 or 2, or the meta.json of an unpacked one.

    Args:
        path: The .sog, the meta.json, or the folder that it is in.
        drop_nan: Drop Gaussians that are not finite instead of raising an error.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a zip or is damaged, has another version, lacks an image, or has one of the wrong size.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "meta.json"
    archive = Folder(path) if path.suffix.lower() == ".json" else Archive(path)
    meta = Meta(path, archive.meta())
    version = meta.content.get("version", 1 if meta.value("means.shape") is not None else None)
    if version not in (1, 2):
        raise FileFormatError(path, f"has SOG version {version!r}; 1 and 2 are read", "meta.json: version")
    is_first = version == 1
    count = meta.shape("means.shape", MAX_SIDE**2)[0] if is_first else meta.integer("count", 1, MAX_SIDE**2)
    names = [*meta.files("means", 2), *meta.files("quats", 1), *meta.files("scales", 1), *meta.files("sh0", 1)]
    degree = 0
    if meta.content.get("shN") is not None:
        names += meta.files("shN", 2)
        degree, num_rows = (1, 1) if is_first else (meta.integer("shN.bands", 1, 3), meta.integer("shN.count", 1, MAX_PALETTE))
    wanted = [count] * 5 + ([-1, count] if degree else [])
    archive.check(names, wanted)
    if is_first and degree:
        width, height = archive.size(names[5])
        degree = {_PALETTE_WIDTH * ((d + 1) ** 2 - 1): d for d in (1, 2, 3)}.get(width, 1)
        num_rows = _PALETTE_WIDTH * height
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
    if is_first:
        stepped = _between(meta.numbers("sh0.mins", 4), meta.numbers("sh0.maxs", 4), colors)
        sh[:, 0], logits = stepped[:, :3], stepped[:, 3]
        log_scales = _between(meta.numbers("scales.mins", 3), meta.numbers("scales.maxs", 3), scales[:, :3])
    else:
        sh[:, 0], logits = meta.codebook("sh0")[colors[:, :3]], logits_of_bytes(colors[:, 3])
        log_scales = meta.codebook("scales")[scales[:, :3]]
    if degree:
        table = archive.pixels(names[5])[:, :3]
        coeffs = (degree + 1) ** 2 - 1
        palette = _between(meta.number("shN.mins"), meta.number("shN.maxs"), table) if is_first else meta.codebook("shN")[table]
        width = archive.size(names[5])[0]
        if width != _PALETTE_WIDTH * coeffs or len(palette) < num_rows * coeffs:
            text = f"palette {names[5]} is {width} px wide with {len(palette)} pixels"
            raise FileFormatError(path, f"{text}; want {_PALETTE_WIDTH * coeffs} px, and {num_rows * coeffs} pixels")
        labels = archive.pixels(names[6])[:count, :2].astype(np.int64)
        labels = labels[:, 0] + 256 * labels[:, 1]
        if labels.max() >= num_rows:
            raise FileFormatError(path, f"palette has {num_rows} rows, and row {labels.max()} is used", names[6])
        sh[:, 1:] = palette.reshape(-1, coeffs, 3)[labels]
    mode, antialiased = _MODELS.get(str(meta.content.get("model", "default")), ("3dgs", False))
    arrays = SplatArrays(means, rotations, log_scales, logits, sh, mode, antialiased)
    return arrays.to_scene(path, drop_nan=drop_nan)


def _between(low: np.ndarray | float, high: np.ndarray | float, steps: np.ndarray) -> np.ndarray:
    """Values of bytes that are 255 equal steps between the bounds."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (low + (high - low) * (steps.astype(np.float32) / np.float32(255))).astype(np.float32)


def write_gaussians(path: Path | str, scene: GaussianScene) -> None:
    """Write a .sog, or a folder of images with a `path` named meta.json. What it cannot store (labels, mode flat, degree 4, a
    palette that is too small) is logged as one warning.

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

    def image(name: str, columns: list[np.ndarray], size: tuple[int, int] = (width, height)) -> list[str]:
        pixels = np.zeros((size[0] * size[1], 4), np.uint8)
        pixels[:, 3] = 255
        for channel, values in enumerate(columns):
            pixels[: len(values), channel] = values
        files[name] = webp_bytes(pixels.reshape(size[1], size[0], 4))
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
        "files": image("means_l.webp", parts[0]) + image("means_u.webp", parts[1]),
    }
    scales = codebook_of(arrays.log_scales)
    indices = nearest_entries(scales, arrays.log_scales[order])
    meta["scales"] = {"codebook": scales.tolist(), "files": image("scales.webp", list(indices.T))}
    largest, others = largest_first(arrays.quats[order])
    levels = to_bytes((others * math.sqrt(2) * 0.5 + 0.5) * 255)
    meta["quats"] = {"files": image("quats.webp", [*levels.T, (largest + 252).astype(np.uint8)])}
    colors = codebook_of(arrays.sh[:, 0])
    indices = nearest_entries(colors, arrays.sh[order, 0])
    alphas = to_bytes(opacities_of(arrays.opacity_logits[order]) * 255)
    meta["sh0"] = {"codebook": colors.tolist(), "files": image("sh0.webp", [*indices.T, alphas])}
    coeffs = arrays.sh.shape[1] - 1
    if coeffs:
        palette, labels = palette_of(arrays.sh[order, 1:].reshape(len(order), -1), MAX_PALETTE)
        if len(palette) < len(order):
            losses.texts.append(f"each one's harmonics (a palette of {len(palette)} stands for {len(order)})")
        table = codebook_of(palette)
        pixels = nearest_entries(table, palette).reshape(-1, 3)
        size = (_PALETTE_WIDTH * coeffs, math.ceil(len(palette) / _PALETTE_WIDTH))
        names = image("shN_centroids.webp", list(pixels.T), size)
        names += image("shN_labels.webp", [labels & 255, labels >> 8, np.zeros(len(labels), np.uint8)])
        bands = math.isqrt(coeffs + 1) - 1
        meta["shN"] = {"count": len(palette), "bands": bands, "codebook": table.tolist(), "files": names}
    (write_folder if path.suffix.lower() == ".json" else write_archive)(path, meta, files)
    losses.log()


def load(path: Path) -> GaussianScene:
    """Codec: read Gaussians."""
    return read_gaussians(path)


def save(path: Path, value: GaussianScene) -> None:
    """Codec: write Gaussians."""
    write_gaussians(path, value)
