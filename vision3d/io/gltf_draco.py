"""Primitives of glTF files that are compressed with KHR_draco_mesh_compression, unpacked with DracoPy (extra `draco`)."""

from types import ModuleType
from typing import Any

import numpy as np

from vision3d.core.errors import FileFormatError, MissingDependencyError
from vision3d.io.gltf_container import Gltf

EXTENSION = "KHR_draco_mesh_compression"
_TRIANGLES = 4


def unpack(gltf: Gltf) -> None:
    """Decode all compressed primitives: afterwards `Gltf.array` gives their numbers.

    Raises:
        FileFormatError: A primitive is damaged, or its counts differ from those of its accessors.
        MissingDependencyError: DracoPy is not installed, and an array is stored only in compressed form.
    """
    for mesh in range(len(gltf.items("meshes"))):
        for number, primitive in enumerate(gltf.primitives(mesh)):
            extensions = primitive.get("extensions")
            entry = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
            if entry is not None:
                _unpack(gltf, primitive, entry, f"meshes[{mesh}].primitives[{number}]")


def _unpack(gltf: Gltf, primitive: dict[str, Any], entry: Any, where: str) -> None:
    ids = entry.get("attributes") if isinstance(entry, dict) else None
    attributes = primitive.get("attributes")
    if not isinstance(ids, dict) or not isinstance(attributes, dict) or not ids.keys() <= attributes.keys():
        raise FileFormatError(gltf.path, f"{EXTENSION} does not list attributes of its primitive", where)
    if primitive.get("mode", _TRIANGLES) != _TRIANGLES:
        raise FileFormatError(gltf.path, f"mode is {str(primitive['mode'])[:40]}; triangles (4) are read from Draco", where)
    stored = [attributes[name] for name in ids] + ([primitive["indices"]] if "indices" in primitive else [])
    try:
        draco = _draco()
    except MissingDependencyError:
        if all("bufferView" in gltf.item("accessors", index) for index in stored):
            return  # the file has an uncompressed copy
        raise
    counts = {gltf.whole(gltf.item("accessors", attributes[name]), "count", where, high=2**32) for name in ids}
    data = bytes(gltf.view(entry.get("bufferView"))[0])
    gltf.allot(16 * len(ids) * sum(counts), where)
    try:
        found = draco.decode(data)
        columns = {column["unique_id"]: np.asarray(column["data"]) for column in found.attributes}
        faces = np.asarray(found.faces)
    except Exception as error:  # its C++ errors have no common class
        raise FileFormatError(gltf.path, f"Draco data are damaged ({str(error)[:80]!a})", where) from error
    for name, number in ids.items():
        if type(number) is not int or number not in columns:
            raise FileFormatError(gltf.path, f"Draco data have no attribute {str(number)[:40]} for {name[:40]}", where)
        _replace(gltf, attributes[name], columns[number])
    if "indices" in primitive:
        _replace(gltf, primitive["indices"], faces.reshape(-1, 1))


def _replace(gltf: Gltf, index: Any, rows: np.ndarray) -> None:
    count = gltf.whole(gltf.item("accessors", index), "count", f"accessors[{index}]", high=2**32)
    if len(rows) != count:
        raise FileFormatError(gltf.path, f"has count {count}, but its Draco data have {len(rows)}", f"accessors[{index}]")
    gltf.unpacked[index] = rows


def _draco() -> ModuleType:
    try:
        import DracoPy
    except ImportError as error:
        raise MissingDependencyError("DracoPy", "draco", f"glTF files with {EXTENSION}") from error
    return DracoPy
