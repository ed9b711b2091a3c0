"""LiDAR sweeps of any common file: .bin with 4 to 6 columns, .npy, .pcd, .ply. Intensities are scaled to [0, 1]."""

import importlib
import math
from pathlib import Path

import numpy as np
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingDependencyError, MissingFileError
from vision3d.io.guards import NUMPY_ERRORS
from vision3d.scene.points import PointCloud

SUFFIXES = (".bin", ".npy", ".pcd", ".ply")
_FARTHEST = 1e4  # m
_INTENSITIES = ("intensity", "reflectivity", "reflectance", "i")


def read_sweep(path: Path | str, columns: int | None = None) -> PointCloud:
    """Read the points of a sweep; those that are not finite, and returns at the origin, are dropped.

    Args:
        path: .bin (float32: x y z intensity, and more), .npy (the same as an array), .pcd or .ply.
        columns: Number of columns of a .bin; None: 4, or 5 as in nuScenes where the fifth column numbers the rings.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is truncated, has the wrong number of columns, or no point that is finite.
        InputError: The suffix is unknown.
        MissingDependencyError: A .pcd without pypcd4.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, f"a sweep ({', '.join(SUFFIXES)})")
    suffix = path.suffix.lower()
    if suffix == ".ply":
        from vision3d.io.point_files import read_ply

        cloud = read_ply(path, drop_nan=True)
        intensity = cloud.intensity
        if intensity is None:
            intensity = next((cloud.attributes[name] for name in _INTENSITIES if name in cloud.attributes), None)
        rows = cloud.points.numpy()
        values = None if intensity is None else intensity.float().numpy()
    elif suffix == ".bin":
        rows, values = _split(path, _bin_rows(path, columns))
    elif suffix == ".npy":
        rows, values = _split(path, _npy_rows(path))
    elif suffix == ".pcd":
        rows, values = _pcd(path)
    else:
        raise InputError(f"{path}: want a sweep that ends in {', '.join(SUFFIXES)}")
    return _cloud(path, rows, values)


def _bin_rows(path: Path, columns: int | None) -> np.ndarray:
    size = path.stat().st_size
    if columns is not None and columns < 3:
        raise InputError(f"columns: got {columns}, want at least 3 (x y z)")
    usable = [n for n in ((columns,) if columns else (4, 5, 6)) if size and size % (4 * n) == 0]
    if not usable:
        want = f"a multiple of {4 * columns}" if columns else "a multiple of 16 (x y z intensity), 20 or 24"
        raise FileFormatError(path, f"has {size} bytes, want {want} above 0 (float32)", size)
    values = np.fromfile(path, "<f4")
    rows = {n: values.reshape(-1, n) for n in usable}
    return next((rows[n] for n in usable if columns or _is_plausible(rows[n])), rows[usable[0]])


def _is_plausible(rows: np.ndarray) -> bool:
    """Whether a table is x y z intensity and perhaps a ring: a wrong number of columns mixes up coordinates and intensities."""
    finite = rows[np.isfinite(rows).all(1)]
    if not len(finite) or finite[:, 3].min() < 0 or finite[:, 3].max() > 65535:
        return False
    if rows.shape[1] == 4:
        return True
    ring = finite[:, 4]
    return bool((ring == np.floor(ring)).all() and ring.min() >= 0 and ring.max() < 1024)


def _npy_rows(path: Path) -> np.ndarray:
    try:
        rows = np.load(path, allow_pickle=False)
    except NUMPY_ERRORS as error:
        raise FileFormatError(path, "is not an array of numbers written by numpy.save") from error
    if rows.dtype.kind not in "fiu" or rows.ndim != 2 or rows.shape[1] < 3:
        raise FileFormatError(path, f"holds {rows.dtype} of shape {rows.shape}, want (N, 3) or (N, 4): x y z intensity")
    return rows.astype(np.float32)


def _split(path: Path, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    return rows[:, :3], rows[:, 3] if rows.shape[1] > 3 else None


def _pcd(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        pypcd4 = importlib.import_module("pypcd4")
    except ImportError as error:
        raise MissingDependencyError("pypcd4", "lidar", "reading .pcd") from error
    try:
        cloud = pypcd4.PointCloud.from_path(path)
        fields = list(cloud.fields)
        missing = [name for name in "xyz" if name not in fields]
        if missing:
            raise FileFormatError(path, f"has no field {', '.join(missing)}; it has {', '.join(fields[:10])}")
        intensity = next((name for name in _INTENSITIES if name in fields), None)
        rows = cloud.numpy(("x", "y", "z", *((intensity,) if intensity else ()))).astype(np.float32)
    except FileFormatError:
        raise
    except Exception as error:  # the package raises whatever its header parser meets
        raise FileFormatError(
            path,
            f"is not a .pcd that pypcd4 reads ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__})",
        ) from error
    return _split(path, rows)


def _cloud(path: Path, xyz: np.ndarray, intensity: np.ndarray | None) -> PointCloud:
    good = np.isfinite(xyz).all(1) & (np.abs(xyz) < _FARTHEST).all(1) & (np.abs(xyz) > 0).any(1)
    if intensity is not None:
        good &= np.isfinite(intensity)
    if not good.any():
        raise FileFormatError(path, f"has no finite point among {len(xyz)} within {_FARTHEST / 1000:g} km of the sensor")
    xyz = np.ascontiguousarray(xyz[good], dtype=np.float32)
    if intensity is None:
        return PointCloud(torch.from_numpy(xyz))
    intensity = intensity[good].astype(np.float32)
    top = float(intensity.max())
    # Sensors count in bytes or in 16 bits; KITTI's are already fractions.
    scale = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0
    if not math.isfinite(top):
        raise FileFormatError(path, "has intensities that are not finite")
    return PointCloud(torch.from_numpy(xyz), intensity=torch.from_numpy(intensity.clip(0) / np.float32(scale)))
