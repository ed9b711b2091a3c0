"""Gaussian scenes as glTF 2.0 with KHR_gaussian_splatting (release candidate of 2026), in .glb and .gltf.

A point primitive has centers, quaternions xyzw, linear scales, opacities in [0, 1] and one attribute per harmonic, in the order
and with the signs of `vision3d.geometry.spherical_harmonics`. Axes of glTF are left, up, forward: the scene is rotated by 180
degrees about z relative to a .ply, including harmonics. Meshes and other primitives are ignored.

With KHR_gaussian_splatting_compression_spz_2 the numbers of a primitive are an .spz in a bufferView, with the axes of other
.spz files; its accessors have types, counts and bounds only. Drafts called it KHR_gaussian_splatting_compression_spz.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vision3d.core.errors import FileFormatError, InputError
from vision3d.geometry.spherical_harmonics import SH0
from vision3d.io import gltf_meshopt, spz
from vision3d.io.glb import srgb_to_linear
from vision3d.io.gltf_builder import Builder
from vision3d.io.gltf_container import Gltf, peek_json
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
from vision3d.scene.gaussians import GaussianScene, SplatMode

logger = logging.getLogger(__name__)

EXTENSION = "KHR_gaussian_splatting"
SPZ = f"{EXTENSION}_compression_spz_2"
_SPZ_NAMES = (SPZ, f"{EXTENSION}_compression_spz")
AXES = (-1, -1, 1)
_FLOAT = {5126: (False,)}
_POSITION = {**_FLOAT, **dict.fromkeys((5120, 5121, 5122, 5123), (False, True))}  # including those of KHR_mesh_quantization
_ROTATION = {**_FLOAT, **dict.fromkeys((5120, 5122), (True,))}
_SCALE = {**_FLOAT, **dict.fromkeys((5121, 5123), (False, True))}
_OPACITY = {**_FLOAT, **dict.fromkeys((5121, 5123), (True,))}
_MAX_DEGREE = 3
_KNOWN = {EXTENSION, "KHR_mesh_quantization", *_SPZ_NAMES, *gltf_meshopt.EXTENSIONS}


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
    gltf_meshopt.unpack(gltf)
    parts, found = [], _primitives(gltf)
    check_size(path, sum(_least_bytes(gltf, primitive) for _, primitive, _ in found), gltf.num_bytes, "nodes")
    for matrix, primitive, where in found:
        packed = _packed(gltf, primitive, where)
        if packed is None:
            scene = _read_primitive(gltf, primitive, where).turned(AXES).to_scene(path, drop_nan=drop_nan)
        else:
            scene = dataclasses.replace(spz.from_bytes(path, packed, drop_nan=drop_nan), mode=_own(primitive)[0])
        parts.append(_moved(path, scene, matrix, where))
    if not parts:
        raise FileFormatError(path, f"holds no primitive with {EXTENSION} in its scene", "meshes")
    return parts[0] if len(parts) == 1 else _merged(path, parts)


def write_gaussians(path: Path | str, scene: GaussianScene, *, compression: Literal["none", "spz"] = "none") -> None:
    """Write a .glb, or a .gltf with its buffer inside; what it cannot store (labels, degree 4) is logged as one warning.

    With compression spz the numbers are those of an .spz of version 2, about a tenth of the size.

    The mode and antialiasing are in the primitive's extras, which only vision3d reads. `COLOR_0` is for programs that show
    points.

    Raises:
        InputError: The scene is empty or has values that are not finite.
    """
    (built if compression == "none" else _built_spz)(scene, path).write(path)


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
    _finish(builder, scene, attributes, {})
    losses.log()
    return builder


def _built_spz(scene: GaussianScene, name: Path | str) -> Builder:
    content = spz.to_bytes_of(name, scene, version=2)
    means = arrays_of(spz.from_bytes(Path(name), content), 0).turned(AXES).means
    builder = Builder()
    view, degree = builder.view(content), min(scene.sh_degree, _MAX_DEGREE)
    names = {"POSITION": "VEC3", "COLOR_0": "VEC4", f"{EXTENSION}:ROTATION": "VEC4", f"{EXTENSION}:SCALE": "VEC3"}
    names |= {f"{EXTENSION}:OPACITY": "SCALAR", **dict.fromkeys(_sh_names(degree), "VEC3")}
    attributes = {}
    for attribute, kind in names.items():
        entry = {"componentType": 5126, "count": len(means), "type": kind}
        if attribute == "POSITION":
            entry |= {"min": means.min(0).tolist(), "max": means.max(0).tolist()}
        attributes[attribute] = builder.append("accessors", entry)
    _finish(builder, scene, attributes, {"extensions": {SPZ: {"bufferView": view}}})
    builder.content["extensionsUsed"] = builder.content["extensionsRequired"] = [EXTENSION, SPZ]
    return builder


def _finish(builder: Builder, scene: GaussianScene, attributes: dict[str, int], more: dict[str, Any]) -> None:
    """Add the primitive, its mesh, node and scene."""
    extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    extension |= {"projection": "perspective", "sortingMethod": "cameraDistance"}
    primitive = {
        "mode": 0,
        "attributes": attributes,
        "extensions": {EXTENSION: extension | more},
        "extras": {"vision3d": {"mode": scene.mode, "antialiased": scene.antialiased}},
    }
    builder.content["extensionsUsed"] = [EXTENSION]
    builder.append("meshes", {"primitives": [primitive]})
    builder.append("nodes", {"mesh": 0})
    builder.append("scenes", {"nodes": [0]})
    builder.content["scene"] = 0


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


def _packed(gltf: Gltf, primitive: dict[str, Any], where: str) -> bytes | None:
    """The .spz of a compressed primitive."""
    extension = primitive["extensions"][EXTENSION]
    found = extension.get("extensions") if isinstance(extension, dict) else None
    entry = next((found[name] for name in _SPZ_NAMES if name in found), None) if isinstance(found, dict) else None
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise FileFormatError(gltf.path, "compression by spz is not an object", where)
    return bytes(gltf.view(entry.get("bufferView"))[0])


def _own(primitive: dict[str, Any]) -> tuple[SplatMode, bool]:
    """Mode and antialiasing that our files record."""
    extras = primitive.get("extras", {})
    ours = extras.get("vision3d", {}) if isinstance(extras, dict) else {}
    mode = ours.get("mode") if isinstance(ours, dict) else None
    return mode if mode in ("3dgs", "2dgs", "flat") else "3dgs", isinstance(ours, dict) and ours.get("antialiased") is True


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
    return SplatArrays(
        means,
        rotations[:, [3, 0, 1, 2]],
        logs_of_scales(scales),
        logits,
        np.stack(sh, 1),
        *_own(primitive),
    )


def _moved(path: Path, scene: GaussianScene, matrix: np.ndarray, where: str) -> GaussianScene:
    """Apply the matrix of its node, which is in glTF axes, to a scene in ours."""
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
