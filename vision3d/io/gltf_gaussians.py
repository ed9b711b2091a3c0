"""Gaussian scenes as glTF 2.0 with KHR_gaussian_splatting (release candidate of 2026), in .glb and .gltf.

A point primitive has centres, quaternions xyzw, linear scales, opacities in [0, 1] and an attribute for each harmonic, in the
order and with the signs of `vision3d.geometry.spherical_harmonics`. Axes of glTF are left, up, forward: the scene is turned
by 180 degrees about z against a .ply, harmonics included. Meshes and other primitives are left out.
"""

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision3d.atomic import atomic_write
from vision3d.errors import FileFormatError, InputError
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.spherical_harmonics import SH0
from vision3d.io.gltf_container import Gltf, glb_bytes, gltf_bytes, peek_json
from vision3d.io.splat_arrays import (
    OPAQUE_LOGIT,
    Losses,
    SplatArrays,
    any_numbers,
    arrays_of,
    check_size,
    logs_of_scales,
    opacities_of,
    to_bytes,
)
from vision3d.scene.gaussians import GaussianScene

logger = logging.getLogger(__name__)

EXTENSION = "KHR_gaussian_splatting"
_AXES = (-1, -1, 1)
_FLOAT = {5126: (False,)}
_POSITION = {**_FLOAT, **dict.fromkeys((5120, 5121, 5122, 5123), (False, True))}  # those of KHR_mesh_quantization, too
_ROTATION = {**_FLOAT, **dict.fromkeys((5120, 5122), (True,))}
_SCALE = {**_FLOAT, **dict.fromkeys((5121, 5123), (False, True))}
_OPACITY = {**_FLOAT, **dict.fromkeys((5121, 5123), (True,))}
_MAX_DEGREE = 3
_MAX_DEPTH = 100
_KNOWN = {EXTENSION, "KHR_mesh_quantization"}


def is_gaussian_gltf(path: Path | str) -> bool:
    """Whether a .glb or .gltf holds Gaussians; False where it is damaged, so that its reader says why."""
    try:
        used = peek_json(Path(path)).get("extensionsUsed")
    except FileFormatError:
        return False
    return isinstance(used, list) and EXTENSION in used


@any_numbers
def read_gaussians(path: Path | str, *, drop_nan: bool = False) -> GaussianScene:
    """Read all Gaussians of the file's scene as one, each primitive at the place that its nodes give it.

    Args:
        path: The file.
        drop_nan: Leave out Gaussians that are not finite or have a rotation of length zero, instead of refusing the file.

    Raises:
        MissingFileError: There is no such file, or a buffer beside it is missing.
        FileFormatError: It is damaged, holds no Gaussians, needs an extension that is not known, or a node shears.
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
        raise FileFormatError(path, f"holds no primitive with {EXTENSION} in its scene")
    return parts[0] if len(parts) == 1 else _merged(path, parts)


def write_gaussians(path: Path | str, scene: GaussianScene) -> None:
    """Write a .glb, or a .gltf with its buffer inside; what it does not hold (labels, degree 4) is logged in one line.

    The mode and antialiasing stand in the primitive's extras, where only vision3d looks for them. `COLOR_0` is there for
    programs that show points.

    Raises:
        InputError: The scene is empty or has values that are not finite.
    """
    path = Path(path)
    losses = Losses(path, scene, max_degree=_MAX_DEGREE, modes=True, antialiased=True)
    losses.clipped("log scale", arrays_of(scene, 0).log_scales, -87, 88, " log m")
    arrays = arrays_of(scene, _MAX_DEGREE).turned(_AXES)
    opacities = opacities_of(arrays.opacity_logits)
    display = np.clip(arrays.sh[:, 0] * SH0 + 0.5, 0, 1)
    linear = np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)  # of sRGB, IEC 61966-2-1
    columns: dict[str, np.ndarray] = {
        "POSITION": arrays.means,
        "COLOR_0": np.concatenate([to_bytes(linear * 255), to_bytes(opacities * 255)[:, None]], 1),
        f"{EXTENSION}:ROTATION": arrays.quats[:, [1, 2, 3, 0]],
        f"{EXTENSION}:SCALE": np.exp(np.clip(arrays.log_scales, -87, 88)),
        f"{EXTENSION}:OPACITY": opacities[:, None],
    }
    degree = round(arrays.sh.shape[1] ** 0.5) - 1
    for index, name in enumerate(_sh_names(degree)):
        columns[name] = arrays.sh[:, index]
    views, accessors, pieces, place = [], [], [], 0
    for values in columns.values():
        is_color = values.dtype == np.uint8
        data = np.ascontiguousarray(values, np.uint8 if is_color else "<f4").tobytes()
        views.append({"buffer": 0, "byteOffset": place, "byteLength": len(data), "target": 34962})
        kind = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}[values.shape[1]]
        accessor: dict[str, Any] = {"bufferView": len(views) - 1, "componentType": 5121 if is_color else 5126}
        accessors.append({**accessor, "count": len(values), "type": kind, **({"normalized": True} if is_color else {})})
        pieces.append(data)
        place += len(data)
    accessors[0] |= {"min": arrays.means.min(0).tolist(), "max": arrays.means.max(0).tolist()}
    extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    extension |= {"projection": "perspective", "sortingMethod": "cameraDistance"}
    primitive = {
        "mode": 0,
        "attributes": {name: index for index, name in enumerate(columns)},
        "extensions": {EXTENSION: extension},
        "extras": {"vision3d": {"mode": scene.mode, "antialiased": scene.antialiased}},
    }
    content = {
        "asset": {"version": "2.0", "generator": "vision3d"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": place}],
    }
    pack = gltf_bytes if path.suffix.lower() == ".gltf" else glb_bytes
    with atomic_write(path) as temporary:
        temporary.write_bytes(pack(content, b"".join(pieces)))
    losses.log()


def _sh_names(degree: int) -> list[str]:
    return [f"{EXTENSION}:SH_DEGREE_{l}_COEF_{m}" for l in range(degree + 1) for m in range(2 * l + 1)]


def _primitives(gltf: Gltf) -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """The primitives with Gaussians of the file's scene: matrix to the world (4, 4), JSON, place."""
    found: list[tuple[np.ndarray, dict[str, Any], str]] = []
    path = gltf.path
    if gltf.content.get("scenes"):
        roots = gltf.item("scenes", gltf.content.get("scene", 0)).get("nodes", [])
    else:
        roots = []
    if not isinstance(roots, list):
        raise FileFormatError(path, "nodes is no list", "scenes")
    left, visited = [(index, np.eye(4), 0) for index in roots], 0
    while left:
        index, parent, depth = left.pop(0)
        node, where = gltf.item("nodes", index), f"nodes[{index}]"
        visited += 1
        if depth > _MAX_DEPTH or visited > len(gltf.content["nodes"]):  # in a tree each is met once
            raise FileFormatError(path, f"is met twice or stands deeper than {_MAX_DEPTH} nodes; want a tree", where)
        matrix = parent @ _node_matrix(path, node, where)
        children = node.get("children", [])
        if not isinstance(children, list):
            raise FileFormatError(path, "children is no list", where)
        left += [(child, matrix, depth + 1) for child in children]
        if "mesh" not in node:
            continue
        primitives = gltf.item("meshes", node["mesh"]).get("primitives", [])
        place = f"meshes[{node['mesh']}]"
        if not isinstance(primitives, list) or not all(isinstance(primitive, dict) for primitive in primitives):
            raise FileFormatError(path, "primitives is no list of objects", place)
        for number, primitive in enumerate(primitives):
            extensions = primitive.get("extensions", {})
            if isinstance(extensions, dict) and EXTENSION in extensions:
                found.append((matrix, primitive, f"{place}.primitives[{number}]"))
    return found


