"""The container of binary glTF 2.0 (.glb): a JSON chunk and a binary chunk, and arrays (accessors) in it.

Source: Khronos glTF 2.0 specification, sections 3.6 (buffers, accessors) and 4 (GLB).
"""

import base64
import binascii
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import numpy as np

from vision3d.atomic import atomic_write
from vision3d.errors import FileFormatError, MissingFileError

_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963


@dataclass
class Container:
    """What a .glb file holds."""

    path: Path
    content: dict[str, Any]
    """The JSON."""
    binary: bytes

    def items(self, name: str) -> list[dict[str, Any]]:
        """A list of the top level, empty where there is none."""
        found = self.content.get(name, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise FileFormatError(self.path, f"{name!r} is no list of objects")
        return found

    def item(self, name: str, index: object) -> dict[str, Any]:
        """An entry of a list of the top level."""
        found = self.items(name)
        if type(index) is not int or not 0 <= index < len(found):
            raise FileFormatError(self.path, f"names {name}[{index!r}], but there are {len(found)} of them")
        return found[index]

    def view(self, index: object) -> tuple[bytes, int | None]:
        """The bytes of a buffer view, and its stride where it has one."""
        view = self.item("bufferViews", index)
        data = self._buffer(view.get("buffer"))
        offset, length = self.count(view, "byteOffset", 0), self.count(view, "byteLength")
        if offset + length > len(data):
            raise FileFormatError(self.path, f"bufferViews[{index}] ends at byte {offset + length}, its buffer has {len(data)}")
        stride = view.get("byteStride")
        return data[offset : offset + length], None if stride is None else self.count(view, "byteStride")

    def array(self, index: object, want: tuple[str, ...]) -> np.ndarray:
        """The values (count, width) of an accessor of one of the types in `want`; normalised integers become floats."""
        where = f"accessors[{index}]"
        entry = self.item("accessors", index)
        kind, component = entry.get("type"), entry.get("componentType")
        if kind not in want or component not in _COMPONENTS:
            problem = f"{where} has type {kind!r} of {component!r}, want {' or '.join(want)} of {sorted(_COMPONENTS)}"
            raise FileFormatError(self.path, problem)
        if "sparse" in entry:
            raise FileFormatError(self.path, f"{where} is sparse, which is not read")
        if "bufferView" not in entry:
            raise FileFormatError(self.path, f"{where} has no bufferView (compressed by an extension?), which is not read")
        data, stride = self.view(entry["bufferView"])
        dtype, width = np.dtype(_COMPONENTS[cast(int, component)]), _WIDTHS[cast(str, kind)]
        count, offset = self.count(entry, "count"), self.count(entry, "byteOffset", 0)
        row = dtype.itemsize * width
        stride = stride or row
        end = offset + stride * (count - 1) + row if count else offset
        if stride < row or end > len(data):  # known before anything of the file's count is allocated
            raise FileFormatError(self.path, f"{where} wants {count} rows of {stride} bytes, its view has {len(data)} bytes")
        if not count:
            return np.empty((0, width), dtype)
        values = np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize)).copy()
        if entry.get("normalized") and dtype.kind in "iu":
            return np.maximum(values / np.float32(np.iinfo(dtype).max), np.float32(-1)).astype(np.float32)
        return values

    def count(self, entry: dict[str, Any], key: str, default: int | None = None) -> int:
        """A whole number >= 0 of an entry."""
        value = entry.get(key, default)
        if type(value) is not int or value < 0:
            raise FileFormatError(self.path, f"{key} is {value!r}, want a whole number >= 0")
        return value

    def resource(self, uri: object, what: str) -> bytes:
        """The bytes of a data: URI, or of a file in the folder of this one."""
        if not isinstance(uri, str):
            raise FileFormatError(self.path, f"{what} has neither bytes nor a name")
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except (binascii.Error, ValueError) as error:
                raise FileFormatError(self.path, f"{what} is no base64 ({error})") from error
        path = inside(self.path, unquote(uri))
        if not path.is_file():
            raise MissingFileError(path, f"the {what} that {self.path.name} names")
        return path.read_bytes()

    def _buffer(self, index: object) -> bytes:
        entry = self.item("buffers", index)
        return self.binary if index == 0 and "uri" not in entry else self.resource(entry.get("uri"), f"buffer {index}")


