"""The background of a scene with cameras around an object: one smooth surface, seen from the center of the cameras.

Floors, walls and sky have few features that determine their depth, and a fit leaves haze there, so depths of single pixels
are unreliable. As a distance for each direction from the center, averaged over all views and filled smoothly where they have
no information, they become a surface without holes and fragments. Planes have zero cost: their inverse distance is linear in
the direction, and so in the null space of Laplacian + 2 on the sphere, whose square is the penalty.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision3d.geometry import mesh as geometry, shapes
from vision3d.render.baking.views import SceneViews
from vision3d.scene import Cameras, Mesh
from vision3d.stages.mesh import cleanup
from vision3d.stages.mesh.bounds import Box

logger = logging.getLogger("vision3d.mesh")

_LEVEL = 6
"""Subdivisions of the icosphere: edges of about 1 degree."""
_PER_VIEW = 16_384
"""Number of pixels used per view."""
_MIN_SPREAD = 0.01
"""Standard deviation of a pixel, relative to distance."""
_SMOOTH = 6.0
"""Length over which reliable data is smoothed [edges]."""
_ROUNDS = 2
"""Iterations of reweighting by residuals."""
_CLEAR = 1.05
"""Factor by which the background stays behind foreground objects."""
_BEHIND = 1.15
"""Minimum distance of the background, relative to the distance to the border of the cameras' hull."""
_BEYOND = 1.5
"""The same where no view shows it."""
_RINGS = 3
"""Rings of directions added around those with foreground objects."""
_AROUND = 8
"""Rings of faces added around visible ones, as other cameras see past the borders."""


