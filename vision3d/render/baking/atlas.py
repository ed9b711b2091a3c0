"""UV unwrapping: pieces of the surface, each projected along an axis, packed in a square without overlaps."""

import logging

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.mesh import connected_faces, face_adjacency, face_normals
from vision3d.render.baking.normals import normals_of
from vision3d.render.meshes import rasterize
from vision3d.scene import Mesh

logger = logging.getLogger("vision3d.mesh")

MAX_SIZE = 4096
"""Maximum side of an automatically enlarged texture [texels]."""
_MIN_FILL = 0.04
"""Minimum coverage of a texture by charts for a given padding; below it, the texture is enlarged instead."""
_VOTES = 12
"""Iterations in which faces adopt the direction of most of their neighbors."""
_LAYERS = 3
"""Iterations in which faces that overlap others of their piece are removed from it."""
_PIXELS = 16
"""Pixels per face in the images used to find such faces."""
_MAX_PIXELS = 2048
"""Side of these images."""
_HALVINGS = 24


class ChartsError(InputError):
    """Charts that do not fit on a texture."""


def unwrap(mesh: Mesh, size: int, padding: int, detail: Float[Tensor, " v"] | None = None) -> Mesh:
    """The mesh with uvs and normals; vertices at the borders of charts are duplicated.

    Faces are split into pieces that face one of six directions; each is projected along it.

    Args:
        mesh: Without uvs.
        size: Side of the texture [texels].
        padding: Free texels around each chart.
        detail: Relative texel density at each vertex, > 0; uniform when None.

    Raises:
        ChartsError: The charts do not fit on the texture.
    """
    charts = _Charts(mesh, detail)
    charts.pack(size, padding)
    return charts.mesh()


def unwrap_growing(
    mesh: Mesh, size: int, padding: int, detail: Float[Tensor, " v"] | None = None, max_size: int = MAX_SIZE
) -> tuple[Mesh, int] | None:
    """The mesh from `unwrap` and the side of a texture on which its charts fit; None if they do not fit up to `max_size`.

    If charts do not fit, the texture is doubled; on the largest one, the padding is reduced to one texel.
    """
    charts = _Charts(mesh, detail)
    sizes = [size]
    while 2 * sizes[-1] <= max_size:
        sizes.append(2 * sizes[-1])
    for side, free in [*((side, padding) for side in sizes), (sizes[-1], min(padding, 1))]:
        try:
            fill = charts.pack(side, free)
        except ChartsError as error:
            logger.info("%s", error)
            continue
        if fill >= _MIN_FILL or side == sizes[-1]:
            return charts.mesh(), side
    return None


class _Charts:
    """The charts of a mesh on a page: its pieces, each projected along its direction."""

    def __init__(self, mesh: Mesh, detail: Tensor | None) -> None:
        self.surface, self.normals = mesh, normals_of(mesh)
        self.order, self.used, self.corners, self.flat = [], [], [], []
        self.area = 0.0
        for direction, piece in _unfolded(mesh, pieces(mesh)):
            used, corners = torch.unique(mesh.faces[piece], return_inverse=True)
            flat = mesh.vertices[used].double() @ _plane_of(direction)
            flat *= 1.0 if detail is None else float(detail[used].double().mean())
            flat -= flat.amin(0)
            if flat[:, 1].max() > flat[:, 0].max():
                # Horizontal charts fill rows better; a rotation by 90 degrees keeps their orientation.
                flat = torch.stack([flat[:, 1], flat[:, 0].max() - flat[:, 0]], 1)
            corners = corners.view(-1, 3)
            self.area += float(_flat_areas(flat[corners]).abs().sum())
            for values, value in zip((self.order, self.used, self.corners, self.flat), (piece, used, corners, flat)):
                values.append(value)
        self.extents = np.stack([flat.amax(0).numpy() for flat in self.flat])
        self.size, self.density, self.places = 1, 1.0, np.zeros((len(self.flat), 2))

    def pack(self, size: int, padding: int) -> float:
        """Packs the charts on a page as large as possible; returns the covered fraction of the page.

        Raises:
            ChartsError: Not even charts of one texel fit.
        """
        best, low = None, 0.0
        high = (size - padding - 2) / max(float(self.extents.max()), 1e-30)
        for halving in range(_HALVINGS):
            density = high if halving == 0 else 0.5 * (low + high)
            places = _rows(np.ceil(self.extents * density).astype(int) + 1 + padding, size - padding)
            if places is None:
                high = density
            else:
                low, best = density, places
                if halving == 0:
                    break
        if best is None or high <= 0:
            raise ChartsError(
                f"texture_size: {len(self.flat)} charts with a padding of {padding} do not fit on {size}x{size} texels; "
                "want a larger texture, a smaller --padding, or fewer --faces"
            )
        self.size, self.density, self.places = size, low, best + padding + 0.5
        return self.area * low**2 / size**2

    def mesh(self) -> Mesh:
        """The mesh with the uvs of the last layout."""
        uvs = [(flat * self.density + torch.from_numpy(place)) / self.size for flat, place in zip(self.flat, self.places)]
        starts = np.cumsum([0, *map(len, self.used)])
        source, faces = torch.cat(self.used), torch.empty_like(self.surface.faces)
        faces[torch.cat(self.order)] = torch.cat([corners + int(start) for corners, start in zip(self.corners, starts)])
        logger.info("%d charts", len(self.flat))
        return Mesh(self.surface.vertices[source], faces, uvs=torch.cat(uvs).float(), normals=self.normals[source])


