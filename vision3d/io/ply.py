"""Gaussian scenes and point clouds as .ply files.

Gaussian files have the layout of the INRIA code as gsplat writes it: x y z, f_dc_0..2, f_rest_* channel-major (all of
red, then green, then blue), opacity (logit), scale_* (natural logarithm), rot_0..3 (wxyz); normals are not written and
not required. In the header, `comment SplatRenderMode: mip|2dgs` marks antialiased and 2dgs scenes, and
`comment Vision3dMode: flat` scenes of flat ellipsoids.
"""

from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError
from vision3d.io.ply_file import Table, read_elements, read_table, write_table
from vision3d.io.ply_modes import mode_comments, read_mode
from vision3d.scene.checks import check_shape
from vision3d.scene.gaussians import FLAT_LOG_SCALE, GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.points import PointCloud

_MEANS = ("x", "y", "z")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_COLORS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_GAUSSIAN_SIGNS = {*_DC, *_ROTATION, "opacity", "scale_0", "packed_position"}
_OPAQUE_LOGIT = 15.0  # used for infinity, which files with 8-bit opacity contain for 255; 1 - sigmoid(15) = 3e-7


def read_gaussians(path: Path | str, *, drop_nan: bool = False) -> GaussianScene:
    """Read a Gaussian .ply: ASCII or binary of either byte order, properties in any order, harmonics of degree 0 to 4.

    A compressed .ply (see `vision3d.io.compressed_ply`) is recognized by its elements and read as well.

    Args:
        path: The file.
        drop_nan: Drop rows that are not finite or have a rotation of length zero instead of raising an error. An infinite
            opacity does not count: it becomes a logit of 15 or -15.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a .ply, is truncated, lacks a property, has no rows, or has rows that are not finite.
    """
    table = read_table(path)
    if "packed_position" in table.names:
        from vision3d.io import compressed_ply

        return compressed_ply.read_gaussians(path, drop_nan=drop_nan)
    coefficients = _rest_names(table)
    scales = [name for name in ("scale_0", "scale_1", "scale_2") if name in table.names]
    wanted = [*_MEANS, *_DC, "opacity", "scale_0", "scale_1", *_ROTATION]
    if missing := [name for name in wanted if name not in table.names]:
        raise FileFormatError(table.path, _missing_text(table, missing), "header")
    num_coeffs = 1 + len(coefficients) // 3
    # The file has all of red, then green, then blue; here the three colors of a coefficient are adjacent.
    harmonics = [*_DC, *(coefficients[c * (num_coeffs - 1) + k] for k in range(num_coeffs - 1) for c in range(3))]
    means, harmonics, opacities, log_scales, quats = table.columns(_MEANS, harmonics, ["opacity"], scales, _ROTATION)
    opacity_logits, sh = opacities[:, 0], harmonics.reshape(len(table), num_coeffs, 3)
    mode, antialiased = read_mode(table.comments, len(scales))
    if len(scales) == 2:
        log_scales = np.concatenate([log_scales, np.full((len(table), 1), FLAT_LOG_SCALE, np.float32)], 1)
    labels = _read_labels(table)

    is_endless = np.isinf(opacity_logits)
    opacity_logits[is_endless] = np.copysign(np.float32(_OPAQUE_LOGIT), opacity_logits[is_endless])
    with np.errstate(invalid="ignore"):  # signalling NaN
        is_bad = ~quats.any(1) | np.isnan(opacity_logits)
    for values in (means, quats, log_scales, harmonics):
        is_bad |= _has_nan(values)
    arrays = {"means": means, "quats": quats, "log_scales": log_scales, "opacity_logits": opacity_logits, "sh": sh}
    if labels is not None:
        arrays["labels"] = labels
    if is_bad.any():
        count, first = int(is_bad.sum()), int(is_bad.argmax())
        if not drop_nan or count == len(table):
            raise FileFormatError(
                table.path,
                f"{count} of {len(table)} rows are not finite or have a rotation of length zero"
                + ("" if drop_nan else "; drop_nan=True or vision3d convert --filter-nan drops them"),
                f"row {first}",
            )
        arrays = {name: values[~is_bad] for name, values in arrays.items()}
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    return GaussianScene(mode=mode, antialiased=antialiased, **tensors)


def write_gaussians(path: Path | str, scene: GaussianScene) -> None:
    """Write a binary little-endian Gaussian .ply atomically; reading it back gives identical bits (float32).

    Raises:
        InputError: The scene is empty or has values that are not finite.
    """
    scene.validate()

    def array(values: Tensor) -> np.ndarray:
        return values.detach().to("cpu", torch.float32).numpy()

    rest = array(scene.sh[:, 1:]).transpose(0, 2, 1)  # all of red, then green, then blue
    columns = [(" ".join(_MEANS), array(scene.means)), (" ".join(_DC), array(scene.sh[:, 0]))]
    if rest.size:
        columns.append((" ".join(f"f_rest_{i}" for i in range(rest[0].size)), rest))
    columns += [
        ("opacity", array(scene.opacity_logits)),
        ("scale_0 scale_1 scale_2", array(scene.log_scales)),
        (" ".join(_ROTATION), array(scene.quats)),
    ]
    if scene.labels is not None:
        if scene.labels.abs().max() >= 2**31:
            raise InputError(f"{path}: labels reach {scene.labels.abs().max()}, want 32-bit integers")
        columns.append(("label", scene.labels.cpu().numpy().astype(np.int32)))
    write_table(path, columns, mode_comments(scene))


