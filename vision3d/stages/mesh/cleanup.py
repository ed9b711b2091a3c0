"""Cleaning of the raw surface: floating parts, holes, and the number of faces."""

import logging
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, MissingDependencyError
from vision3d.geometry import mesh as geometry
from vision3d.render.baking.normals import normals_of
from vision3d.render.meshes import rasterize, screen_positions
from vision3d.scene import Cameras, Mesh
from vision3d.stages.mesh.fusion import open3d

logger = logging.getLogger("vision3d.mesh")

_TAUBIN = (0.5, -0.53)
"""Smoothing steps forward and backward: a pass band of 0.1."""
_AGGRESSIVENESS = 5.0
"""Of the decimation: how fast its threshold grows."""
_SIZE = 2.0
"""Longest side of a mesh in the decimation."""


def main_parts(mesh: Mesh, min_share: float, max_parts: int = 0, times: Tensor | None = None) -> tuple[Mesh, int]:
    """The largest parts that some camera sees, and the number of removed parts.

    Parts are connected by edges. Parts completely inside another part are not visible to any camera and are removed.

    Args:
        mesh: Without texture and colors.
        min_share: Minimum area relative to the largest part, in [0, 1].
        max_parts: Maximum number of parts; 0: all.
        times: Number of cameras that see each face (`times_seen`); all parts count as visible when None.
    """
    num_parts, labels = geometry.connected_faces(mesh.faces)
    areas = torch.zeros(num_parts, dtype=torch.float64)
    areas.index_add_(0, labels, geometry.face_areas(mesh.vertices.double(), mesh.faces))
    is_kept = areas >= min_share * areas.max()
    if times is not None and int(is_kept.sum()) > 1:
        is_seen = torch.zeros(num_parts, dtype=torch.bool)
        is_seen[labels[times > 0]] = True
        is_kept &= is_seen if bool((is_kept & is_seen).any()) else True
    if max_parts and int(is_kept.sum()) > max_parts:
        order = torch.where(is_kept, areas, -1).argsort(descending=True, stable=True)
        is_kept[order[max_parts:]] = False
    vertices, faces, _ = geometry.drop_unused_vertices(mesh.vertices, mesh.faces[is_kept[labels]])
    return Mesh(vertices, faces), num_parts - int(is_kept.sum())


def manifold(mesh: Mesh, tolerance: float = 0.0) -> Mesh:
    """The mesh with equal vertices merged and, at edges with more than two faces, the smallest faces removed.

    Args:
        mesh: Without texture and colors.
        tolerance: Distance below which vertices are equal [m].
    """
    vertices, faces, _ = geometry.weld_vertices(mesh.vertices, mesh.faces, tolerance)
    found = _tidied(vertices, faces)
    while found is not None:
        edges, own = geometry.unique_edges(found.faces)
        crowded = torch.bincount(own.flatten(), minlength=len(edges)) > 2
        if not bool(crowded.any()):
            return found
        areas = geometry.face_areas(found.vertices.double(), found.faces)[:, None].expand(-1, 3)
        rows, sides = crowded[own].nonzero().unbind(1)
        order = areas[rows, sides].argsort(stable=True)
        # The first of each edge, by area, is the smallest.
        edge = own[rows, sides][order]
        first = torch.full((len(edges),), len(order)).scatter_reduce_(0, edge, torch.arange(len(order)), "amin")
        kept = torch.ones(found.num_faces, dtype=torch.bool)
        kept[rows[order][first[crowded]]] = False
        found = _tidied(found.vertices, found.faces[kept])
    return Mesh(mesh.vertices[:0], mesh.faces[:0])


def times_seen(mesh: Mesh, cameras: Cameras) -> Tensor:
    """Number of cameras in which each face is the nearest at some pixel."""
    times = torch.zeros(mesh.num_faces, dtype=torch.int64)
    for camera in cameras.to("cpu"):
        positions = screen_positions(mesh.vertices, camera.viewmats.to(mesh.vertices), camera.Ks.to(mesh.vertices))
        ids = rasterize(positions, mesh.faces, int(camera.width), int(camera.height)).face_ids
        times[ids[ids >= 0].long().unique()] += 1
    return times


def fill_holes(mesh: Mesh, max_edges: int) -> tuple[Mesh, int]:
    """The mesh with holes of up to `max_edges` edges closed by fans around their centers, and the number of these holes.

    Holes that touch at a vertex are kept.
    """
    edges = torch.stack([mesh.faces, mesh.faces.roll(-1, 1)], -1).flatten(0, 1)
    keys = edges.sort(-1).values @ torch.tensor([mesh.num_vertices, 1])
    _, inverse, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    border = edges[counts[inverse] == 1]
    starts, times = torch.unique(border[:, 0], return_counts=True)
    forked = set(starts[times > 1].tolist())
    following = {a: b for a, b in border.tolist() if a not in forked}
    vertices, faces, filled = [mesh.vertices], [mesh.faces], 0
    while following:
        first, place = following.popitem()
        loop = [first]
        while place != first and place in following:
            loop.append(place)
            place = following.pop(place)
        if place != first or not 3 <= len(loop) <= max_edges:
            continue
        ring = torch.tensor(loop)
        vertices.append(mesh.vertices[ring].mean(0, keepdim=True))
        middle = torch.full_like(ring, mesh.num_vertices + filled)
        faces.append(torch.stack([ring.roll(-1), ring, middle], -1))  # opposite to the border's direction
        filled += 1
    return Mesh(torch.cat(vertices), torch.cat(faces)), filled


