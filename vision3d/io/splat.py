"""Gaussian scenes as .splat: 32 bytes per Gaussian, without header and view-dependent colors.

A row is three float32 for the center, three float32 scales (linear), red, green, blue and opacity as bytes, and a quaternion
wxyz as bytes 128 q + 128 (layout of antimatter15/splat, as gsplat's exporter writes it). Axes are those of the .ply.
"""

from pathlib import Path

import numpy as np

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError
from vision3d.geometry.spherical_harmonics import SH0
from vision3d.io.guards import read_bytes
from vision3d.io.splat_arrays import (
    Losses,
    SplatArrays,
    any_numbers,
    arrays_of,
    logits_of_bytes,
    logs_of_scales,
    opacities_of,
    to_bytes,
)
from vision3d.scene.gaussians import GaussianScene

_ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("colors", "u1", 4), ("quats", "u1", 4)])


@any_numbers
def read_gaussians(path: Path | str, *, drop_nan: bool = False) -> GaussianScene:
    """Read a .splat.

    Args:
        path: The file.
        drop_nan: Drop Gaussians that are not finite or have a rotation of length zero instead of raising an error.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: Its length is 0 or not a multiple of 32 bytes, or Gaussians are not finite.
    """
    path = Path(path)
    data = read_bytes(path, "a .splat file")
    if len(data) % _ROW.itemsize:
        whole = len(data) // _ROW.itemsize
        raise FileFormatError(path, f"has {len(data)} bytes, want a multiple of 32 ({whole} rows are whole)", whole * 32)
    rows = np.frombuffer(data, _ROW)
    arrays = SplatArrays(
        np.ascontiguousarray(rows["means"], np.float32),
        (rows["quats"].astype(np.float32) - 128) / 128,
        logs_of_scales(rows["scales"]),
        logits_of_bytes(rows["colors"][:, 3]),
        ((rows["colors"][:, None, :3].astype(np.float32) / 255) - 0.5) / np.float32(SH0),
    )
    return arrays.to_scene(path, drop_nan=drop_nan)


def write_gaussians(path: Path | str, scene: GaussianScene) -> None:
    """Write a .splat, the Gaussians in descending order of opacity times volume, as progressive viewers expect.

    What it cannot store (harmonics above degree 0, colors outside 0 to 1, labels, the mode) is logged as one warning.

    Raises:
        InputError: The scene is empty or has values that are not finite.
    """
    path = Path(path)
    losses = Losses(path, scene, max_degree=0)
    arrays = arrays_of(scene, 0)
    opacities = opacities_of(arrays.opacity_logits)
    order = np.argsort(-np.log(np.maximum(opacities, 1e-30)) - arrays.log_scales.sum(1), kind="stable")
    colors = arrays.sh[:, 0] * SH0 + 0.5
    losses.clipped("color", colors, 0, 1)
    losses.clipped("log scale", arrays.log_scales, -87.0, 88.0, " log m")
    rows = np.empty(len(arrays), _ROW)
    rows["means"] = arrays.means[order]
    rows["scales"] = np.exp(np.clip(arrays.log_scales[order], -87, 88))
    rows["colors"][:, :3] = to_bytes(colors[order] * 255)
    rows["colors"][:, 3] = to_bytes(opacities[order] * 255)
    rows["quats"] = to_bytes(arrays.quats[order] * 128 + 128)
    with atomic_write(path) as temporary:
        temporary.write_bytes(rows.tobytes())
    losses.log()


def load(path: Path) -> GaussianScene:
    """Codec: read Gaussians."""
    return read_gaussians(path)


def save(path: Path, value: GaussianScene) -> None:
    """Codec: write Gaussians."""
    write_gaussians(path, value)