def background(
    views: SceneViews, box: Box, center: Tensor, front: Mesh, min_views: int, step: Callable[[int], None]
) -> Mesh | None:
    """The surface behind the box; None if the views show none.

    Args:
        views: Rendered scene.
        box: Box of the foreground.
        center: Center of the cameras' views, shape (3,).
        front: Foreground mesh.
        min_views: Minimum number of views of a face.
        step: Called with the number of finished views.
    """
    from scipy.spatial import KDTree

    ball, faces = shapes.icosphere(_LEVEL)
    tree = KDTree(ball.numpy())
    nearest = np.zeros(len(ball))
    offsets = (front.vertices - center).numpy()
    far = np.linalg.norm(offsets, axis=1)
    place: Any = tree.query(offsets / np.maximum(far, 1e-12)[:, None])[1]
    np.maximum.at(nearest, place, far)
    # A vertex of the foreground covers the surrounding directions as well.
    edges = geometry.unique_edges(faces)[0].numpy()
    for _ in range(_RINGS):
        wide = nearest.copy()
        np.maximum.at(wide, edges[:, 0], nearest[edges[:, 1]])
        np.maximum.at(wide, edges[:, 1], nearest[edges[:, 0]])
        nearest = wide
    rows, inverse, widths = [], [], []
    for index in range(len(views)):
        maps = views[index]
        points = views.points(index, maps)
        is_behind = (maps.depth > 0) & (~maps.is_certain | ~box.contains(points))
        stride = max(1, int(is_behind.sum()) // _PER_VIEW)
        offsets = (points[is_behind][::stride] - center).double().numpy()
        distance = np.maximum(np.linalg.norm(offsets, axis=1), 1e-12)
        row: Any = tree.query(offsets / distance[:, None])[1]
        kept = distance > _CLEAR * nearest[row]
        spread = maps.spread[is_behind][::stride].double().numpy()
        rows.append(row[kept])
        inverse.append(1 / distance[kept])
        widths.append((np.maximum(spread, _MIN_SPREAD * distance) / distance**2)[kept])
        step(index + 1)
    vertex_ids, values, width = np.concatenate(rows), np.concatenate(inverse), np.concatenate(widths)
    if len(vertex_ids) < 100:
        return None
    # New views are between the given ones: where these have no information, the background is assumed to be well behind.
    reach = _reach_of_cameras((views.cameras.centers.cpu() - center).double().numpy(), ball.numpy())
    free = np.flatnonzero((np.bincount(vertex_ids, minlength=len(ball)) == 0) & (reach > 0))
    vertex_ids = np.concatenate([vertex_ids, free])
    values = np.concatenate([values, 1 / (_BEYOND * reach[free])])
    width = np.concatenate([width, 0.1 * values[len(values) - len(free) :]])
    nearest = np.maximum(nearest, _BEHIND * reach)
    solved = _smooth_field(edges, len(ball), vertex_ids, values, width)
    limit = 1 / (_CLEAR * np.maximum(nearest, 1e-12))
    far = 1 / np.clip(np.minimum(solved, limit), 0.2 * np.quantile(values, 0.01), None)
    mesh = Mesh((center + ball.double() * torch.from_numpy(far)[:, None]).float(), faces.flip(1))  # seen from inside
    return _seen_part(mesh, front, views.cameras, min_views)


def _reach_of_cameras(offsets: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Distance to the convex hull of cameras and their center, the origin, in each direction; 0 outside it."""
    from scipy.spatial import ConvexHull

    # QJ: cameras on a circle around their center have a flat hull, which is joggled.
    planes = ConvexHull(np.concatenate([np.zeros((1, 3)), offsets]), qhull_options="QJ").equations
    toward = directions @ planes[:, :3].T
    # Directions on the outer side of a plane through the origin leave the hull there, at distance 0.
    ends = np.where(toward > 1e-9, np.maximum(-planes[:, 3], 0) / np.maximum(toward, 1e-9), np.inf)
    reach = ends.min(1)
    return np.where(reach > 0.01 * np.linalg.norm(offsets, axis=1).max(), reach, 0)  # outside it, joggling leaves small values


def _smooth_field(edges: np.ndarray, count: int, row: np.ndarray, values: np.ndarray, width: np.ndarray) -> np.ndarray:
    """A smooth field on the sphere's vertices that fits the values, with weights that decrease with the residuals."""
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import cg

    pairs = np.concatenate([edges, edges[:, ::-1]])
    adjacency = coo_array((np.ones(len(pairs)), pairs.T), shape=(count, count)).tocsr()
    degree = np.asarray(adjacency.sum(1))
    # On near equal triangles of side h, 4 / h^2 times (mean of the neighbors - own) is the Laplacian.
    side = np.sqrt(4 * np.pi / count * 2 / np.sqrt(3))
    bent = (diags_array(1 / degree) @ adjacency - diags_array(np.ones(count))) + diags_array(np.full(count, 0.5 * side**2))
    penalty = _SMOOTH**4 * (bent.T @ bent)
    base = (values / width) ** 2
    base /= np.quantile(base, 0.9)
    solved, weights = np.full(count, np.median(values)), base
    for round_ in range(_ROUNDS + 1):
        if round_:
            residual = (values - solved[row]) / np.maximum(np.median(np.abs(values - solved[row])), 1e-12)
            weights = base / (1 + (residual / 2) ** 2)
        own = np.bincount(row, weights, count)
        own_values = np.bincount(row, weights * values, count)
        typical = np.median(own[own > 0])
        system = penalty + diags_array(own / typical + 1e-6)
        # The weak pull to the median bounds the field where no view shows it.
        right = own_values / typical + 1e-6 * np.median(values)
        solved, _ = cg(system, right, solved, rtol=1e-6, maxiter=400, M=diags_array(1 / system.diagonal()))
    return solved


def _seen_part(mesh: Mesh, front: Mesh, cameras: Cameras, min_views: int) -> Mesh | None:
    """The largest part that enough cameras see past the foreground, and some faces around it."""
    both = Mesh(front.vertices, front.faces).merge(mesh)
    times = cleanup.times_seen(both, cameras)[front.num_faces :]
    is_kept = times >= min_views
    for _ in range(_AROUND):
        touched = torch.zeros(mesh.num_vertices, dtype=torch.bool)
        touched[mesh.faces[is_kept].flatten()] = True
        is_kept = touched[mesh.faces].any(1)
    if not bool(is_kept.any()):
        return None
    return cleanup.main_parts(Mesh(mesh.vertices, mesh.faces[is_kept]), 0, 1)[0]
