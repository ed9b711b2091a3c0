"""The container of glTF 2.0 files (.glb, .gltf): JSON, buffers and accessors, every number checked before it is used."""

import base64
import json
import struct
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.errors import FileFormatError, MissingFileError
from vision3d.io.splat_arrays import read_bytes, size_limit

_JSON, _BIN = 0x4E4F534A, 0x004E4942
_TYPES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}


class Gltf:
    """A glTF file: its JSON as `content`, and the numbers that it refers to."""

    def __init__(self, path: Path) -> None:
        """Read the JSON and the buffers.

        Raises:
            MissingFileError: There is no such file, or a buffer beside it is missing.
            FileFormatError: It is damaged, or another version than 2.
        """
        self.path = path
        data = read_bytes(path, "a glTF file")
        text, self.binary = _chunks(path, data) if data[:4] == b"glTF" else (data, None)
        self.content = _object(path, text)
        version = self.section("asset").get("version")
        if not isinstance(version, str) or not version.startswith("2."):
            raise FileFormatError(path, f"has glTF version {version!r}; 2 is read", "asset.version")
        self.num_bytes, self.allotted = len(data), 0
        self._buffers: dict[int, bytes] = {}

    def section(self, key: str) -> dict[str, Any]:
        """An object at the top level, empty where there is none."""
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            raise FileFormatError(self.path, "is no object", key)
        return value

    def item(self, kind: str, index: object) -> dict[str, Any]:
        """An object of a list at the top level."""
        values = self.content.get(kind, [])
        if not isinstance(values, list) or type(index) is not int or not 0 <= index < len(values):
            raise FileFormatError(self.path, f"got {index!r}, which is not in the file", kind)
        if not isinstance(values[index], dict):
            raise FileFormatError(self.path, "is no object", f"{kind}[{index}]")
        return values[index]

    def whole(self, values: dict[str, Any], key: str, where: str, default: int | None = None, high: int = 2**40) -> int:
        """A whole number from 0 to `high`."""
        value = values.get(key, default)
        if type(value) is not int or not 0 <= value <= high:
            raise FileFormatError(self.path, f"{key} is {str(value)[:40]}, want a whole number from 0 to {high}", where)
        return value

    def accessor(self, index: object, width: int, kinds: dict[int, tuple[bool, ...]]) -> np.ndarray:
        """The numbers (N, width) of an accessor as float32, normalised where it says so.

        Args:
            index: Place in the list of accessors.
            width: Components of a row that are wanted.
            kinds: Component types that are allowed, and whether they may be normalised.
        """
        where = f"accessors[{index}]"
        values = self.item("accessors", index)
        count = self.whole(values, "count", where, high=2**32)
        kind, is_normalized = values.get("componentType"), values.get("normalized", False)
        if type(kind) is not int or is_normalized not in kinds.get(kind, ()) or _TYPES.get(str(values.get("type"))) != width:
            text = f"has type {values.get('type')!r} of {kind!r}{' normalised' if is_normalized else ''}"
            raise FileFormatError(self.path, f"{text}, which is not allowed here", where)
        if "sparse" in values or "bufferView" not in values:
            raise FileFormatError(self.path, "is sparse or without a bufferView, which is not read", where)
        dtype = np.dtype(_COMPONENTS[kind])
        data, offset, step = self._view(values["bufferView"], dtype.itemsize * width)
        offset += self.whole(values, "byteOffset", where, 0)
        if count == 0:
            raise FileFormatError(self.path, "has 0 rows", where)
        end = offset + (count - 1) * step + dtype.itemsize * width
        if end > len(data):
            text = f"ends at byte {end} of its bufferView, which has {len(data)}"
            raise FileFormatError(self.path, text, where)
        self.allot(4 * count * width, where)
        raw = np.ndarray((count, width), dtype, data, offset, (step, dtype.itemsize))
        result = raw.astype(np.float32)
        if is_normalized:
            result = np.maximum(result / np.float32(np.iinfo(dtype).max), -1)
        return result

    def allot(self, num_bytes: int, where: str) -> None:
        """Count what is unpacked (accessors may share bytes, and meshes be there many times) before it is."""
        self.allotted += num_bytes
        if self.allotted > size_limit(self.num_bytes):
            text = f"unpacks to {self.allotted} bytes or more, out of {self.num_bytes}"
            raise FileFormatError(self.path, f"{text}; want at most {size_limit(self.num_bytes)}", where)

    def _view(self, index: object, row: int) -> tuple[memoryview, int, int]:
        """Bytes of a bufferView, 0, and its step, for rows of so many bytes."""
        view, where = self.item("bufferViews", index), f"bufferViews[{index}]"
        buffer = self._buffer(view.get("buffer"))
        start, length = self.whole(view, "byteOffset", where, 0), self.whole(view, "byteLength", where)
        step = self.whole(view, "byteStride", where, row, 252)
        if start + length > len(buffer):
            raise FileFormatError(self.path, f"ends at byte {start + length} of its buffer, which has {len(buffer)}", where)
        if step < row:
            raise FileFormatError(self.path, f"byteStride is {step}, want at least {row}", where)
        return memoryview(buffer)[start : start + length], 0, step

    def _buffer(self, index: object) -> bytes:
        buffer, where = self.item("buffers", index), f"buffers[{index}]"
        assert isinstance(index, int)
        if index in self._buffers:
            return self._buffers[index]
        uri = buffer.get("uri")
        if uri is None:
            if index != 0 or self.binary is None:
                raise FileFormatError(self.path, "has neither a uri nor a binary chunk", where)
            data = self.binary
        elif not isinstance(uri, str):
            raise FileFormatError(self.path, "uri is no text", where)
        elif uri.startswith("data:"):
            try:
                data = base64.b64decode(uri.partition("base64,")[2], validate=True)
            except ValueError as error:
                raise FileFormatError(self.path, f"uri is no base64 ({error})", where) from error
        else:
            data = self._beside(uri, where)
            self.num_bytes += len(data)
        length = self.whole(buffer, "byteLength", where)
        if length > len(data):
            raise FileFormatError(self.path, f"is cut off: it has {len(data)} of {length} bytes", where)
        self._buffers[index] = data
        return data

    def _beside(self, uri: str, where: str) -> bytes:
        name = urllib.parse.unquote(uri)
        if ":" in name or "\\" in name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise FileFormatError(self.path, f"uri {uri[:60]!r} leads out of the folder", where)
        try:
            file = self.path.parent / name
            if not file.is_file():
                raise MissingFileError(file, f"a buffer of {self.path.name}")
            return file.read_bytes()
        except (OSError, ValueError) as error:
            if isinstance(error, MissingFileError):
                raise
            raise FileFormatError(self.path, f"uri {uri[:60]!r} cannot be read", where) from error


