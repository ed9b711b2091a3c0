"""Gaussian scenes as glTF 2.0 with KHR_gaussian_splatting (release candidate of 2026), in .glb and .gltf.

A point primitive has centers, quaternions xyzw, linear scales, opacities in [0, 1] and one attribute per harmonic, in the order
and with the signs of `vision3d.geometry.spherical_harmonics`. Axes of glTF are left, up, forward: the scene is rotated by 180
degrees about z relative to a .ply, including harmonics. Meshes and other primitives are ignored.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision3d.core.errors import FileFormatError, InputError
from vision3d.geometry.spherical_harmonics import SH0
from vision3d.io.glb import srgb_to_linear
from vision3d.io.gltf_container import Builder, Gltf, peek_json
from vision3d.io.guards import check_size
from vision3d.io.splat_arrays import (
    OPAQUE_LOGIT,
    Losses,
    SplatArrays,
    any_numbers,
    arrays_of,
    logs_of_scales,
    opacities_of,
    to_bytes,
)
from vision3d.scene.gaussians import GaussianScene

logger = logging.getLogger(__name__)

EXTENSION = "KHR_gaussian_splatting"
AXES = (-1, -1, 1)
_FLOAT = {5126: (False,)}
_POSITION = {**_FLOAT, **dict.fromkeys((5120, 5121, 5122, 5123), (False, True))}  # including those of KHR_mesh_quantization
_ROTATION = {**_FLOAT, **dict.fromkeys((5120, 5122), (True,))}
_SCALE = {**_FLOAT, **dict.fromkeys((5121, 5123), (False, True))}
_OPACITY = {**_FLOAT, **dict.fromkeys((5121, 5123), (True,))}
_MAX_DEGREE = 3
_KNOWN = {EXTENSION, "KHR_mesh_quantization"}


def is_gaussian_gltf(path: Path | str) -> bool:
    """Whether a .glb or .gltf contains Gaussians; False if it is damaged, so that its reader reports the error."""
    try:
        used = peek_json(Path(path)).get("extensionsUsed")
    except FileFormatError:
        return False
    return isinstance(used, list) and EXTENSION in used


@any_numbers
def read_gaussians(path: Path | str, *, drop_nan: bool = False) -> GaussianScene:
    """Read all Gaussians of the file's scene as one, each primitive transformed by its nodes.

    Args:
        path: The file.
        drop_nan: Drop Gaussians that are not finite or have a rotation of length zero instead of raising an error.

    Raises:
        MissingFileError: The file, or a buffer next to it, does not exist.
        FileFormatError: It is damaged, has no Gaussians, needs an unknown extension, or a node shears.
    """
    path = Path(path)
    gltf = Gltf(path)
    needed = gltf.content.get("extensionsRequired", [])
    if unknown := [name for name in needed if name not in _KNOWN] if isinstance(needed, list) else ["?"]:
        raise FileFormatError(path, f"needs {', '.join(map(str, unknown[:5]))}, which is not read", "extensionsRequired")
    parts, found = [], _primitives(gltf)
    check_size(path, sum(_least_bytes(gltf, primitive) for _, primitive, _ in found), gltf.num_bytes, "nodes")
    for matrix, primitive, where in found:
        arrays = _read_primitive(gltf, primitive, where)
        parts.append(_moved(path, arrays, matrix, where, drop_nan=drop_nan))
    if not parts:
        raise FileFormatError(path, f"holds no primitive with {EXTENSION} in its scene", "meshes")
    return parts[0] if len(parts) == 1 else _merged(path, parts)


def write_gaussians(path: Path | str, scene: GaussianScene) -> None:
    """Write a .glb, or a .gltf with its buffer inside; what it cannot store (labels, degree 4) is logged as one warning.

    The mode and antialiasing are in the primitive's extras, which only vision3d reads. `COLOR_0` is for programs that show
    points.

    Raises:
        InputError: The scene is empty or has values that are not finite.
    """
    built(scene, path).write(path)


def built(scene: GaussianScene, name: Path | str) -> Builder:
    """The builder used by `write_gaussians` for the file `name`, rotated by `AXES`; the Gaussians are node 0.

    Raises:
        InputError: As for `write_gaussians`.
    """
    losses = Losses(Path(name), scene, max_degree=_MAX_DEGREE, modes=True, antialiased=True)
    losses.clipped("log scale", arrays_of(scene, 0).log_scales, -87, 88, " log m")
    arrays = arrays_of(scene, _MAX_DEGREE).turned(AXES)
    opacities = opacities_of(arrays.opacity_logits)
    display = np.clip(arrays.sh[:, 0] * SH0 + 0.5, 0, 1)
    columns: dict[str, np.ndarray] = {
        "POSITION": arrays.means,
        "COLOR_0": np.concatenate([to_bytes(srgb_to_linear(display) * 255), to_bytes(opacities * 255)[:, None]], 1),
        f"{EXTENSION}:ROTATION": arrays.quats[:, [1, 2, 3, 0]],
        f"{EXTENSION}:SCALE": np.exp(np.clip(arrays.log_scales, -87, 88)),
        f"{EXTENSION}:OPACITY": opacities[:, None],
    }
    degree = round(arrays.sh.shape[1] ** 0.5) - 1
    for index, name in enumerate(_sh_names(degree)):
        columns[name] = arrays.sh[:, index]
    builder, attributes = Builder(), {}
    for name, values in columns.items():
        attributes[name] = builder.array(values if values.dtype == np.uint8 else values.astype("<f4"))
    extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    extension |= {"projection": "perspective", "sortingMethod": "cameraDistance"}
    primitive = {
        "mode": 0,
        "attributes": attributes,
        "extensions": {EXTENSION: extension},
        "extras": {"vision3d": {"mode": scene.mode, "antialiased": scene.antialiased}},
    }
    builder.content["extensionsUsed"] = [EXTENSION]
    builder.append("meshes", {"primitives": [primitive]})
    builder.append("nodes", {"mesh": 0})
    builder.append("scenes", {"nodes": [0]})
    builder.content["scene"] = 0
    losses.log()
    return builder


def _sh_names(degree: int) -> list[str]:
    return [f"{EXTENSION}:SH_DEGREE_{l}_COEF_{m}" for l in range(degree + 1) for m in range(2 * l + 1)]


def _primitives(gltf: Gltf) -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """The Gaussian primitives of the file's scene: matrix to the world (4, 4), JSON, place for messages."""
    found = []
    for index, matrix in gltf.placed_meshes():
        for number, primitive in enumerate(gltf.primitives(index)):
            extensions = primitive.get("extensions", {})
            if isinstance(extensions, dict) and EXTENSION in extensions:
                found.append((matrix, primitive, f"meshes[{index}].primitives[{number}]"))
    return found


