"""Triangles of .stl files, binary or text, with any number of `solid` blocks."""

import re
from pathlib import Path

import numpy as np

from vision3d.core.errors import FileFormatError

_HEADER, _ROW = 84, 50  # bytes
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_VERTEX = re.compile(rb"^[ \t]*vertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)", re.IGNORECASE | re.MULTILINE)


def read_triangles(path: Path, data: bytes) -> np.ndarray:
    """The corners (n, 3, 3), float32.

    Raises:
        FileFormatError: The length does not match the count, or a line of a text file is invalid.
    """
    count = int.from_bytes(data[80:_HEADER], "little")
    if len(data) == _HEADER + _ROW * count:
        return np.frombuffer(data, _TRIANGLE, count, _HEADER)["corners"].copy()
    if data.lstrip()[:5].lower() != b"solid":
        if len(data) < _HEADER:
            raise FileFormatError(path, f"is not an .stl file: it has {len(data)} bytes, and does not begin with 'solid'", 0)
        text = f"has {len(data)} bytes, want {_HEADER + _ROW * count} for the {count} triangles that it declares"
        raise FileFormatError(path, f"is damaged: {text}", 80)
    words = _VERTEX.findall(data.replace(b"\r", b"\n"))
    try:
        corners = np.array(words, np.float64).reshape(-1, 3)
    except ValueError as error:
        raise FileFormatError(path, f"is damaged ({str(error)[:200]!a})") from error
    if len(corners) % 3:
        raise FileFormatError(path, f"is damaged: it has {len(corners)} corners, want three for each facet")
    return corners.astype(np.float32).reshape(-1, 3, 3)