def peek_json(path: Path) -> dict[str, Any]:
    """The JSON of a glTF file without its buffers.

    Raises:
        MissingFileError, FileFormatError: As `Gltf`.
    """
    data = read_bytes(path, "a glTF file")
    return _object(path, _chunks(path, data)[0] if data[:4] == b"glTF" else data)


def glb_bytes(content: dict[str, Any], binary: bytes) -> bytes:
    """A .glb of a JSON and its one buffer."""
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary))
    return b"".join([head, struct.pack("<II", len(text), _JSON), text, struct.pack("<II", len(binary), _BIN), binary])


def gltf_bytes(content: dict[str, Any], binary: bytes) -> bytes:
    """A .gltf of a JSON and its one buffer, which becomes part of it."""
    uri = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    return json.dumps({**content, "buffers": [{"byteLength": len(binary), "uri": uri}]}).encode()


def _chunks(path: Path, data: bytes) -> tuple[bytes, bytes | None]:
    if len(data) < 20:
        raise FileFormatError(path, "header is cut off", len(data))
    version, length, size, kind = struct.unpack_from("<4I", data, 4)
    if version != 2:
        raise FileFormatError(path, f"has .glb version {version}; 2 is read", 4)
    if length > len(data):
        raise FileFormatError(path, f"is cut off: it has {len(data)} of {length} bytes", len(data))
    if kind != _JSON or size > len(data) - 20:
        raise FileFormatError(path, f"begins with a chunk of kind {kind:#x} and {size} bytes, want JSON within the file", 12)
    place, binary = 20 + size, None
    while binary is None and place + 8 <= length:
        size, kind = struct.unpack_from("<2I", data, place)
        if size > len(data) - place - 8:
            raise FileFormatError(path, f"has a chunk of {size} bytes, with {len(data) - place - 8} left", place)
        if kind == _BIN:
            binary = data[place + 8 : place + 8 + size]
        place += 8 + size
    return data[20 : 20 + struct.unpack_from("<I", data, 12)[0]], binary


def _object(path: Path, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"is no glTF file (its JSON is not understood: {str(error)[:80]})", 0) from error
    if not isinstance(content, dict):
        raise FileFormatError(path, "is no glTF file (its JSON is no object)", 0)
    return content
