"""Meshes of .ply files: vertices, polygons, and texture coordinates by vertex or by corner of a face.

Lists are read in one operation if all have the same length, else row by row.
"""

from pathlib import Path
from typing import Any

import numpy as np

from vision3d.core.errors import FileFormatError
from vision3d.io.ply_file import ENCODINGS, Element, Header, read_header

Rows = dict[str, Any]
"""For an element: (n,) for a plain property; (n, k) for a list, or n arrays if lengths differ."""
_INDICES = ("vertex_indices", "vertex_index")
_UVS = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))


def read_arrays(path: Path) -> Rows:
    """`vertices`, `faces`, and if present `uvs` (by vertex or (F, 3, 2) by corner), `normals`, `colors`, `texture`.

    Polygons are cut into fans of triangles; `texture` is the name of an image.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a .ply of a mesh, is truncated or damaged.
    """
    header = read_header(path)
    names = [element.name for element in header.elements]
    if "vertex" not in names or "face" not in names:
        raise FileFormatError(path, f"has the elements {', '.join(names)[:80] or '-'}, want vertex and face", "header")
    found = _elements(path, header)
    kinds = {name: kind for element in header.elements if element.name == "vertex" for name, kind in element.properties}
    vertex, face = found["vertex"], found["face"]
    if not {"x", "y", "z"} <= vertex.keys():
        raise FileFormatError(path, f"vertices have {', '.join(vertex)[:80] or 'no properties'}; want x, y, z", "header")
    result: Rows = {"vertices": _columns(vertex, ("x", "y", "z"))}
    if {"nx", "ny", "nz"} <= vertex.keys():
        result["normals"] = _columns(vertex, ("nx", "ny", "nz"))
    colors = [name for name in ("red", "green", "blue", "alpha") if name in vertex]
    if colors[:3] == ["red", "green", "blue"]:
        top = 255.0 if kinds["red"][0] in "iu" else 1.0
        result["colors"] = _columns(vertex, colors) / top
    uvs = next((pair for pair in _UVS if set(pair) <= vertex.keys()), None)
    if uvs is not None:
        result["uvs"] = _columns(vertex, uvs)
    indices = next((face[name] for name in _INDICES if name in face), None)
    if indices is None:
        raise FileFormatError(path, f"faces have {', '.join(face)[:80] or 'no properties'}; want vertex_indices", "header")
    result["faces"], rows, corners = _fans(indices)
    if "texcoord" in face and len(rows):
        result["uvs"] = _corner_uvs(path, face["texcoord"], rows, corners)
    comments = [comment for comment in header.comments if comment.lower().startswith("texturefile")]
    if comments:
        result["texture"] = comments[0][len("texturefile") :].strip()
    return result


def _columns(rows: Rows, names: Any) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 become infinite, which is rejected
        return np.stack([np.asarray(rows[name]).astype(np.float32) for name in names], -1)