def _least_bytes(gltf: Gltf, primitive: dict[str, Any]) -> int:
    """What a primitive takes once it is read, by the count of its centres; 0 where that is not right."""
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict) or "POSITION" not in attributes:
        return 0
    count = gltf.item("accessors", attributes["POSITION"]).get("count")
    return 4 * 14 * count if type(count) is int and count > 0 else 0


def _node_numbers(path: Path, node: dict[str, Any], where: str, key: str, default: list[float]) -> np.ndarray:
    values = node.get(key, default)
    if not isinstance(values, list) or len(values) != len(default):
        raise FileFormatError(path, f"{key} is no list of {len(default)} numbers", where)
    if not all(type(v) in (int, float) and abs(v) < 1e30 for v in values):
        raise FileFormatError(path, f"{key} holds something else than finite numbers", where)
    return np.array(values, np.float64)


def _node_matrix(path: Path, node: dict[str, Any], where: str) -> np.ndarray:
    numbers = functools.partial(_node_numbers, path, node, where)
    matrix = numbers("matrix", np.eye(4).ravel().tolist()).reshape(4, 4).T  # column by column
    if "matrix" in node:
        return matrix
    quat = numbers("rotation", [0.0, 0.0, 0.0, 1.0])[[3, 0, 1, 2]]
    if not quat.any():
        raise FileFormatError(path, "rotation has length zero", where)
    rotation = quat_to_rotmat(torch.from_numpy(quat)).numpy() if "rotation" in node else np.eye(3)
    matrix[:3, :3] = rotation * numbers("scale", [1.0, 1.0, 1.0])
    matrix[:3, 3] = numbers("translation", [0.0, 0.0, 0.0])
    return matrix


def _read_primitive(gltf: Gltf, primitive: dict[str, Any], where: str) -> SplatArrays:
    path, attributes = gltf.path, primitive.get("attributes")
    extension = primitive["extensions"][EXTENSION]
    if not isinstance(attributes, dict) or not isinstance(extension, dict):
        raise FileFormatError(path, f"has no attributes, or {EXTENSION} is no object", where)
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
    columns = [gltf.accessor(attributes[name], width, kinds) for name, width, kinds in plan]
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
    """In our axes, moved by the matrix of its node, which is in those of glTF."""
    scene = arrays.turned(_AXES).to_scene(path, drop_nan=drop_nan)
    if np.array_equal(matrix, np.eye(4)):
        return scene
    turn = np.diag([*_AXES, 1.0])
    try:
        return scene.transform(torch.from_numpy(turn @ matrix @ turn)).validate()
    except InputError as error:
        raise FileFormatError(path, f"cannot be moved as its nodes say ({error})", where) from error


def _merged(path: Path, parts: list[GaussianScene]) -> GaussianScene:
    if len({(part.mode, part.antialiased) for part in parts}) > 1:
        logger.warning("%s: its parts are of several modes; all are read as 3dgs", path)
        parts = [dataclasses.replace(part, mode="3dgs", antialiased=False) for part in parts]
    return parts[0].merge(*parts[1:])