def smooth(mesh: Mesh, rounds: int, thin: float = 0.0) -> Mesh:
    """The mesh with its vertices moved towards the means of their neighbors and back (Taubin 1995).

    Noise of the length of a few edges goes, the volume stays. Borders of open meshes are smoothed along themselves.

    Args:
        mesh: Without texture and colors.
        rounds: Number of iterations.
        thin: Surfaces thinner than this [m] stay as they are.
    """
    if not rounds:
        return mesh
    offsets, neighbors = geometry.vertex_neighbors(mesh.faces, mesh.num_vertices)
    owners = torch.repeat_interleave(torch.arange(mesh.num_vertices), offsets.diff())
    border = torch.zeros(mesh.num_vertices, dtype=torch.bool)
    border[geometry.boundary_edges(mesh.faces).flatten()] = True
    counts = border[neighbors] | ~border[owners]
    if thin:
        counts &= (thickness_of(mesh) >= thin)[owners]
    owners, neighbors = owners[counts], neighbors[counts]
    number = torch.bincount(owners, minlength=mesh.num_vertices)[:, None]
    places = mesh.vertices.double()
    for _ in range(rounds):
        for weight in _TAUBIN:
            means = torch.zeros_like(places).index_add_(0, owners, places[neighbors]) / number.clamp(min=1)
            places = torch.where(number > 0, torch.lerp(places, means, weight), places)
    return Mesh(places.float(), mesh.faces)


def thickness_of(mesh: Mesh) -> Float[Tensor, " v"]:
    """Distance along the inward normal from each vertex to the next face [m]; infinity if the ray hits no face.

    Args:
        mesh: Without equal vertices; faces are counterclockwise from outside.
    """
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(mesh.vertices.numpy()), o3d.core.Tensor(mesh.faces.numpy().astype(np.uint32)))
    inward = -normals_of(mesh)
    ends = mesh.vertices[geometry.unique_edges(mesh.faces)[0]]
    # From a little inside, so that the ray misses the faces at its own vertex.
    start = 0.05 * float(torch.linalg.vector_norm(ends[:, 0] - ends[:, 1], dim=-1).median())
    rays = torch.cat([mesh.vertices + start * inward, inward], -1).contiguous()
    return start + torch.from_numpy(scene.cast_rays(o3d.core.Tensor(rays.numpy()))["t_hit"].numpy())


def decimate(mesh: Mesh, max_faces: int, thin: float = 0.0) -> Mesh:
    """The mesh with about `max_faces` faces or fewer; closed where it was closed.

    Args:
        mesh: Without texture and colors.
        max_faces: Maximum number of faces.
        thin: Edges of surfaces thinner than this [m] are not collapsed, since rods would fall apart; of many such faces, only
            the thinnest ones, up to half of `max_faces`.

    Raises:
        InputError: Nothing would remain.
        MissingDependencyError: fast-simplification is not installed.
    """
    if mesh.num_faces <= max_faces:
        return mesh
    try:
        import fast_simplification
    except ImportError as error:
        raise MissingDependencyError("fast-simplification", "mesh", "fewer faces (--faces 0 keeps all)") from error

    # Its thresholds are absolute errors, chosen for meshes of this size.
    scale = _SIZE / max(float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max()), 1e-30)
    points, faces = (scale * mesh.vertices).float().numpy(), mesh.faces.numpy().astype(np.int32)
    fixed = torch.zeros(mesh.num_vertices, dtype=torch.bool)
    if thin:
        thickness = thickness_of(mesh)
        of_faces = thickness[mesh.faces].amin(1)
        thinnest = of_faces.sort().values[min(max_faces // 2, mesh.num_faces - 1)]
        fixed = thickness < min(thin, float(thinnest))
    target = max(4, max_faces - int(fixed[mesh.faces].any(1).sum()))
    out: Any = fast_simplification.simplify(points, faces, target_count=target, agg=_AGGRESSIVENESS, return_collapses=True)
    vertices, fewer, collapses = out
    if bool(fixed.any()):
        collapses = collapses[~fixed.numpy()[collapses].any(1)]
        vertices, fewer, _ = fast_simplification.replay_simplification(points, faces, collapses)
    found = _tidied(
        torch.from_numpy(np.asarray(vertices) / scale).float(), torch.from_numpy(np.asarray(fewer).astype(np.int64))
    )
    if geometry.is_closed(mesh.faces) and (found is None or not geometry.is_closed(found.faces)):
        # Ten times slower, but every edge keeps two faces.
        o3d = open3d()
        vector3d, vector3i = o3d.utility.Vector3dVector, o3d.utility.Vector3iVector
        slow = o3d.geometry.TriangleMesh(vector3d(points.astype(np.float64)), vector3i(faces))
        slow = slow.simplify_quadric_decimation(max_faces)
        vertices = torch.from_numpy((np.asarray(slow.vertices) / scale).astype(np.float32))
        closed = _tidied(vertices, torch.from_numpy(np.asarray(slow.triangles).astype(np.int64)))
        found = closed if found is None or (closed is not None and geometry.is_closed(closed.faces)) else found
    if found is None:
        raise InputError(f"faces: nothing remains of {mesh.num_faces} faces with at most {max_faces}; want more --faces")
    return found


def _tidied(vertices: Tensor, faces: Tensor) -> Mesh | None:
    """Without degenerate faces, pairs of faces on the same vertices, and unused vertices.

    Such pairs are flaps that stick out from an edge, front to front; without them, the edge has two faces again.
    """
    faces = faces[(faces != faces.roll(1, 1)).all(1)]
    _, place, times = torch.unique(faces.sort(1).values, dim=0, return_inverse=True, return_counts=True)
    faces = faces[times[place] == 1]
    if not len(faces):
        return None
    vertices, faces, _ = geometry.drop_unused_vertices(vertices, faces)
    return Mesh(vertices, faces)