def _fans(indices: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles (F, 3), the polygon of each, and the positions (F, 3) of its corners there."""
    lengths = np.array([len(row) for row in indices], np.int64)
    faces, rows, corners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)], [np.zeros((0, 3), np.int64)]
    for length in np.unique(lengths[lengths >= 3]):
        some = np.flatnonzero(lengths == length)
        polygons = np.stack([np.asarray(indices[row]) for row in some]) if len(some) < len(lengths) else np.asarray(indices)
        fan = np.array([[0, i, i + 1] for i in range(1, length - 1)])
        faces.append(polygons.astype(np.int64)[:, fan].reshape(-1, 3))
        rows.append(np.repeat(some, len(fan)))
        corners.append(np.tile(fan, (len(some), 1)))
    order = np.argsort(np.concatenate(rows), kind="stable")
    return np.concatenate(faces)[order], np.concatenate(rows)[order], np.concatenate(corners)[order]


def _corner_uvs(path: Path, coords: Any, rows: np.ndarray, corners: np.ndarray) -> np.ndarray:
    lengths = np.array([len(row) for row in coords], np.int64)
    short = np.flatnonzero(lengths[rows] < 2 * corners.max(1) + 2)
    if len(short):
        row = int(rows[short[0]])
        raise FileFormatError(path, f"face {row} has {lengths[row]} texture coordinates, want two for each corner")
    values = np.zeros((len(lengths), lengths.max()), np.float32)
    for length in np.unique(lengths):
        some = np.flatnonzero(lengths == length)
        values[some, :length] = np.stack([coords[row] for row in some]) if length else 0
    places = 2 * corners[..., None] + np.arange(2)
    return values[rows[:, None, None], places]


def _elements(path: Path, header: Header) -> dict[str, Rows]:
    """The rows of all elements up to the last one needed."""
    data = path.read_bytes()[header.size :]
    is_text = header.encoding == "ascii"
    reader = _Text(path, data) if is_text else _Binary(path, data, ENCODINGS[header.encoding])
    found: dict[str, Rows] = {}
    for element in header.elements:
        found[element.name] = reader.rows(element)
        if {"vertex", "face"} <= found.keys():
            break
    return found


class _Binary:
    def __init__(self, path: Path, data: bytes, order: str) -> None:
        self.path, self.data, self.order, self.place = path, data, order, 0

    def rows(self, element: Element) -> Rows:
        lengths = self._lengths(element)
        fields = []
        for number, (name, kind, count_kind) in enumerate(element.layout):
            if count_kind is not None:
                fields += [(f"{number} count", self.order + count_kind), (name, self.order + kind, (lengths[number],))]
            else:
                fields.append((name, self.order + kind))
        dtype = np.dtype(fields)
        if self.place + element.count * dtype.itemsize <= len(self.data):
            rows = np.frombuffer(self.data, dtype, element.count, self.place) if dtype.itemsize else np.zeros(0, dtype)
            if all((rows[f"{number} count"] == length).all() for number, length in lengths.items()):
                self.place += element.count * dtype.itemsize
                return {name: rows[name] for name, _, _ in element.layout}
        if not lengths:
            whole = (len(self.data) - self.place) // max(1, dtype.itemsize)
            raise FileFormatError(self.path, f"is truncated: it holds {whole} whole rows of {element.count} {element.name}")
        return self._one_by_one(element)

    def _lengths(self, element: Element) -> dict[int, int]:
        """List lengths in the first row."""
        place, found = self.place, {}
        for number, (_, kind, count_kind) in enumerate(element.layout):
            if count_kind is not None:
                found[number] = self._length(element, 0, place, count_kind) if element.count else 0
                place += np.dtype(count_kind).itemsize + found[number] * np.dtype(kind).itemsize
            else:
                place += np.dtype(kind).itemsize
        return found

    def _length(self, element: Element, row: int, place: int, kind: str) -> int:
        size = np.dtype(kind).itemsize
        if place + size > len(self.data):
            raise FileFormatError(self.path, f"is truncated: it holds {row} whole rows of {element.count} {element.name}")
        length = int(np.frombuffer(self.data, self.order + kind, 1, place)[0])
        if not 0 <= length <= len(self.data):
            raise FileFormatError(self.path, f"is damaged: row {row} of {element.name} names a list of {length}")
        return length

    def _one_by_one(self, element: Element) -> Rows:
        found: Rows = {name: [] for name, _, _ in element.layout}
        for row in range(element.count):
            for name, kind, count_kind in element.layout:
                length = 1
                if count_kind is not None:
                    length = self._length(element, row, self.place, count_kind)
                    self.place += np.dtype(count_kind).itemsize
                size = length * np.dtype(kind).itemsize
                if self.place + size > len(self.data):
                    text = f"is truncated: it holds {row} whole rows of {element.count} {element.name}"
                    raise FileFormatError(self.path, text)
                values = np.frombuffer(self.data, self.order + kind, length, self.place)
                found[name].append(values if count_kind is not None else values[0])
                self.place += size
        return found


class _Text:
    """A row starts on a new line; extra values on a line are ignored, as in other readers."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.size, self.lines = path, len(data), iter(data.splitlines())
        self.words: list[bytes] = []

    def rows(self, element: Element) -> Rows:
        found: Rows = {name: [] for name, _, _ in element.layout}
        for row in range(element.count):
            self.words = []
            for name, _, count_kind in element.layout:
                if count_kind is None:
                    found[name] += self._take(element, row, 1)
                else:
                    length = self._take(element, row, 1)[0]
                    if not (0 <= length <= self.size and length == int(length)):
                        raise FileFormatError(self.path, f"is damaged: row {row} of {element.name} names a list of {length:g}")
                    found[name].append(np.array(self._take(element, row, int(length))))
        return found

    def _take(self, element: Element, row: int, count: int) -> list[float]:
        while len(self.words) < count:
            line = next(self.lines, None)
            if line is None:
                raise FileFormatError(self.path, f"is truncated: it holds {row} whole rows of {element.count} {element.name}")
            self.words += line.split()
        words, self.words = self.words[:count], self.words[count:]
        try:
            return [float(word) for word in words]
        except ValueError as error:
            raise FileFormatError(self.path, f"is damaged: row {row} of {element.name}: {error}") from error
