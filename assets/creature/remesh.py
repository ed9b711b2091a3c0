"""A few thousand well-shaped triangles from many: decimation, then edge flips and vertex smoothing on the surface."""

from collections.abc import Callable

import numpy as np
from body import Array, Ints


def simplified(vertices: Array, faces: Ints, count: int) -> tuple[Array, Ints]:
    """About `count` faces, by quadric edge collapses."""
    import fast_simplification

    points, triangles = fast_simplification.simplify(
        vertices.astype(np.float32), faces.astype(np.int32), target_count=count, agg=5.0
    )
    return points.astype(np.float64), triangles.astype(np.int64)


def improved(vertices: Array, faces: Ints, project: Callable[[Array], Array], rounds: int = 12) -> tuple[Array, Ints]:
    """The same surface with better angles: edges are flipped to enlarge the smallest angles, vertices move to the mean of
    their neighbors and back onto the surface."""
    for _ in range(rounds):
        faces = _flipped(vertices, faces)
        sums, counts = np.zeros_like(vertices), np.zeros(len(vertices))
        for a, b in ((0, 1), (1, 2), (2, 0)):
            np.add.at(sums, faces[:, a], vertices[faces[:, b]])
            np.add.at(counts, faces[:, a], 1)
        moves = 0.5 * (sums / counts[:, None] - vertices)
        normals = vertex_normals(vertices, faces)
        moves -= (moves * normals).sum(-1, keepdims=True) * normals
        vertices = project(vertices + moves)
    return vertices, _flipped(vertices, faces)


def vertex_normals(vertices: Array, faces: Ints) -> Array:
    """Unit normals, of the faces weighted by area."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    areas, total = np.cross(b - a, c - a), np.zeros_like(vertices)
    for i in range(3):
        np.add.at(total, faces[:, i], areas)
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-20)


def smallest_angles(vertices: Array, faces: Ints) -> Array:
    """Smallest angle of each face [degrees]."""
    corners = vertices[faces]
    to_next, to_last = np.roll(corners, -1, 1) - corners, np.roll(corners, 1, 1) - corners
    cosines = (to_next * to_last).sum(-1) / (np.linalg.norm(to_next, axis=-1) * np.linalg.norm(to_last, axis=-1))
    return np.degrees(np.arccos(np.clip(cosines, -1, 1))).min(-1)


def _flipped(vertices: Array, faces: Ints) -> Ints:
    """One pass over all edges: the other diagonal if the smallest of the angles becomes larger and the surface stays smooth."""
    faces = faces.copy()
    owners: dict[tuple[int, int], int] = {}
    for number, (a, b, c) in enumerate(faces.tolist()):
        owners[a, b] = owners[b, c] = owners[c, a] = number
    for a, b in list(owners):
        if a > b or (a, b) not in owners or (b, a) not in owners:
            continue
        left, right = owners[a, b], owners[b, a]
        c, d = (int(sum(faces[n]) - a - b) for n in (left, right))
        if (c, d) in owners or (d, c) in owners or c == d:
            continue
        before, after = np.array([[a, b, c], [b, a, d]]), np.array([[a, d, c], [d, b, c]])
        n1, n2 = _unit_normals(vertices, before)
        n3, n4 = _unit_normals(vertices, after)
        if min(n3 @ n4, n3 @ n1, n4 @ n1, n3 @ n2, n4 @ n2) < min(0.9, n1 @ n2 - 0.02):
            continue
        if smallest_angles(vertices, after).min() <= smallest_angles(vertices, before).min() + 0.1:
            continue
        faces[left], faces[right] = after
        for edge in ((a, b), (b, a)):
            del owners[edge]
        for number in (left, right):
            p, q, r = faces[number].tolist()
            owners[p, q] = owners[q, r] = owners[r, p] = number
    return faces


def _unit_normals(vertices: Array, faces: Ints) -> Array:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-20)
