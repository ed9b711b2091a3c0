"""Unwrapping: charts of the surface laid out in a square without overlaps (xatlas)."""

import logging

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vision3d.errors import InputError, MissingDependencyError
from vision3d.geometry.mesh import face_adjacency, face_areas, face_normals
from vision3d.scene import Mesh
from vision3d.stages.meshing.cleanup import normals_of

logger = logging.getLogger("vision3d.mesh")

_ATTEMPTS = 12
_FILL = 0.5
"""Share of the texture that charts cover at first; more would often not fit."""
_MOST_FACES = 10_000
"""Of one piece. xatlas takes long to grow charts on larger ones, and ends the process on closed ones of 80 000."""
_VOTES = 12
"""Rounds in which faces take the direction of most of their neighbours."""


def unwrap(mesh: Mesh, size: int, padding: int) -> Mesh:
    """The mesh with uvs and normals; vertices at the borders of charts are there several times.

    Faces are cut into pieces that look into one of six directions, which xatlas unwraps and packs.

    Args:
        mesh: Without uvs.
        size: Side of the texture [texels].
        padding: Free texels round each chart.

    Raises:
        InputError: The charts do not fit on the texture.
        MissingDependencyError: xatlas is not there.
    """
    try:
        import xatlas
    except ImportError as error:
        raise MissingDependencyError("xatlas", "mesh", "textures (--texture-size 0 makes vertex colours)") from error

    normals = normals_of(mesh)
    atlas, sources, order = xatlas.Atlas(), [], []
    for piece in pieces(mesh):
        used, corners = torch.unique(mesh.faces[piece], return_inverse=True)
        atlas.add_mesh(
            mesh.vertices[used].float().numpy(), corners.view(-1, 3).numpy().astype(np.uint32), normals[used].numpy()
        )
        sources.append(used)
        order.append(piece)
    packing = xatlas.PackOptions()
    packing.bilinear = True
    # Left to itself xatlas makes further pages where charts do not fit. One page of any size, scaled to the texture, keeps
    # the padding when it was packed with as much more as it shrinks.
    area = float(face_areas(mesh.vertices.double(), mesh.faces).sum())
    density, packing.padding = size * (_FILL / area) ** 0.5, padding
    for _ in range(_ATTEMPTS):
        packing.texels_per_unit = density
        atlas.generate(xatlas.ChartOptions(), packing)
        scale = size / max(atlas.width, atlas.height, 1)
        if scale >= 1 and atlas.atlas_count == 1:
            break
        density *= 0.97 * min(scale, 1)
    else:
        raise InputError(
            f"texture_size: {atlas.chart_count} charts with a padding of {padding} do not fit on {size}x{size} texels; "
            "want a larger texture, a smaller --padding, or fewer --faces"
        )
    rows, uvs, faces, count = [], [], [], 0
    # xatlas gives shares of the page's sides; the texture is a square with the page in its corner.
    share = scale * np.array([atlas.width, atlas.height]) / size
    for index, used in enumerate(sources):
        source, corners, places = atlas[index]
        rows.append(used[torch.from_numpy(source.astype(np.int64))])
        uvs.append(torch.from_numpy((places.astype(np.float64) * share).astype(np.float32)))
        faces.append(torch.from_numpy(corners.astype(np.int64)).view(-1, 3) + count)
        count += len(source)
    source = torch.cat(rows)
    in_order = torch.empty_like(mesh.faces)
    in_order[torch.cat(order)] = torch.cat(faces)
    logger.info("%d charts of %d pieces", atlas.chart_count, len(sources))
    return Mesh(mesh.vertices[source], in_order, uvs=torch.cat(uvs), normals=normals[source])


def pieces(mesh: Mesh) -> list[Int64[Tensor, " n"]]:
    """Connected sets of faces of nearly one direction each; together all faces, each once."""
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
        # A direction from which the back of the face is seen would fold the piece.
        labels = votes.masked_fill(toward < 0.2, -1).argmax(1)
    is_same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    links = pairs[is_same].T.numpy()
    graph = coo_array((np.ones(links.shape[1], bool), links), shape=(count, count))
    _, parts = connected_components(graph, directed=False)
    by_part = torch.from_numpy(parts).long()
    order = by_part.argsort(stable=True)
    found = order.split(torch.bincount(by_part).tolist())
    middles = mesh.vertices[mesh.faces].mean(1)
    return [small for piece in found for small in _halved(piece, middles)]


def _halved(piece: Tensor, middles: Tensor) -> list[Tensor]:
    """The piece, cut across its longest side until no part has too many faces."""
    if len(piece) <= _MOST_FACES:
        return [piece]
    own = middles[piece]
    axis = int((own.max(0).values - own.min(0).values).argmax())
    order = piece[own[:, axis].argsort(stable=True)]
    half = len(order) // 2
    return [*_halved(order[:half], middles), *_halved(order[half:], middles)]