@dataclass
class Builder:
    """Collects the arrays of a .glb that is about to be written."""

    content: dict[str, Any] = field(default_factory=dict)
    binary: bytearray = field(default_factory=bytearray)

    def view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes as a buffer view; returns its index."""
        self.binary += b"\0" * (-len(self.binary) % 4)
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self.binary += data
        return self.append("bufferViews", view)

    def array(self, values: np.ndarray, *, indices: bool = False) -> int:
        """Append an array (count, width) of float32 or uint32, vertex attributes or indices; returns its accessor."""
        width = 1 if values.ndim == 1 else values.shape[1]
        entry: dict[str, Any] = {
            "bufferView": self.view(values.tobytes(), _INDEX_BUFFER if indices else _VERTEX_BUFFER),
            "componentType": 5126 if values.dtype.kind == "f" else 5125,
            "count": len(values),
            "type": {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[width],
        }
        if len(values):
            entry["min"] = np.atleast_1d(values.min(0)).tolist()
            entry["max"] = np.atleast_1d(values.max(0)).tolist()
        return self.append("accessors", entry)

    def append(self, name: str, entry: dict[str, Any]) -> int:
        """Append an entry to a list of the top level; returns its index."""
        found = self.content.setdefault(name, [])
        found.append(entry)
        return len(found) - 1


def inside(index: Path, name: str) -> Path:
    """The file `name` beside `index`, which names it.

    Raises:
        FileFormatError: It is outside the folder.
    """
    path = index.parent / name
    if "\0" in name or not path.resolve().is_relative_to(index.parent.resolve()):
        raise FileFormatError(index, f"names {name!r}, which is outside its folder")
    return path


def read_container(path: Path | str) -> Container:
    """Read the two chunks of a .glb file.

    Raises:
        MissingFileError: There is no such file.
        FileFormatError: It is no .glb of version 2, is cut off, or its JSON is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a .glb file")
    data = path.read_bytes()
    if len(data) < 12:
        raise FileFormatError(path, f"is no .glb file: it has {len(data)} bytes")
    magic, version, length = struct.unpack_from("<III", data)
    if magic != _MAGIC:
        raise FileFormatError(path, "is no .glb file (it does not begin with 'glTF')")
    if version != 2:
        raise FileFormatError(path, f"is glTF version {version}; version 2 is read", 4)
    if length > len(data):
        raise FileFormatError(path, f"is cut off: it has {len(data)} of {length} bytes", len(data))
    chunks: dict[int, bytes] = {}
    place = 12
    while place + 8 <= length:
        size, kind = struct.unpack_from("<II", data, place)
        if place + 8 + size > length:
            raise FileFormatError(path, f"chunk of {size} bytes does not fit into the file", place)
        chunks.setdefault(kind, data[place + 8 : place + 8 + size])
        place += 8 + size + (-size % 4)
    if _JSON not in chunks:
        raise FileFormatError(path, "has no JSON chunk", 12)
    try:
        content = json.loads(chunks[_JSON].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"its JSON is damaged ({error})", 20) from error
    if not isinstance(content, dict):
        raise FileFormatError(path, "its JSON is no object", 20)
    return Container(path, content, chunks.get(_BIN, b""))


def write_container(path: Path | str, builder: Builder) -> None:
    """Write a .glb file, whole or not at all; `asset` and `buffers` are filled in here."""
    binary = bytes(builder.binary) + b"\0" * (-len(builder.binary) % 4)
    content = {"asset": {"version": "2.0", "generator": "vision3d"}, **builder.content}
    if binary:
        content["buffers"] = [{"byteLength": len(builder.binary)}]
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), _JSON) + text
    if binary:
        body += struct.pack("<II", len(binary), _BIN) + binary
    data = struct.pack("<III", _MAGIC, 2, 12 + len(body)) + body
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
