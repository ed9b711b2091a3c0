"""Depth maps to a closed surface: screened Poisson reconstruction of their points and normals (Open3D)."""

import logging
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError
from vision3d.geometry.mesh import drop_unused_vertices
from vision3d.render.baking.views import SceneViews
from vision3d.scene import Mesh
from vision3d.stages.mesh.bounds import Box
from vision3d.stages.mesh.fusion import cell_keys, open3d

logger = logging.getLogger("vision3d.mesh")

POINT_BYTES = 4000
"""Bytes per point while solving: its nodes of the octree, and its share of the surface."""
_MAX_DEPTH = 12
_STEEPEST = 0.17
"""Minimum cosine; points seen at a smaller one have unreliable normals."""


def reconstruct(
    views: SceneViews, box: Box, voxel: float, *, trim: float, max_bytes: float, step: Callable[[int], None]
) -> tuple[Mesh, float]:
    """The surface whose indicator function fits the points and normals of the depth maps, and the side of its cells [m].

    Args:
        views: Rendered scene.
        box: Region to keep.
        voxel: Finest cell, and distance of the points [m].
        trim: Faces farther than this from every point are removed [voxels]; 0 keeps the closed surface.
        max_bytes: Memory for the equation; cells are enlarged if it is insufficient.
        step: Called with the number of finished views.

    Raises:
        ConfigError: Not even a coarse surface fits.
        InputError: No surface is inside the box.
        MissingDependencyError: Open3D is not installed.
    """
    o3d = open3d()
    asked = voxel
    points, normals = _thinned(views, box, voxel, step)
    if len(points) < 10:
        raise InputError(f"box: no view has a surface inside {box}; want another --box")
    while len(points) * POINT_BYTES > max_bytes:
        voxel *= max(1.05, 1.02 * math.sqrt(len(points) * POINT_BYTES / max_bytes))
        points, normals = _means(points, normals, torch.ones(len(points), dtype=torch.float64), voxel)[:2]
        if box.longest / voxel < 16:
            raise ConfigError("max_memory", f"got {max_bytes / 1e9:.2g} GB for points, which is too little for this scene")
    if voxel > asked:
        logger.warning(
            "a resolution of %d needs more than the %.3g GB for points; using %d (--max-memory)",
            round(box.longest / asked), max_bytes / 1e9, round(box.longest / voxel),
        )  # fmt: skip
    depth = min(_MAX_DEPTH, max(4, math.ceil(math.log2(1.1 * box.longest / voxel))))
    threads = torch.get_num_threads()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.numpy()))
    cloud.normals = o3d.utility.Vector3dVector(normals.numpy())
    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        found, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth, n_threads=threads)
    vertices = torch.from_numpy(np.asarray(found.vertices).copy())
    faces = torch.from_numpy(np.asarray(found.triangles).astype(np.int64))
    is_kept = box.contains(vertices.float())
    if trim > 0:
        from scipy.spatial import KDTree

        distance, _ = KDTree(points.numpy()).query(vertices.numpy(), distance_upper_bound=trim * voxel)
        is_kept &= torch.from_numpy(np.isfinite(distance))
        faces = faces[is_kept[faces].all(1)]
    vertices, faces, _ = drop_unused_vertices(vertices, faces)
    if not len(faces):
        raise InputError("scene: the Poisson surface is far from the points; want a larger --trim, or --method tsdf")
    return Mesh(vertices.float(), faces), voxel


def _thinned(views: SceneViews, box: Box, voxel: float, step: Callable[[int], None]) -> tuple[Tensor, Tensor]:
    """One mean point and normal per voxel."""
    points, normals = torch.empty(0, 3, dtype=torch.float64), torch.empty(0, 3, dtype=torch.float64)
    weights = torch.empty(0, dtype=torch.float64)
    for index in range(len(views)):
        maps = views[index]
        places = views.points(index, maps)
        rays = torch.nn.functional.normalize(places - views.cameras.centers[index].cpu(), dim=-1)
        cosines = -(rays * maps.normal).sum(-1)
        is_good = (maps.depth > 0) & (cosines > _STEEPEST) & box.contains(places)
        points = torch.cat([points, places[is_good].double()])
        normals = torch.cat([normals, maps.normal[is_good].double()])
        weights = torch.cat([weights, cosines[is_good].double()])
        points, normals, weights = _means(points, normals, weights, voxel)
        step(index + 1)
    return points, torch.nn.functional.normalize(normals, dim=-1)


def _means(points: Tensor, normals: Tensor, weights: Tensor, voxel: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted means of the points in each voxel, of their normals, and the sums of the weights."""
    if not len(points):
        return points, normals, weights
    _, group = torch.unique(cell_keys(points, voxel), return_inverse=True)
    count = int(group.max()) + 1
    total = torch.zeros(count, dtype=torch.float64).index_add(0, group, weights)

    def mean(values: Tensor) -> Tensor:
        sums = torch.zeros(count, 3, dtype=torch.float64).index_add(0, group, weights[:, None] * values)
        return sums / total[:, None]

    return mean(points), mean(normals), total
