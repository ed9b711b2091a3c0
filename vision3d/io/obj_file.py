"""Wavefront .obj: positions, texture coordinates and normals, each with its own indices at the corners of the faces.

Lines v (with colors, x y z r g b), vt, vn, f and usemtl are read, others are ignored. Vertices are those of the file, in its
order; texture seams become coordinates by corner.
"""

from typing import NamedTuple

import numpy as np

_KINDS = ("v", "vt", "vn")
_MISSING = np.iinfo(np.int64).min


class ObjArrays(NamedTuple):
    """Contents of an .obj, with polygons as fans of triangles: V vertices, F triangles."""

    vertices: np.ndarray
    """(V, 3)."""
    faces: np.ndarray
    """(F, 3)."""
    uvs: np.ndarray | None
    """(V, 2), or (F, 3, 2) if a vertex has several; v points up. None if no corner has one; zero where others have none."""
    has_uvs: np.ndarray
    """(F,), whether all corners have texture coordinates."""
    normals: np.ndarray | None
    """(V, 3), the mean if a vertex has several; None if any corner has none."""
    colors: np.ndarray | None
    """(V, 3)."""
    materials: np.ndarray
    """(F,), indices into `names`."""
    names: tuple[str, ...]
    """Materials used by faces; empty before the first `usemtl`."""
    dropped: int
    """Number of faces with fewer than three corners, which are not in `faces`."""


def parse_obj(text: str) -> ObjArrays:
    """Parse the text of an .obj.

    Raises:
        ValueError: A number cannot be parsed, a line is too short, or an index is out of range.
    """
    rows: dict[str, list[list[str]]] = {kind: [] for kind in _KINDS}
    polygons: list[list[str]] = []
    used: list[int] = []  # material of each polygon
    names, material = {"": 0}, 0
    before: list[tuple[int, ...]] = []  # numbers of values before each face, for negative indices
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if words[0] in rows:
            rows[words[0]].append(words[1:])
        elif words[0] == "f":
            polygons.append(words[1:])
            used.append(material)
            before.append(tuple(len(rows[kind]) for kind in _KINDS))
        elif words[0] == "usemtl":
            material = names.setdefault(" ".join(words[1:]), len(names))
    points = [_floats(rows["v"], 3), _floats(rows["vt"], 2), _floats(rows["vn"], 3)]
    lengths = np.array([len(polygon) for polygon in polygons], np.int64)
    corners = _indices([word for polygon in polygons for word in polygon])
    is_kept = lengths > 2
    counts = np.array(before, np.int64).reshape(-1, 3).repeat(lengths, axis=0)
    corners = np.where(corners > 0, corners - 1, np.where(corners == _MISSING, -1, counts + corners))
    sizes = np.array([len(values) for values in points])
    corners[:, 1:][:, sizes[1:] == 0] = -1  # a missing list: as if no corner referred to it
    if (len(corners) and (corners[:, 0] < 0).any()) or (corners < -1).any() or (corners >= sizes).any():
        raise ValueError("a face refers to a missing element")
    corners, lengths = corners[is_kept.repeat(lengths)], lengths[is_kept]
    faces = corners[_fans(lengths)]
    places = faces[..., 0]
    return ObjArrays(
        vertices=points[0],
        faces=places,
        uvs=_uvs(points[1], faces[..., 1], places, len(points[0])),
        has_uvs=np.asarray((faces[..., 1] >= 0).all(1)),
        normals=_normals(points[2], faces[..., 2], places, len(points[0])),
        colors=_floats([row[3:6] for row in rows["v"]], 3) if rows["v"] and all(len(row) >= 6 for row in rows["v"]) else None,
        materials=np.array(used, np.int64)[is_kept].repeat(lengths - 2),
        names=tuple(names),
        dropped=int((~is_kept).sum()),
    )


def _floats(rows: list[list[str]], width: int) -> np.ndarray:
    if any(len(row) < width for row in rows):
        raise ValueError(f"a line has fewer than {width} numbers")
    return np.array([row[:width] for row in rows], np.float64).reshape(-1, width)


def _indices(words: list[str]) -> np.ndarray:
    """(C, 3) of v, v/vt, v//vn or v/vt/vn; `_MISSING` if a corner has none."""
    slashes = {word.count("/") for word in words}
    if max(slashes, default=0) > 2:
        raise ValueError("a corner of a face has more than v/vt/vn")
    if len(slashes) == 1 and not any("//" in word or word.endswith("/") for word in words):
        count = slashes.pop() + 1  # all alike: parsed at once
        table = np.array(" ".join(words).replace("/", " ").split(), np.int64).reshape(-1, count)
    else:
        table = np.array([[int(i) if i else _MISSING for i in (*word.split("/"), "", "")[:3]] for word in words], np.int64)
        table = table.reshape(-1, 3)
    if (table == 0).any():
        raise ValueError("the corners of a face count from 1")
    return np.pad(table, ((0, 0), (0, 3 - table.shape[1])), constant_values=_MISSING)


def _fans(lengths: np.ndarray) -> np.ndarray:
    """Corner indices of each triangle, (F, 3): polygons of these lengths are stored one after another."""
    first = lengths.cumsum() - lengths
    start = first.repeat(lengths - 2)
    inside = np.arange(len(start)) - (first - 2 * np.arange(len(first))).repeat(lengths - 2)
    return np.stack([start, start + inside + 1, start + inside + 2], -1)


def _uvs(values: np.ndarray, rows: np.ndarray, used: np.ndarray, count: int) -> np.ndarray | None:
    if not (rows >= 0).any():
        return None
    by_corner = np.where((rows >= 0)[..., None], values[rows], 0)
    by_vertex = np.zeros((count, 2))
    by_vertex[used] = by_corner
    return by_vertex if (by_vertex[used] == by_corner).all() else by_corner


def _normals(values: np.ndarray, rows: np.ndarray, used: np.ndarray, count: int) -> np.ndarray | None:
    if not rows.size or (rows < 0).any():
        return None
    by_corner, by_vertex = values[rows], np.zeros((count, 3))
    by_vertex[used] = by_corner
    several = np.unique(used[(by_vertex[used] != by_corner).any(-1)])
    if several.size:
        sums = np.zeros((count, 3))
        np.add.at(sums, used, by_corner)
        lengths = np.linalg.norm(sums[several], axis=-1, keepdims=True)
        by_vertex[several] = np.where(lengths > 0, sums[several] / np.where(lengths > 0, lengths, 1), by_vertex[several])
    return by_vertex
