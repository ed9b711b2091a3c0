"""bufferViews of glTF files that are compressed with EXT_meshopt_compression, unpacked with meshopt (extra `meshopt`).

Source: Khronos, EXT_meshopt_compression; KHR_meshopt_compression has the same properties.
"""

from types import ModuleType
from typing import Any

from vision3d.core.errors import FileFormatError, MissingDependencyError
from vision3d.io.gltf_container import Gltf

EXTENSIONS = ("EXT_meshopt_compression", "KHR_meshopt_compression")
_MODES = ("ATTRIBUTES", "TRIANGLES", "INDICES")
_FILTERS = {"NONE": (), "OCTAHEDRAL": (4, 8), "QUATERNION": (8,), "EXPONENTIAL": (), "COLOR": (4, 8)}  # permitted strides
_MAX_STRIDE = 256


def unpack(gltf: Gltf) -> None:
    """Decode all compressed bufferViews: afterwards `Gltf.view` gives their bytes.

    Raises:
        FileFormatError: One is damaged.
        MissingDependencyError: meshopt is not installed, and the file has no uncompressed copy.
    """
    for index, view in enumerate(gltf.items("bufferViews")):
        extensions = view.get("extensions")
        if not isinstance(extensions, dict):
            continue
        for name in EXTENSIONS:
            if name not in extensions or index in gltf.unpacked_views:
                continue
            try:
                meshopt = _meshopt(name)
            except MissingDependencyError:
                required = gltf.content.get("extensionsRequired", [])
                if isinstance(required, list) and name in required:
                    raise
                return
            gltf.unpacked_views[index] = _decoded(gltf, meshopt, extensions[name], name, f"bufferViews[{index}]")


def _decoded(gltf: Gltf, meshopt: ModuleType, entry: Any, name: str, where: str) -> tuple[bytes, int]:
    """The bytes of a bufferView and its stride."""
    if not isinstance(entry, dict):
        raise FileFormatError(gltf.path, f"{name} is not an object", where)
    mode, kind = entry.get("mode"), entry.get("filter", "NONE")
    if mode not in _MODES:
        raise FileFormatError(gltf.path, f"{name} has mode {str(mode)[:40]!r}, want {', '.join(_MODES)}", where)
    if kind not in _FILTERS or (kind != "NONE" and mode != "ATTRIBUTES"):
        raise FileFormatError(gltf.path, f"{name} has filter {str(kind)[:40]!r}, which does not exist for {mode}", where)
    count = gltf.whole(entry, "count", where, high=2**32)
    stride = gltf.whole(entry, "byteStride", where, high=_MAX_STRIDE)
    strides = (2, 4) if mode != "ATTRIBUTES" else _FILTERS[kind] or tuple(range(4, _MAX_STRIDE + 1, 4))
    if stride not in strides or (mode == "TRIANGLES" and count % 3):
        raise FileFormatError(gltf.path, f"{name} has {count} rows of {stride} bytes, which {mode} cannot have", where)
    data = gltf.slice(entry, where)
    gltf.allot(stride * count, where)
    try:
        rows = meshopt.decode_gltf_buffer(bytes(data), count, stride, mode, kind)
    except Exception as error:  # its C++ errors have no common class
        raise FileFormatError(gltf.path, f"meshopt data are damaged ({str(error)[:80]!a})", where) from error
    return rows.tobytes(), stride if mode == "ATTRIBUTES" else 0


def _meshopt(name: str) -> ModuleType:
    try:
        import meshopt
    except ImportError as error:
        raise MissingDependencyError("meshopt", "meshopt", f"glTF files with {name}") from error
    return meshopt