def read_points(path: Path | str) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 3"] | None]:
    """Read a point cloud: positions, and colors in [0, 1] if the file has them.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a .ply, is truncated, has no x y z or no rows, or has non-finite positions.
    """
    table = read_table(path)
    if missing := [name for name in _MEANS if name not in table.names]:
        raise FileFormatError(table.path, f"lacks {' '.join(missing)}; it has {' '.join(table.names)}")
    (points,) = table.columns(_MEANS)
    if not np.isfinite(points).all():
        raise FileFormatError(table.path, f"{int((~np.isfinite(points)).any(1).sum())} of {len(table)} points are not finite")
    names = next((names for names in _COLORS if set(names) <= set(table.names)), None)
    if names is None:
        return torch.from_numpy(points), None
    colors = torch.from_numpy(table.columns(names)[0])
    is_integer = table.kinds[table.names.index(names[0])][0] in "iu" or bool(
        (colors > 1).any()
    )  # ASCII files do not preserve the type
    return torch.from_numpy(points), (colors / (255.0 if is_integer else 1.0)).clamp(0, 1)


def write_points(path: Path | str, points: Float[Tensor, "p 3"], colors: Float[Tensor, "p 3"] | None = None) -> None:
    """Write a point cloud as binary .ply (x y z, and red green blue as bytes) atomically.

    Args:
        path: The file.
        points: Positions [m].
        colors: In [0, 1].
    """
    check_shape("points", points, ("P", 3))
    columns = [(" ".join(_MEANS), points.detach().to("cpu", torch.float32).numpy())]
    if colors is not None:
        check_shape("colors", colors, (len(points), 3))
        columns.append(("red green blue", (colors.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()))
    write_table(path, columns, ["written by vision3d"])


def kind_of(path: Path) -> Literal["gaussians", "mesh", "points"]:
    """Type of the contents of a .ply, by its header.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a .ply.
    """
    elements = read_elements(path)
    if "face" in elements:
        return "mesh"
    names = set(elements.get("vertex", ()))
    return "points" if set(_MEANS) <= names and not names & _GAUSSIAN_SIGNS else "gaussians"


def load(path: Path) -> object:
    """Codec: read the mesh of a file with faces, else its Gaussians, else its points if it has no Gaussian properties."""
    kind = kind_of(path)
    return _meshes().load(path) if kind == "mesh" else _points().read_ply(path) if kind == "points" else read_gaussians(path)


def save(path: Path, value: GaussianScene | Mesh | PointCloud) -> None:
    """Codec: write Gaussians (compressed if the name ends in .compressed.ply), a mesh or points."""
    if isinstance(value, Mesh):
        _meshes().save(path, value)
    elif isinstance(value, PointCloud):
        _points().write_ply(path, value)
    elif path.name.lower().endswith(".compressed.ply"):
        from vision3d.io import compressed_ply

        compressed_ply.write_gaussians(path, value)
    else:
        write_gaussians(path, value)


def _points() -> ModuleType:
    from vision3d.io import point_files

    return point_files


def _meshes() -> ModuleType:
    from vision3d.io import mesh_files

    return mesh_files


def _rest_names(table: Table) -> list[str]:
    names = [name for name in table.names if name.startswith("f_rest_")]
    expected = [f"f_rest_{i}" for i in range(len(names))]
    if set(names) != set(expected) or len(names) not in (0, 9, 24, 45, 72):
        want = "0, 9, 24, 45 or 72, numbered from 0 (degree 0 to 4)"
        raise FileFormatError(table.path, f"has {len(names)} f_rest properties, want {want}", "header")
    return expected


def _read_labels(table: Table) -> np.ndarray | None:
    """The column `label` if it has integers (files of other programs may use the name differently)."""
    if "label" not in table.names:
        return None
    values = table.columns(["label"], dtype=np.float64)[0][:, 0]
    is_whole = np.abs(values) < 2.0**31
    return values.astype(np.int64) if is_whole.all() and (values == np.floor(values)).all() else None


def _has_nan(values: np.ndarray) -> np.ndarray:
    """Rows that contain NaN or infinity: their sum is not finite, and neither is an element (finite sums may overflow)."""
    with np.errstate(over="ignore", invalid="ignore"):
        is_bad = ~np.isfinite(values @ np.ones(values.shape[1], np.float32))
    is_bad[is_bad] = ~np.isfinite(values[is_bad]).all(1)
    return is_bad


def _missing_text(table: Table, missing: list[str]) -> str:
    text = f"lacks {' '.join(missing)}, which a Gaussian scene needs; it has {' '.join(table.names[:20])}"
    return text + (" (a point cloud: read it with vision3d.io.ply.read_points)" if set(_MEANS) <= set(table.names) else "")
