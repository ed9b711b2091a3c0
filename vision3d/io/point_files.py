"""Point clouds as .ply (one property per attribute) and as KITTI's .bin."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io.ply_file import read_table, write_table
from vision3d.scene.points import PointCloud

logger = logging.getLogger("vision3d")

_POINTS, _NORMALS = ("x", "y", "z"), ("nx", "ny", "nz")
_COLORS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


def read_ply(path: Path | str, *, drop_nan: bool = False) -> PointCloud:
    """Read a point cloud: x y z, and all other vertex properties; values become float32, integers int64.

    Args:
        path: The file.
        drop_nan: Drop points with non-finite values instead of raising an error.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a .ply, is truncated, has no x y z or no rows, or has non-finite values.
    """
    table = read_table(path)
    if missing := [name for name in _POINTS if name not in table.names]:
        raise FileFormatError(table.path, f"lacks {' '.join(missing)}; it has {' '.join(table.names[:20])}", "header")
    color_names = next((names for names in _COLORS if set(names) <= set(table.names)), None)
    fields = {"points": _POINTS, "colors": color_names, "normals": _NORMALS if set(_NORMALS) <= set(table.names) else None}
    fields["intensity"] = ("intensity",) if "intensity" in table.names else None
    groups = {name: names for name, names in fields.items() if names is not None}
    taken = {name for names in groups.values() for name in names}
    others = [name for name in table.names if name not in taken]
    arrays = dict(zip(groups, table.columns(*groups.values())))
    if color_names is not None:
        kind = table.kinds[table.names.index(color_names[0])]
        # ASCII files do not preserve the type.
        top = {"u1": 255.0, "u2": 65535.0}.get(kind, 255.0 if (arrays["colors"] > 1).any() else 1.0)
        arrays["colors"] = (arrays["colors"] / np.float32(top)).clip(0, 1)
    if "intensity" in arrays:
        arrays["intensity"] = arrays["intensity"][:, 0]
    attributes = {}
    for name in others:
        dtype = np.float32 if table.kinds[table.names.index(name)][0] == "f" else np.int64
        attributes[name] = torch.from_numpy(table.columns([name], dtype=dtype)[0][:, 0])
    return _checked(
        table.path,
        lambda: PointCloud(attributes=attributes, **{name: torch.from_numpy(values) for name, values in arrays.items()}),
        drop_nan,
    )


def write_ply(path: Path | str, cloud: PointCloud) -> None:
    """Write a binary .ply atomically; floats are preserved bit by bit (float32), colors are stored as bytes.

    Raises:
        InputError: The cloud is empty, has values that are not finite, or integers beyond 32 bits.
    """
    cloud.validate()
    columns = [(" ".join(_POINTS), _array(cloud.points))]
    if cloud.normals is not None:
        columns.append((" ".join(_NORMALS), _array(cloud.normals)))
    if cloud.colors is not None:
        columns.append(("red green blue", (cloud.colors.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()))
    if cloud.intensity is not None:
        columns.append(("intensity", _array(cloud.intensity)))
    for name, value in cloud.attributes.items():
        if value.is_floating_point():
            columns.append((name, _array(value)))
            continue
        if value.min() < -(2**31) or value.max() >= 2**31:
            raise InputError(f"{path}: {name} reaches {int(value.abs().max())}, want 32-bit integers")
        columns.append((name, value.cpu().numpy().astype(np.int32)))
    write_table(path, columns, ["written by vision3d"])


def read_bin(path: Path | str, *, drop_nan: bool = False) -> PointCloud:
    """Read a KITTI LiDAR sweep: rows of x y z intensity, little-endian float32, no header.

    Args:
        path: The file.
        drop_nan: Drop points with non-finite values instead of raising an error.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is empty, its length is not a multiple of 16 bytes, or values are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a .bin of points")
    size = path.stat().st_size
    if not size or size % 16:
        raise FileFormatError(path, f"has {size} bytes, want a multiple of 16 above 0 (x y z intensity, float32)", size)
    values = torch.from_numpy(np.fromfile(path, "<f4").reshape(-1, 4))
    return _checked(path, lambda: PointCloud(values[:, :3].contiguous(), intensity=values[:, 3].contiguous()), drop_nan)


def write_bin(path: Path | str, cloud: PointCloud) -> None:
    """Write a KITTI .bin atomically; a missing intensity becomes 0, one warning lists what is lost.

    Raises:
        InputError: The cloud is empty or has values that are not finite.
    """
    cloud.validate()
    lost = [name for name in ("colors", "normals") if getattr(cloud, name) is not None] + list(cloud.attributes)
    if lost:
        logger.warning("%s: a .bin file cannot hold %s; dropped", path, ", ".join(lost))
    intensity = torch.zeros_like(cloud.points[:, 0]) if cloud.intensity is None else cloud.intensity
    rows = np.concatenate([_array(cloud.points), _array(intensity)[:, None]], 1).astype("<f4")
    with atomic_write(path) as temporary:
        temporary.write_bytes(rows.tobytes())


def load(path: Path) -> PointCloud:
    """Codec: read the points of a .bin."""
    return read_bin(path)


def save(path: Path, value: PointCloud) -> None:
    """Codec: write points as .bin."""
    write_bin(path, value)


def _checked(path: Path, make: Callable[[], PointCloud], drop_nan: bool) -> PointCloud:
    """The points, without non-finite ones if they are to be dropped."""
    try:
        cloud = make()
        is_good, names = torch.ones(cloud.num_points, dtype=torch.bool), []
        fields = {name: getattr(cloud, name) for name in ("points", "colors", "normals", "intensity")}
        for name, values in {**fields, **cloud.attributes}.items():
            if values is not None and values.is_floating_point():
                is_finite = values.reshape(len(is_good), -1).isfinite().all(1)
                names += [] if is_finite.all() else [name]
                is_good &= is_finite
        if names:
            if not drop_nan or not is_good.any():
                text = f"{' and '.join(names)} not finite in {int((~is_good).sum())} of {len(is_good)} rows"
                hint = "" if drop_nan else "; drop_nan=True or vision3d convert --filter-nan drops them"
                raise FileFormatError(path, text + hint, f"row {int((~is_good).int().argmax())}")
            cloud = cloud[is_good]
        return cloud.validate()
    except FileFormatError:
        raise
    except InputError as error:
        raise FileFormatError(path, str(error)) from error


def _array(values: Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float32).numpy()