def _rows(sizes: np.ndarray, side: int) -> np.ndarray | None:
    """Upper left corners (n, 2) of rectangles of (width, height) in rows, tallest first; None if they do not fit."""
    if sizes.prod(1).sum() > side**2 or sizes.max() > side:
        return None
    places, (x, y, row) = np.zeros((len(sizes), 2)), (0, 0, 0)
    for index in np.lexsort((-sizes[:, 0], -sizes[:, 1])).tolist():
        width, height = sizes[index].tolist()
        if x + width > side:
            x, y, row = 0, y + row, 0
        if y + height > side:
            return None
        places[index] = (x, y)
        x, row = x + width, max(row, height)
    return places


def _plane_of(direction: int) -> Float[Tensor, "3 2"]:
    """Two axes that are right-handed with a direction (x, y, z and their opposites)."""
    axes = torch.eye(3, dtype=torch.float64)
    first, second = axes[(direction + 1) % 3], axes[(direction + 2) % 3]
    return torch.stack([first, second] if direction < 3 else [second, first], 1)


def _flat_areas(corners: Float[Tensor, "f 3 2"]) -> Float[Tensor, " f"]:
    a, b = (corners[:, 1:] - corners[:, :1]).unbind(1)
    return 0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def _unfolded(mesh: Mesh, found: list[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
    """The pieces, with faces that overlap others of their piece along its direction moved to separate pieces."""
    done: list[tuple[int, Tensor]] = []
    for _ in range(_LAYERS):
        again: list[tuple[int, Tensor]] = []
        for direction, piece in found:
            for _ in range(_LAYERS):  # the layer seen from below, then those between it and the front
                hidden = _hidden(mesh, direction, piece)
                if not bool(hidden.any()):
                    break
                again += [(direction, part) for part in _connected(mesh.faces, piece[hidden])]
                piece = piece[~hidden]
            done.append((direction, piece))
        found = again
    # Remaining overlaps show the color of their neighbor.
    return done + found


def _hidden(mesh: Mesh, direction: int, piece: Tensor) -> Tensor:
    """Mask of faces of a piece that are behind others without touching them."""
    count = len(piece)
    if count < 8:
        return torch.zeros(count, dtype=torch.bool)
    used, corners = torch.unique(mesh.faces[piece], return_inverse=True)
    corners = corners.view(-1, 3)
    points = mesh.vertices[used].double()
    flat = points @ _plane_of(direction)
    # Several pixels per face; overlaps below a pixel are not found, and affect at most a texel.
    low, span = flat.amin(0), flat.amax(0) - flat.amin(0)
    scale = (_PIXELS * count / max(float(_flat_areas(flat[corners]).abs().sum()), 1e-30)) ** 0.5
    width, height = (min(_MAX_PIXELS, int(scale * float(side)) + 2) for side in span)
    pixels = (flat - low) * torch.tensor([width, height]) / span.clamp(min=1e-30)
    toward = points[:, direction % 3] * (1 if direction < 3 else -1)
    depth = 1 + (toward.max() - toward) / (toward.max() - toward.min()).clamp(min=1e-30)  # 1 is in front
    nearest, farthest = (
        rasterize(torch.cat([pixels, torch.stack([d, torch.ones_like(d)], 1)], 1).float()[None], corners, width, height)
        .face_ids[0]
        .long()
        for d in (depth, 3 - depth)
    )
    is_double = (nearest != farthest) & (nearest >= 0)
    front, back = nearest[is_double], farthest[is_double]
    touches = (corners[front][:, :, None] == corners[back][:, None]).any(-1).any(-1)
    hidden = torch.zeros(count, dtype=torch.bool)
    hidden[back[~touches]] = True
    return hidden


def _connected(faces: Tensor, piece: Tensor) -> list[Tensor]:
    """Parts of a piece connected by edges."""
    _, labels = connected_faces(faces[piece])
    order = labels.argsort(stable=True)
    return list(piece[order].split(torch.bincount(labels).tolist()))


def pieces(mesh: Mesh) -> list[tuple[int, Int64[Tensor, " n"]]]:
    """Connected sets of faces of approximately one direction each (x, y, z, -x, -y, -z); a partition of all faces."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = mesh.num_faces
    pairs, _ = face_adjacency(mesh.faces)
    both = torch.cat([pairs, pairs.flip(1)])
    normals = face_normals(mesh.vertices.double(), mesh.faces)
    toward = torch.cat([normals, -normals], 1)
    labels = toward.argmax(1)
    for _ in range(_VOTES):
        votes = 0.9 * toward.clamp(min=0)
        votes.index_add_(0, both[:, 0], torch.nn.functional.one_hot(labels[both[:, 1]], 6).double())
        # A direction from which the back of the face is visible would fold the piece.
        labels = votes.masked_fill(toward < 0.2, -1).argmax(1)
    is_same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    links = pairs[is_same].T.numpy()
    graph = coo_array((np.ones(links.shape[1], bool), links), shape=(count, count))
    _, parts = connected_components(graph, directed=False)
    by_part = torch.from_numpy(parts).long()
    order = by_part.argsort(stable=True)
    found = order.split(torch.bincount(by_part).tolist())
    return [(int(labels[piece[0]]), piece) for piece in found]
