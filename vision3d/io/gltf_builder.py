"""Writing glTF 2.0 files (.glb, .gltf): buffers, accessors and JSON."""

import base64
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.core.atomic import atomic_write
from vision3d.io.gltf_container import BINARY_CHUNK, COMPONENTS, JSON_CHUNK, MAGIC, WIDTHS

_TYPES = {width: name for name, width in WIDTHS.items()}
_CODES = {kind: code for code, kind in COMPONENTS.items()}
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963


@dataclass
class Builder:
    """Collects the contents of a glTF file."""

    content: dict[str, Any] = field(default_factory=dict)
    binary: bytearray = field(default_factory=bytearray)
    extras: dict[str, Any] = field(default_factory=dict)
    """Extras of the asset: our own metadata, not part of glTF."""

    def view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes as a buffer view; returns its index."""
        self.binary += b"\0" * (-len(self.binary) % 4)
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.binary += data
        return self.append("bufferViews", view if target is None else {**view, "target": target})

    def array(self, values: np.ndarray, *, indices: bool = False, is_vertex: bool = True) -> int:
        """Append an array (count, width) of float32, uint16, uint32 or normalized uint8; returns its accessor.

        Args:
            values: The numbers.
            indices: Whether they are face indices.
            is_vertex: Whether there is one row per vertex; not so for keys of clips and matrices of joints.
        """
        values = np.ascontiguousarray(values)
        entry: dict[str, Any] = {
            "bufferView": self.view(values.tobytes(), _INDEX_BUFFER if indices else _VERTEX_BUFFER if is_vertex else None),
            "componentType": _CODES[values.dtype.newbyteorder("<").str.replace("|", "<")],
            "count": len(values),
            "type": _TYPES[1 if values.ndim == 1 else values.shape[1]],
        }
        if values.dtype == np.uint8:
            entry["normalized"] = True
        if len(values):
            entry["min"], entry["max"] = (np.atleast_1d(limit).tolist() for limit in (values.min(0), values.max(0)))
        return self.append("accessors", entry)

    def append(self, name: str, entry: dict[str, Any]) -> int:
        """Append an entry to a top-level list; returns its index."""
        found = self.content.setdefault(name, [])
        found.append(entry)
        return len(found) - 1

    def write(self, path: Path | str) -> None:
        """Write a .glb, or a .gltf with its buffer in the JSON, atomically."""
        path = Path(path)
        data = self.to_bytes(is_binary=path.suffix.lower() != ".gltf")
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)

    def to_bytes(self, is_binary: bool = True) -> bytes:
        """The content of a .glb, or of a .gltf with its buffer in the JSON."""
        asset = {"version": "2.0", "generator": "vision3d"} | ({"extras": self.extras} if self.extras else {})
        content = {"asset": asset, **self.content}
        buffer = {"byteLength": len(self.binary)}
        if is_binary:
            return glb_bytes({**content, "buffers": [buffer]}, bytes(self.binary))
        uri = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
        return _text({**content, "buffers": [{**buffer, "uri": uri}]})


def glb_bytes(content: dict[str, Any], binary: bytes) -> bytes:
    """A .glb from JSON and its single buffer."""
    text = _text(content)
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    head = struct.pack("<4sII", MAGIC, 2, 28 + len(text) + len(binary))
    return b"".join(
        [head, struct.pack("<II", len(text), JSON_CHUNK), text, struct.pack("<II", len(binary), BINARY_CHUNK), binary]
    )


def _text(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