def _least_bytes(gltf: Gltf, primitive: dict[str, Any]) -> int:
    """Unpacked size of a primitive, from the count of its centers; 0 if that is invalid."""
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict) or "POSITION" not in attributes:
        return 0
    count = gltf.item("accessors", attributes["POSITION"]).get("count")
    return 4 * 14 * count if type(count) is int and count > 0 else 0


def _read_primitive(gltf: Gltf, primitive: dict[str, Any], where: str) -> SplatArrays:
    path, attributes = gltf.path, primitive.get("attributes")
    extension = primitive["extensions"][EXTENSION]
    if not isinstance(attributes, dict) or not isinstance(extension, dict):
        raise FileFormatError(path, f"has no attributes, or {EXTENSION} is not an object", where)
    for key, known in (("kernel", "ellipse"), ("colorSpace", "srgb_rec709_display")):
        if extension.get(key, known) != known:
            logger.warning("%s at %s: %s %s is read as %s", path, where, key, str(extension[key])[:40], known)
    degree = 0
    while degree < _MAX_DEGREE and f"{EXTENSION}:SH_DEGREE_{degree + 1}_COEF_0" in attributes:
        degree += 1
    plan = [("POSITION", 3, _POSITION), (f"{EXTENSION}:ROTATION", 4, _ROTATION), (f"{EXTENSION}:SCALE", 3, _SCALE)]
    plan += [(f"{EXTENSION}:OPACITY", 1, _OPACITY), *((name, 3, _FLOAT) for name in _sh_names(degree))]
    if missing := [name for name, _, _ in plan if name not in attributes]:
        raise FileFormatError(path, f"lacks {', '.join(missing)}", where)
    columns = [gltf.array(attributes[name], (width,), kinds).astype(np.float32) for name, width, kinds in plan]
    if not len(columns[0]):
        raise FileFormatError(path, "has 0 rows", where)
    if len({len(values) for values in columns}) > 1:
        raise FileFormatError(path, f"has attributes of {sorted({len(values) for values in columns})} rows", where)
    means, rotations, scales, opacities, *sh = columns
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(opacities[:, 0] / (1 - opacities[:, 0]))
    logits = np.where(np.isinf(logits), np.copysign(np.float32(OPAQUE_LOGIT), logits), logits)
    extras = primitive.get("extras", {})
    ours = extras.get("vision3d", {}) if isinstance(extras, dict) else {}
    mode = ours.get("mode") if isinstance(ours, dict) else None
    return SplatArrays(
        means,
        rotations[:, [3, 0, 1, 2]],
        logs_of_scales(scales),
        logits,
        np.stack(sh, 1),
        mode if mode in ("3dgs", "2dgs", "flat") else "3dgs",
        isinstance(ours, dict) and ours.get("antialiased") is True,
    )


def _moved(path: Path, arrays: SplatArrays, matrix: np.ndarray, where: str, *, drop_nan: bool) -> GaussianScene:
    """Convert to our axes and apply the matrix of its node, which is in glTF axes."""
    scene = arrays.turned(AXES).to_scene(path, drop_nan=drop_nan)
    if np.array_equal(matrix, np.eye(4)):
        return scene
    turn = np.diag([*AXES, 1.0])
    try:
        return scene.transform(torch.from_numpy(turn @ matrix @ turn)).validate()
    except InputError as error:
        raise FileFormatError(path, f"cannot be transformed by its nodes ({error})", where) from error


def _merged(path: Path, parts: list[GaussianScene]) -> GaussianScene:
    if len({(part.mode, part.antialiased) for part in parts}) > 1:
        logger.warning("%s: its parts have different modes; all are read as 3dgs", path)
        parts = [dataclasses.replace(part, mode="3dgs", antialiased=False) for part in parts]
    return parts[0].merge(*parts[1:])
