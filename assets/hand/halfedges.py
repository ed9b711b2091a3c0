"""A triangle mesh that can be edited: edges are split, collapsed and flipped, vertices move along the surface."""

import heapq
from collections.abc import Callable

import numpy as np
from anatomy import Array, Ints, Mask

Field = Callable[[Array], Array]


class Editor:
    """An open or closed manifold mesh.

    Attributes:
        points: Positions (V, 3); unused ones are NaN.
        sizes: Wanted length of edges at each vertex [m].
        fixed: Vertices that neither move nor vanish.
    """

    def __init__(self, points: Array, faces: Ints, size: Field, project: Callable[[Array, Mask], Array]) -> None:
        self.points, self.size, self.project = points.copy(), size, project
        self.sizes = size(points)
        self.faces: dict[int, tuple[int, int, int]] = dict(enumerate(map(tuple, faces.tolist())))
        self.around: list[set[int]] = [set() for _ in points]
        for number, face in self.faces.items():
            for corner in face:
                self.around[corner].add(number)
        self.count = sum(bool(found) for found in self.around)
        self.fixed: set[int] = set()
        self.border = self._border()
        self._next = len(self.faces)

    def result(self) -> tuple[Array, Ints, Ints]:
        """Vertices, faces, and the number that each vertex had here."""
        used = np.array([i for i, found in enumerate(self.around) if found])
        new = np.full(len(self.points), -1)
        new[used] = np.arange(len(used))
        faces = np.array([self.faces[i] for i in sorted(self.faces)])
        return self.points[used], new[faces], used

    def collapse_to(self, count: int, border: int) -> None:
        """Collapse the edges that are shortest relative to the wanted length until `count` vertices are left.

        Args:
            count: Number of vertices.
            border: Number of them on the border, which is thinned first.
        """
        while len(self.border) > border:
            edges = sorted({(min(a, b), max(a, b)) for a in self.border for b in self._ring(a) if self._is_border_edge(a, b)})
            order = sorted(edges, key=lambda edge: (self._length(*edge), edge))
            if all(self._collapse(a, b) is None for a, b in order):
                break
        heap = [(self._relative(a, b), a, b) for a, b in self._edges()]
        heapq.heapify(heap)
        while self.count > count and heap:
            length, a, b = heapq.heappop(heap)
            if not self.around[a] or not self.around[b] or b not in self._ring(a) or self._relative(a, b) != length:
                continue
            if a in self.border and b in self.border:
                continue
            kept = self._collapse(a, b)
            if kept is not None:
                for other in self._ring(kept):
                    low, high = min(kept, other), max(kept, other)
                    heapq.heappush(heap, (self._relative(low, high), low, high))

    def even_out(self, moves: int) -> None:
        """Split the `moves` relatively longest inner edges and collapse as many short ones: the count stays the same."""
        before = self.count
        edges = [(a, b) for a, b in self._edges() if not self._is_border_edge(a, b)]
        edges.sort(key=lambda edge: (-self._relative(*edge), edge))
        for a, b in edges[:moves]:
            if b in self._ring(a):
                self._split(a, b)
        self.flip()
        self.collapse_to(before, len(self.border))

    def flip(self) -> None:
        """One pass over all edges: the other diagonal if the smallest of the angles becomes larger and the surface stays
        smooth."""
        for a, b, *_ in self._improvable():
            shared = sorted(self.around[a] & self.around[b])
            if len(shared) != 2 or b not in self._ring(a):
                continue
            if (a, b) not in _directed(self.faces[shared[0]]):
                shared.reverse()
            c, d = (sum(self.faces[number]) - a - b for number in shared)
            if d in self._ring(c) or c == d or not self._is_better(np.array([[a, b, c, d]]))[0]:
                continue
            for number in shared:
                self._remove(number)
            for face in ((a, d, c), (d, b, c)):
                self._add(face)

    def _improvable(self) -> list[list[int]]:
        """Edges (a, b) between faces (a, b, c) and (b, a, d) that are better flipped."""
        third = {edge: sum(face) - sum(edge) for face in self.faces.values() for edge in _directed(face)}
        quads = np.array([(a, b, c, third[b, a]) for (a, b), c in sorted(third.items()) if a < b and (b, a) in third])
        return quads[self._is_better(quads)].tolist()

    def _is_better(self, quads: Ints) -> Mask:
        """Whether flips enlarge the smallest angle and keep the surface smooth."""
        a, b, c, d = quads.T
        stacks = [np.stack(corners, -1) for corners in ((a, b, c), (b, a, d), (a, d, c), (d, b, c))]
        n1, n2, n3, n4 = (self._normals(stack) for stack in stacks)
        angles = [smallest_angles(self.points, stack) for stack in stacks]
        bends = [(p * q).sum(-1) for p, q in ((n3, n4), (n1, n3), (n1, n4), (n2, n3), (n2, n4))]
        is_smooth = np.min(bends, 0) >= np.minimum(0.85, (n1 * n2).sum(-1) - 0.02)
        return is_smooth & (np.minimum(angles[2], angles[3]) > np.minimum(angles[0], angles[1]) + 0.02)

    def relax(self, strength: float = 0.5) -> None:
        """Move vertices to the weighted mean of the faces around them, then back to the surface; the border along itself."""
        faces = np.array(list(self.faces.values()))
        corners = self.points[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        weights = np.linalg.norm(normals, axis=1) / self.sizes[faces].mean(1) ** 2
        sums = np.zeros((len(self.points), 7))
        rows = np.concatenate([weights[:, None] * corners.mean(1), normals, weights[:, None]], 1)
        for k in range(3):
            np.add.at(sums, faces[:, k], rows)
        used = np.flatnonzero(sums[:, 6])
        means, slopes = sums[used, :3] / sums[used, 6:], sums[used, 3:6]
        slopes /= np.maximum(np.linalg.norm(slopes, axis=1, keepdims=True), 1e-20)
        steps = means - self.points[used]
        steps -= (steps * slopes).sum(1, keepdims=True) * slopes
        flat = np.isin(used, sorted(self.border))
        for row in np.flatnonzero(flat):
            i = int(used[row])
            ends = [j for j in self._ring(i) if self._is_border_edge(i, j)]
            steps[row] = self.points[sorted(ends)].mean(0) - self.points[i]
        held = np.isin(used, sorted(self.fixed))
        placed = self.project(self.points[used] + strength * steps, flat)
        self.points[used] = np.where(held[:, None], self.points[used], placed)
        self.sizes[used] = self.size(self.points[used])

    def _collapse(self, a: int, b: int) -> int | None:
        """Merge two neighbors; the vertex that is left, or None if the mesh would fold or no longer be a manifold."""
        is_rim = self._is_border_edge(a, b)
        for first, second in ((a, b), (b, a)):
            if second in self.fixed or (second in self.border and not is_rim):
                continue
            gone = self.around[first] & self.around[second]
            shared = self._ring(first) & self._ring(second)
            if len(shared) != len(gone) or len(gone) != (1 if is_rim else 2):
                continue
            holds = first in self.fixed or (first in self.border and not is_rim)
            target = self.points[first] if holds else (self.points[first] + self.points[second]) / 2
            kept = [number for number in self.around[first] | self.around[second] if number not in gone]
            if not self._stays_smooth(kept, (first, second), target):
                continue
            if any(len(self.around[v]) - 1 < (3 if v not in self.border else 1) for v in shared):
                continue
            for number in gone:
                self._remove(number)
            for number in list(self.around[second]):
                face = self.faces[number]
                self._remove(number)
                self._add(tuple(first if corner == second else corner for corner in face))
            self.points[first] = target
            if not holds:
                self.sizes[first] = (self.sizes[first] + self.sizes[second]) / 2
            self.points[second] = np.nan
            self.border.discard(second)
            self.count -= 1
            return first
        return None

    def _stays_smooth(self, numbers: list[int], ends: tuple[int, int], target: Array) -> bool:
        if not numbers:
            return False
        corners = np.array([self.faces[number] for number in numbers])
        old = self.points[corners]
        new = np.where(np.isin(corners, ends)[..., None], target, old)
        before, after = (np.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0]) for c in (old, new))
        lengths = np.linalg.norm(after, axis=1)
        longest = np.linalg.norm(new - np.roll(new, 1, 1), axis=-1).max(1)
        if (lengths < 0.15 * longest**2).any():
            return False
        return bool(((before * after).sum(1) > 0.4 * np.linalg.norm(before, axis=1) * lengths).all())

    def _split(self, a: int, b: int) -> None:
        """A new vertex in the middle of an edge with two faces."""
        shared = sorted(self.around[a] & self.around[b])
        self.points = np.concatenate([self.points, (self.points[[a]] + self.points[[b]]) / 2])
        self.sizes = np.append(self.sizes, (self.sizes[a] + self.sizes[b]) / 2)
        self.around.append(set())
        self.count += 1
        new = len(self.points) - 1
        for number in shared:
            face = self.faces[number]
            self._remove(number)
            self._add(tuple(new if corner == b else corner for corner in face))
            self._add(tuple(new if corner == a else corner for corner in face))

    def _add(self, face: tuple[int, ...]) -> None:
        a, b, c = face
        self.faces[self._next] = (a, b, c)
        for corner in face:
            self.around[corner].add(self._next)
        self._next += 1

    def _remove(self, number: int) -> None:
        for corner in self.faces.pop(number):
            self.around[corner].discard(number)

    def _ring(self, i: int) -> set[int]:
        return {corner for number in self.around[i] for corner in self.faces[number]} - {i}

    def _edges(self) -> list[tuple[int, int]]:
        return sorted({(min(a, b), max(a, b)) for face in self.faces.values() for a, b in _directed(face)})

    def _border(self) -> set[int]:
        directed = {edge for face in self.faces.values() for edge in _directed(face)}
        return {end for a, b in directed if (b, a) not in directed for end in (a, b)}

    def _is_border_edge(self, a: int, b: int) -> bool:
        return a in self.border and b in self.border and len(self.around[a] & self.around[b]) == 1

    def _length(self, a: int, b: int) -> float:
        return float(np.linalg.norm(self.points[a] - self.points[b]))

    def _relative(self, a: int, b: int) -> float:
        return 2 * self._length(a, b) / float(self.sizes[a] + self.sizes[b])

    def _normals(self, faces: Ints) -> Array:
        corners = self.points[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)


