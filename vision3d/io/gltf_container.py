"""The container of glTF 2.0 files (.glb, .gltf): JSON, buffers, accessors and nodes, with every number validated.

Source: Khronos glTF 2.0 specification, sections 3.5 (nodes), 3.6 (buffers, accessors) and 4 (GLB).
"""

import base64
import logging
import struct
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.core.inside import inside
from vision3d.core.plain import from_json
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.io.guards import read_bytes, size_limit

logger = logging.getLogger("vision3d")

MAGIC, JSON_CHUNK, BINARY_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942
"""First bytes of a .glb, and the types of its chunks."""
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_ANY = dict.fromkeys(COMPONENTS, (False, True))
_MAX_DEPTH = 100  # depth of the node tree


class Gltf:
    """A glTF file: its JSON as `content`, and the data that it refers to."""

    def __init__(self, path: Path | str) -> None:
        """Read the JSON and the binary chunk.

        Raises:
            MissingFileError: The file does not exist.
            FileFormatError: It is damaged, or not version 2.
        """
        self.path = Path(path)
        data = read_bytes(self.path, "a glTF file")
        text, self.binary = _chunks(self.path, data) if data[:4] == MAGIC else (data, None)
        self.content = _object(self.path, text)
        asset = self.content.get("asset", {})
        version = asset.get("version") if isinstance(asset, dict) else None
        if not isinstance(version, str) or not version.startswith("2."):
            raise FileFormatError(self.path, f"has glTF version {version!r}; 2 is read", "asset.version")
        self.num_bytes, self.allotted = len(data), 0
        self._buffers: dict[int, bytes] = {}
        self._lists: dict[str, list[dict[str, Any]]] = {}
        self._notes: set[str] = set()
        self.unpacked: dict[int, np.ndarray] = {}  # rows of accessors that are stored in compressed form
        self.unpacked_views: dict[int, tuple[bytes, int]] = {}  # bytes and stride of bufferViews that are

    def note(self, text: str) -> None:
        """Log a warning about what is not read, once."""
        if text not in self._notes:
            self._notes.add(text)
            logger.warning("%s", text)

    def items(self, kind: str) -> list[dict[str, Any]]:
        """A top-level list, empty if missing."""
        if kind not in self._lists:  # checked once, since a file with many nodes would take quadratic time
            found = self.content.get(kind, [])
            if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
                raise FileFormatError(self.path, "is not a list of objects", kind)
            self._lists[kind] = found
        return self._lists[kind]

    def item(self, kind: str, index: object) -> dict[str, Any]:
        """An entry of a top-level list."""
        found = self.items(kind)
        if type(index) is not int or not 0 <= index < len(found):
            raise FileFormatError(self.path, f"names {kind}[{str(index)[:40]}], but there are {len(found)} of them", kind)
        return found[index]

    def whole(self, values: dict[str, Any], key: str, where: str, default: int | None = None, high: int = 2**40) -> int:
        """An integer from 0 to `high`."""
        value = values.get(key, default)
        if type(value) is not int or not 0 <= value <= high:
            raise FileFormatError(self.path, f"{key} is {str(value)[:40]}, want a whole number from 0 to {high}", where)
        return value

    def array(self, index: object, widths: tuple[int, ...], kinds: Mapping[int, tuple[bool, ...]] = _ANY) -> np.ndarray:
        """The numbers (N, width) of an accessor as stored; float32 if they are normalized.

        Args:
            index: Index in the list of accessors.
            widths: Permitted numbers of components per row.
            kinds: Permitted component types, and whether they may be normalized.
        """
        where = f"accessors[{index}]"
        values = self.item("accessors", index)
        count = self.whole(values, "count", where, high=2**32)
        kind, is_normalized = values.get("componentType"), values.get("normalized", False)
        width = WIDTHS.get(str(values.get("type")))
        if type(kind) is not int or is_normalized not in kinds.get(kind, ()) or width not in widths:
            text = f"has type {values.get('type')!r} of {kind!r}{' normalized' if is_normalized else ''}"
            raise FileFormatError(self.path, f"{text}, which is not allowed here", where)
        dtype = np.dtype(COMPONENTS[kind])
        if index in self.unpacked:
            result = self.unpacked[index]  # pyright: ignore[reportArgumentType]
            if result.shape != (count, width):
                raise FileFormatError(self.path, f"has compressed rows {result.shape}, want {(count, width)}", where)
            result = result.astype(dtype)
        elif "bufferView" in values:
            result = self._rows(values, dtype, count, width, where)
        elif "sparse" in values:
            self.allot(max(4, dtype.itemsize) * count * width, where)
            result = np.zeros((count, width), dtype)
        else:
            raise FileFormatError(self.path, "has neither a bufferView nor sparse rows", where)
        if "sparse" in values:
            self._overwrite(result, values["sparse"], where)
        if is_normalized and dtype.kind in "iu":
            result = np.maximum(result.astype(np.float32) / np.float32(np.iinfo(dtype).max), np.float32(-1))
        return result

    def _rows(self, values: dict[str, Any], dtype: np.dtype, count: int, width: int, where: str) -> np.ndarray:
        """A copy of `count` rows that start in a bufferView."""
        row = dtype.itemsize * width
        data, step = self.view(values.get("bufferView"), row)
        offset = self.whole(values, "byteOffset", where, 0)
        start = offset + self.whole(self.item("bufferViews", values.get("bufferView")), "byteOffset", where, 0)
        if start % dtype.itemsize or step % dtype.itemsize:
            text = f"begins at byte {start} of its buffer in steps of {step}, want multiples of {dtype.itemsize}"
            self.note(f"{self.path} at {where}: {text}; read as it is")
        end = offset + (count - 1) * step + row if count else offset
        if end > len(data):
            raise FileFormatError(self.path, f"ends at byte {end} of its bufferView, which has {len(data)}", where)
        self.allot(max(4, dtype.itemsize) * count * width, where)
        if not count:
            return np.empty((0, width), dtype)
        return np.ndarray((count, width), dtype, data, offset, (step, dtype.itemsize)).copy()

    def _overwrite(self, rows: np.ndarray, sparse: object, where: str) -> None:
        """Replace the rows that a sparse accessor stores separately."""
        found = [sparse.get(key) for key in ("indices", "values")] if isinstance(sparse, dict) else []
        parts = [part for part in found if isinstance(part, dict)]
        if not isinstance(sparse, dict) or len(parts) < 2:
            raise FileFormatError(self.path, "sparse has no indices and values", where)
        count = self.whole(sparse, "count", where, high=len(rows))
        kind = parts[0].get("componentType")
        if type(kind) is not int or kind not in (5121, 5123, 5125):
            raise FileFormatError(self.path, f"sparse has indices of {str(kind)[:40]}, want 5121, 5123 or 5125", where)
        places = self._rows(parts[0], np.dtype(COMPONENTS[kind]), count, 1, where)[:, 0].astype(np.int64)
        if count and places.max() >= len(rows):
            raise FileFormatError(self.path, f"sparse names row {places.max()}, but there are {len(rows)}", where)
        rows[places] = self._rows(parts[1], rows.dtype, count, rows.shape[1], where)

    def allot(self, num_bytes: int, where: str) -> None:
        """Count unpacked bytes before unpacking (accessors may share bytes, and meshes may have many instances)."""
        self.allotted += num_bytes
        if self.allotted > size_limit(self.num_bytes):
            text = f"unpacks to {self.allotted} bytes or more, out of {self.num_bytes}"
            raise FileFormatError(self.path, f"{text}; want at most {size_limit(self.num_bytes)}", where)

    def view(self, index: object, row: int = 0) -> tuple[memoryview, int]:
        """Bytes of a bufferView and its stride, for rows of this many bytes."""
        view, where = self.item("bufferViews", index), f"bufferViews[{index}]"
        if index in self.unpacked_views:
            data, step = self.unpacked_views[index]  # pyright: ignore[reportArgumentType]
            data, step = memoryview(data), step or row
        else:
            data, step = self.slice(view, where), self.whole(view, "byteStride", where, row, 252)
        if step < row:
            raise FileFormatError(self.path, f"byteStride is {step}, want at least {row}", where)
        return data, step

    def slice(self, values: dict[str, Any], where: str) -> memoryview:
        """The bytes of the buffer, offset and length in an object."""
        buffer = self._buffer(values.get("buffer"))
        start, length = self.whole(values, "byteOffset", where, 0), self.whole(values, "byteLength", where)
        if start + length > len(buffer):
            raise FileFormatError(self.path, f"ends at byte {start + length} of its buffer, which has {len(buffer)}", where)
        return memoryview(buffer)[start : start + length]

    def resource(self, uri: object, what: str) -> bytes:
        """The bytes of a data: URI, or of a file in the same folder.

        Raises:
            MissingFileError: The file does not exist.
            FileFormatError: It is not a valid URI or base64, or is outside the folder.
        """
        if not isinstance(uri, str):
            raise FileFormatError(self.path, "has neither bytes nor a uri", what)
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition("base64,")[2], validate=True)
            except ValueError as error:
                raise FileFormatError(self.path, f"uri is not base64 ({error})", what) from error
        file = inside(self.path, urllib.parse.unquote(uri))
        if not file.is_file():
            raise MissingFileError(file, f"the {what} that {self.path.name} names")
        data = file.read_bytes()
        self.num_bytes += len(data)
        return data

    def tree(self) -> list[tuple[int, int]]:
        """The nodes of the file's scene, parents first: the index of each, and the position of its parent in this list or -1.

        Without scenes the roots are the nodes without a parent.
        """
        nodes = self.items("nodes")
        children = [self._indices(node, "children", f"nodes[{i}]") for i, node in enumerate(nodes)]
        below = {child for indices in children for child in indices}
        roots = [i for i in range(len(nodes)) if i not in below]
        if self.items("scenes"):
            roots = self._indices(self.item("scenes", self.content.get("scene", 0)), "nodes", "scenes")
        found: list[tuple[int, int]] = []
        waiting, seen = [(root, -1, 0) for root in reversed(roots)], set()
        while waiting:
            index, parent, depth = waiting.pop()
            self.item("nodes", index)
            if depth > _MAX_DEPTH or index in seen:
                where = f"nodes[{index}]"
                raise FileFormatError(self.path, f"is met twice or is deeper than {_MAX_DEPTH} nodes; want a tree", where)
            seen.add(index)
            waiting += [(child, len(found), depth + 1) for child in reversed(children[index])]
            found.append((index, parent))
        return found

    def worlds(self) -> dict[int, np.ndarray]:
        """The nodes of the file's scene, parents before children, with their matrices to the world (4, 4)."""
        found, matrices = {}, []
        for index, parent in self.tree():
            local = self._matrix(self.item("nodes", index), f"nodes[{index}]")
            matrices.append(local if parent < 0 else matrices[parent] @ local)
            found[index] = matrices[-1]
        return found

    def placed_meshes(self) -> list[tuple[int, np.ndarray]]:
        """Each mesh of the file's scene: its index and its matrix to the world (4, 4).

        Without nodes, meshes are not transformed.
        """
        if not self.items("nodes"):
            return [(i, np.eye(4)) for i in range(len(self.items("meshes")))]
        nodes = [(index, self.item("nodes", index), world) for index, world in self.worlds().items()]
        return [(self.whole(node, "mesh", f"nodes[{i}]"), world) for i, node, world in nodes if "mesh" in node]

    def transform(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Translation, rotation (wxyz, unit length) and scale of a node, relative to its parent.

        Raises:
            FileFormatError: It is a matrix that shears, reflects or is singular.
        """
        node, where = self.item("nodes", index), f"nodes[{index}]"
        matrix = self._matrix(node, where)
        if "matrix" not in node:
            quat = self._numbers(node, "rotation", [0.0, 0.0, 0.0, 1.0], where)[[3, 0, 1, 2]]
            return matrix[:3, 3], quat / np.linalg.norm(quat), self._numbers(node, "scale", [1.0] * 3, where)
        scale = np.linalg.norm(matrix[:3, :3], axis=0)
        rotmat = matrix[:3, :3] / np.where(scale > 0, scale, 1)
        if np.abs(rotmat.T @ rotmat - np.eye(3)).max() > 1e-4 or np.linalg.det(rotmat) < 0:
            raise FileFormatError(
                self.path, "matrix has shear or a reflection or is singular; want a rotation and a scale", where
            )
        return matrix[:3, 3], rotmat_to_quat(torch.from_numpy(rotmat)).numpy(), scale

    def primitives(self, mesh: int) -> list[dict[str, Any]]:
        """The primitives of a mesh."""
        found = self.item("meshes", mesh).get("primitives", [])
        if not isinstance(found, list) or not all(isinstance(primitive, dict) for primitive in found):
            raise FileFormatError(self.path, "primitives is not a list of objects", f"meshes[{mesh}]")
        return found

    def _buffer(self, index: object) -> bytes:
        buffer, where = self.item("buffers", index), f"buffers[{index}]"
        assert isinstance(index, int)
        if index not in self._buffers:
            is_chunk = index == 0 and self.binary is not None and "uri" not in buffer
            data = self.binary if is_chunk and self.binary is not None else self.resource(buffer.get("uri"), where)
            length = self.whole(buffer, "byteLength", where)
            if length > len(data):
                raise FileFormatError(self.path, f"is truncated: it has {len(data)} of {length} bytes", where)
            self._buffers[index] = data
        return self._buffers[index]

    def _matrix(self, node: dict[str, Any], where: str) -> np.ndarray:
        if "matrix" in node:
            return self._numbers(node, "matrix", [0.0] * 16, where).reshape(4, 4).T  # column by column
        quat = self._numbers(node, "rotation", [0.0, 0.0, 0.0, 1.0], where)[[3, 0, 1, 2]]
        if not quat.any():
            raise FileFormatError(self.path, "rotation has length zero", where)
        rotation = quat_to_rotmat(torch.from_numpy(quat)).numpy() if "rotation" in node else np.eye(3)
        matrix = np.eye(4)
        matrix[:3, :3] = rotation * self._numbers(node, "scale", [1.0] * 3, where)
        matrix[:3, 3] = self._numbers(node, "translation", [0.0] * 3, where)
        return matrix

    def _numbers(self, node: dict[str, Any], key: str, default: list[float], where: str) -> np.ndarray:
        values = node.get(key, default)
        if not isinstance(values, list) or len(values) != len(default):
            raise FileFormatError(self.path, f"{key} is not a list of {len(default)} numbers", where)
        if not all(type(v) in (int, float) and abs(v) < 1e30 for v in values):
            raise FileFormatError(self.path, f"{key} contains values that are not finite numbers", where)
        return np.array(values, np.float64)

    def _indices(self, entry: dict[str, Any], key: str, where: str) -> list[int]:
        found = entry.get(key, [])
        if not isinstance(found, list) or not all(type(i) is int for i in found):
            raise FileFormatError(self.path, f"{key} is not a list of indices", where)
        return found


def peek_json(path: Path) -> dict[str, Any]:
    """The JSON of a glTF file without its buffers.

    Raises:
        MissingFileError, FileFormatError: As for `Gltf`.
    """
    data = read_bytes(path, "a glTF file")
    return _object(path, _chunks(path, data)[0] if data[:4] == MAGIC else data)


def _chunks(path: Path, data: bytes) -> tuple[bytes, bytes | None]:
    if len(data) < 12:
        raise FileFormatError(path, "header is truncated", len(data))
    version, length = struct.unpack_from("<2I", data, 4)
    if version != 2:
        raise FileFormatError(path, f"has .glb version {version}; 2 is read", 4)
    if length > len(data):
        raise FileFormatError(path, f"is truncated: it has {len(data)} of {length} bytes", len(data))
    chunks: dict[int, bytes] = {}
    place = 12
    while place + 8 <= length:
        size, kind = struct.unpack_from("<2I", data, place)
        if place + 8 + size > length:
            raise FileFormatError(path, f"has a chunk of {size} bytes, with {length - place - 8} left", place)
        chunks.setdefault(kind, data[place + 8 : place + 8 + size])
        place += 8 + size
        if data[place + 4 : place + 8] != b"BIN\0":  # some programs omit the padding
            place += -size % 4
    if JSON_CHUNK not in chunks:
        raise FileFormatError(path, "has no JSON chunk", 12)
    return chunks[JSON_CHUNK], chunks.get(BINARY_CHUNK)


def _object(path: Path, text: bytes) -> dict[str, Any]:
    try:
        content = from_json(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"is not a glTF file (its JSON is damaged: {str(error)[:80]})", 0) from error
    if not isinstance(content, dict):
        raise FileFormatError(path, "is not a glTF file (its JSON is not an object)", 0)
    return content