def smallest_angles(points: Array, faces: Ints) -> Array:
    """Smallest angle of each face [rad]."""
    corners = points[faces]
    ahead, behind = np.roll(corners, -1, 1) - corners, np.roll(corners, 1, 1) - corners
    cosines = (ahead * behind).sum(-1) / (np.linalg.norm(ahead, axis=-1) * np.linalg.norm(behind, axis=-1))
    return np.arccos(np.clip(cosines, -1, 1)).min(-1)


def cut(points: Array, faces: Ints, height: float) -> tuple[Array, Ints]:
    """The part of a mesh above y = `height`, cut along the plane; no vertex may lie in it."""
    above = points[:, 1] > height
    new_points, middles, found = list(points), {}, []

    def middle(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in middles:
            share = (height - points[a, 1]) / (points[b, 1] - points[a, 1])
            place = points[a] + share * (points[b] - points[a])
            place[1] = height
            middles[key] = len(new_points)
            new_points.append(place)
        return middles[key]

    for face in faces.tolist():
        inside = [bool(above[corner]) for corner in face]
        if all(inside):
            found.append(face)
        elif sum(inside) == 1:
            k = inside.index(True)
            a, b, c = face[k], face[(k + 1) % 3], face[(k + 2) % 3]
            found.append([a, middle(a, b), middle(a, c)])
        elif sum(inside) == 2:
            k = inside.index(False)
            a, b, c = face[k], face[(k + 1) % 3], face[(k + 2) % 3]
            found += [[middle(a, b), b, c], [middle(a, b), c, middle(a, c)]]
    used, new = np.unique(np.array(found), return_inverse=True)
    return np.array(new_points)[used], new.reshape(-1, 3)


def _directed(face: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    a, b, c = face
    return (a, b), (b, c), (c, a)
