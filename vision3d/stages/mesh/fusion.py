"""Depth maps to a surface: truncated signed distances in blocks of voxels (Open3D), with a memory limit."""

import importlib
import logging
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError, MissingDependencyError
from vision3d.geometry.mesh import drop_unused_vertices
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.render.baking.views import Maps, SceneViews
from vision3d.scene import GaussianScene, Mesh
from vision3d.stages.mesh.bounds import Box
from vision3d.stages.mesh.config import MIN_RESOLUTION
from vision3d.stages.mesh.thin import opacity_in_voxels

logger = logging.getLogger("vision3d.mesh")

SIDE = 16
"""Voxels along a side of a block."""
BLOCK_BYTES = SIDE**3 * (9 + 16) + 40_000
"""Bytes per block: distance, weight and count, four indices of marching cubes per voxel, and its share of the surface."""
_AT_ONCE = 64
"""Number of blocks processed together."""
_MIN_COSINE = 0.15
"""Minimum cosine; surfaces at a smaller one are ignored."""
_MIN_WEIGHT = 1e-6
"""Minimum weight of known voxels."""
_STEEP = 12
"""Depth difference of adjacent pixels, in pixels, above which they belong to two surfaces."""
_CARVED = 0.5
"""Distance from the surface above which a thin Gaussian is not part of it [voxels]."""
_LEVEL = 0.3
"""Opacity at the surface of thin Gaussians."""
_STEEPNESS = 0.4
"""Truncation distances per opacity, for thin Gaussians."""
_KEY = 1 << 20
"""Maximum number of blocks along an axis, on either side of the world's origin."""


class Grid(NamedTuple):
    """Blocks of voxels."""

    voxel: float
    """Side of a voxel [m]."""
    blocks: Int64[Tensor, "b 3"]
    """Positions of the blocks, in sides of a block."""
    box: Box
    """Region to keep."""


def open3d() -> ModuleType:
    """Imports the package.

    Raises:
        MissingDependencyError: It is not installed, or a library that it needs is missing.
    """
    try:
        return importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        raise MissingDependencyError("open3d", "mesh", "meshes of scenes") from error


def fuse(
    views: SceneViews,
    grid: Grid,
    *,
    truncation: float,
    min_views: int,
    step: Callable[[int], None],
    thin: GaussianScene | None = None,
) -> Mesh:
    """The zero level set of the mean signed distance to the visible surface.

    The distance of a voxel is that from the tangent plane at its pixel, clamped to the truncation in front of it. Views are
    weighted by the cosine between the normal and the ray. Voxels farther behind are hidden and not updated.

    Args:
        views: Rendered scene.
        grid: Result of `plan`.
        truncation: Distance up to which a view has information about the surface [voxels].
        min_views: Minimum number of views that have seen all corners of a voxel.
        step: Called with the number of finished views.
        thin: Result of `thin_gaussians`: missing ones are added.

    Raises:
        InputError: No such surface.
        MissingDependencyError: Open3D is not installed.
    """
    o3d = open3d()
    count, float32 = len(grid.blocks), o3d.core.float32
    voxels = o3d.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight"), (float32, float32), ((1), (1)), grid.voxel, SIDE, count + 1, o3d.core.Device("CPU:0")
    )
    rows, _ = voxels.hashmap().activate(o3d.core.Tensor(grid.blocks.int().numpy()))
    rows = torch.from_numpy(rows.numpy().astype(np.int64))
    # Views of the grid's memory.
    sums, weights = (torch.from_numpy(voxels.attribute(name).numpy()).view(-1, SIDE**3) for name in ("tsdf", "weight"))
    for values in (sums, weights):
        values.zero_()
    times = torch.zeros(len(sums), SIDE**3, dtype=torch.uint8)
    corners = grid.blocks.double() * SIDE * grid.voxel
    reach = (0.5 * math.sqrt(3) * SIDE + truncation) * grid.voxel
    for index in range(len(views)):
        rays = _Rays.of(views, index, truncation * grid.voxel)
        seen = rays.in_sight(corners + 0.5 * SIDE * grid.voxel, reach).nonzero()[:, 0]
        for some in seen.split(_AT_ONCE):
            distance, weight = rays.distances(corners[some], grid.voxel)
            place = rows[some]
            sums[place] += distance * weight
            weights[place] += weight
            times[place] += ((weight > 0) & (times[place] < 255)).to(torch.uint8)
        step(index + 1)
    sums /= weights.clamp(min=1e-12)
    weights[times < min_views] = 0
    vertices, faces = _extracted(voxels, grid.box)
    if thin is not None and len(thin) and len(faces):
        _add_thin(sums, weights, rows, grid, thin, Mesh(vertices, faces))
        vertices, faces = _extracted(voxels, grid.box)
    if not len(faces):
        raise InputError(
            f"scene: no part of its surface is seen by {min_views} of the {len(views)} views; "
            "want more cameras, or fewer --min-views"
        )
    return Mesh(vertices, faces)


def with_blocks_at(grid: Grid, thin: GaussianScene, max_bytes: float) -> Grid:
    """The grid with blocks around thin Gaussians added (`plan` adds only those near visible surfaces); unchanged if too many.

    Args:
        grid: Result of `plan`.
        thin: Result of `thin_gaussians`.
        max_bytes: Memory for the voxels.
    """
    reach = 3 * thin.log_scales.exp().amax(-1, keepdim=True).double().clamp(min=grid.voxel)
    axis = quat_to_rotmat(thin.quats).gather(2, thin.log_scales.argmax(-1)[:, None, None].expand(-1, 3, 1))[..., 0].double()
    ends = [thin.means.double() + share * reach * axis for share in torch.linspace(-1, 1, 17).tolist()]
    found = torch.unique(torch.cat([torch.floor(end / (SIDE * grid.voxel)).long() for end in ends]), dim=0)
    more = found[~torch.isin(_block_keys(found), _block_keys(grid.blocks))]
    if (len(grid.blocks) + len(more)) * BLOCK_BYTES > max_bytes:
        logger.info("no memory for %d blocks of thin Gaussians (--max-memory)", len(more))
        return grid
    return grid._replace(blocks=torch.cat([grid.blocks, more]))


def _add_thin(distances: Tensor, weights: Tensor, rows: Tensor, grid: Grid, thin: GaussianScene, surface: Mesh) -> None:
    """Adds thin Gaussians that are not at the surface, as free space has carved them away, to the voxels, in place."""
    o3d = open3d()
    rays = o3d.t.geometry.RaycastingScene()
    rays.add_triangles(o3d.core.Tensor(surface.vertices.numpy()), o3d.core.Tensor(surface.faces.numpy().astype(np.uint32)))
    away = torch.from_numpy(rays.compute_distance(o3d.core.Tensor(thin.means.numpy())).numpy())
    missing = thin[away > _CARVED * grid.voxel]
    logger.info("%d of %d thin Gaussians are missing", len(missing), len(thin))
    if not len(missing):
        return
    places, opacity = opacity_in_voxels(missing, grid.voxel)
    keys, order = _block_keys(grid.blocks).sort()
    blocks = torch.div(places, SIDE, rounding_mode="floor")
    wanted = _block_keys(blocks)
    found = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    is_there = keys[found] == wanted

    x, y, z = (places - SIDE * blocks)[is_there].unbind(1)
    at = rows[order[found[is_there]]], (z * SIDE + y) * SIDE + x
    own = torch.where(weights[at] > _MIN_WEIGHT, distances[at], 1)
    distances[at] = torch.minimum(own, _STEEPNESS * (_LEVEL - opacity[is_there]))
    weights[at] = weights[at].clamp(min=2 * _MIN_WEIGHT)


def _extracted(voxels: Any, box: Box) -> tuple[Tensor, Tensor]:
    """Vertices and faces of marching cubes inside the box."""
    found = voxels.extract_triangle_mesh(_MIN_WEIGHT)
    if "indices" not in found.triangle or not len(found.triangle.indices):
        return torch.empty(0, 3), torch.empty(0, 3, dtype=torch.int64)
    vertices = torch.from_numpy(found.vertex.positions.numpy().copy())
    faces = torch.from_numpy(found.triangle.indices.numpy().astype(np.int64))
    return _in_order(vertices, faces[box.contains(vertices)[faces].all(1)])


def _in_order(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The used vertices sorted by position, and the faces by their vertices, as Open3D's threads shuffle both."""
    vertices, faces, _ = drop_unused_vertices(vertices, faces)
    order = torch.from_numpy(np.lexsort(vertices.T.numpy()))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    faces = rank[faces]
    first = faces.argmin(1)
    faces = torch.stack([faces.gather(1, ((first + k) % 3)[:, None])[:, 0] for k in range(3)], -1)
    return vertices[order], faces[torch.from_numpy(np.lexsort(faces.T.numpy()))]


class _Rays(NamedTuple):
    """Information of one view about points."""

    maps: Float[Tensor, "1 4 h w"]
    """Inverse depth (0 where the ray hits nothing), cosine, inverse truncation [1/m], and a mask of surfaces;
    NaN where the view has no information."""
    viewmat: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    truncation: float
    """Truncation of a reliable ray [m]."""

    @classmethod
    def of(cls, views: SceneViews, index: int, truncation: float) -> "_Rays":
        maps, K = views[index], views.cameras.Ks[index].cpu().double()
        directions = torch.nn.functional.normalize(views.points(index, maps) - views.cameras.centers[index].cpu(), dim=-1)
        cosine = -(directions * maps.normal).sum(-1)
        # Haze occludes nothing in front of it.
        depth = torch.where(maps.is_certain, maps.depth, (maps.depth - maps.spread).clamp(min=0))
        inverse = torch.where(depth > 0, 1 / depth, torch.nan)
        inverse[cosine < _MIN_COSINE] = torch.nan
        # Next to an edge, the farther surface is visible through the transparent rim of the nearer one.
        near = -torch.nn.functional.max_pool2d(-torch.where(maps.depth > 0, maps.depth, torch.inf)[None], 3, 1, 1)[0]
        inverse[maps.depth - near > torch.clamp(_STEEP * maps.depth / float(K[0, 0]), min=truncation) + maps.spread] = torch.nan
        is_free = -torch.nn.functional.max_pool2d(-maps.is_free[None].float(), 3, 1, 1)[0] > 0
        inverse[is_free], cosine[is_free] = 0, 1
        width = torch.where(maps.is_certain, truncations(maps, truncation), truncation)
        shown = torch.stack([inverse, cosine, 1 / width, maps.is_certain.float()])
        return cls(shown[None], views.cameras.viewmats[index].cpu().double(), K, truncation)

    def distances(self, corners: Float[Tensor, "b 3"], voxel: float) -> tuple[Float[Tensor, "b v"], Float[Tensor, "b v"]]:
        """Signed distances of the voxels of blocks in truncations, at most 1, and weights, 0 without information."""
        height, width = self.maps.shape[-2:]
        z, y, x = torch.meshgrid(*[torch.arange(SIDE, dtype=torch.float64) * voxel] * 3, indexing="ij")  # x runs fastest
        turned = torch.stack([x, y, z], -1).view(-1, 3) @ self.viewmat[:3, :3].T
        base = corners @ self.viewmat[:3, :3].T + self.viewmat[:3, 3]
        places = base.float()[:, None] + turned.float()
        depth = places[..., 2]
        plane = places[..., :2] / depth.clamp(min=1e-6)[..., None]
        K = self.K.float()
        grid = torch.stack(
            [
                (plane[..., 0] * K[0, 0] + plane[..., 1] * K[0, 1] + K[0, 2]) * (2 / width) - 1,
                (plane[..., 1] * K[1, 1] + K[1, 2]) * (2 / height) - 1,
            ],
            -1,
        )
        # Inverse depth is linear in the image for a flat surface.
        found = torch.nn.functional.grid_sample(self.maps, grid[None], align_corners=False, padding_mode="border")
        inverse, cosine, inverse_width, is_certain = found[0]
        along = (1 / inverse - depth) * (1 + plane.square().sum(-1)).sqrt() * inverse_width
        # Past a rim, points far behind along the ray may be close to the tangent plane, but are still hidden.
        is_known = (along > torch.where(is_certain > 0.99, -1, 1)) & (grid.abs() <= 1).all(-1) & (depth > 1e-6)
        distance = along * cosine
        weight = cosine * (inverse_width * self.truncation)
        return distance.clamp(max=1).nan_to_num(0), torch.where(is_known, weight.nan_to_num(0), 0)

    def in_sight(self, middles: Float[Tensor, "b 3"], reach: float) -> Bool[Tensor, " b"]:
        """Blocks that may be in the image, judged by their bounding spheres."""
        x, y, z = (middles @ self.viewmat[:3, :3].T + self.viewmat[:3, 3]).unbind(-1)
        height, width = self.maps.shape[-2:]
        is_seen = z > -reach
        for place, focal, center, size in ((x, self.K[0, 0], self.K[0, 2], width), (y, self.K[1, 1], self.K[1, 2], height)):
            for slope, sign in ((-center / focal, 1), ((size - center) / focal, -1)):
                # Signed distance from the plane through the camera center and a side of the image.
                is_seen &= sign * (place - slope * z) / (1 + slope**2).sqrt() > -reach
        return is_seen


def truncations(maps: Maps, least: float) -> Float[Tensor, "h w"]:
    """Truncation of the rays [m]: widened by the spread of the opacity, so that disagreeing views overlap."""
    return (maps.spread.square() + least**2).sqrt()


def plan(
    views: SceneViews,
    box: Box,
    voxel: float,
    *,
    truncation: float,
    max_bytes: float,
    step: Callable[[int], None],
    min_views: int = 1,
) -> Grid:
    """The blocks near the surfaces inside the box; voxels are enlarged if the memory is insufficient.

    Args:
        views: Rendered scene.
        box: Region to keep.
        voxel: Side of a voxel [m].
        truncation: Distance up to which a view has information about the surface [voxels].
        max_bytes: Memory for the voxels.
        step: Called with the number of finished views.
        min_views: Minimum number of views that show a surface near a block.

    Raises:
        ConfigError: Not even a coarse grid fits.
        InputError: No surface is inside the box.
    """
    asked = voxel
    longest = box.longest
    while True:
        blocks = _near_surfaces(views, box, voxel, truncation, min_views, step)
        if not len(blocks):
            raise InputError(f"box: no view has a surface inside {box}; want another --box")
        share = len(blocks) * BLOCK_BYTES / max_bytes
        if share <= 1:
            break
        # The number of blocks grows with the surface: with the square of the resolution, more slowly if there are few.
        voxel *= max(1.05, 1.02 * math.sqrt(share))
        if longest / voxel < MIN_RESOLUTION:
            need = len(blocks) * BLOCK_BYTES / 1e9
            raise ConfigError("max_memory", f"got {max_bytes / 1e9:.2g} GB for voxels, want at least {need:.2g} for this scene")
    if voxel > asked:
        logger.warning(
            "a resolution of %d needs more than the %.3g GB for voxels; using %d (--max-memory)",
            round(longest / asked), max_bytes / 1e9, round(longest / voxel),
        )  # fmt: skip
    return Grid(voxel, blocks, box)


def _near_surfaces(
    views: SceneViews, box: Box, voxel: float, truncation: float, min_views: int, step: Callable[[int], None]
) -> Tensor:
    side = SIDE * voxel
    if float(torch.maximum(box.high.abs(), box.low.abs()).max()) / side >= _KEY:
        raise ConfigError("voxel", f"got {voxel:g} m, which is too small for a scene this far from the origin")
    keys, times = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    around = torch.tensor([[x, y, z] for x in (-1.5, 1.5) for y in (-1.5, 1.5) for z in (-1.5, 1.5)]).double() * voxel
    for index in range(len(views)):
        maps = views[index]
        points = views.points(index, maps)
        is_shown = maps.is_certain & box.contains(points)
        points, reach = points[is_shown].double(), truncations(maps, truncation * voxel)[is_shown].double()
        rays = torch.nn.functional.normalize(points - views.cameras.centers[index].cpu().double(), dim=-1) * reach[:, None]
        near = [cell_keys(points + share * rays, side) for share in (-1, 0, 1)]
        some = points[:: max(1, len(points) // 65536)]
        found = torch.unique(torch.cat([*near, cell_keys((some[:, None] + around).flatten(0, 1), side)]))
        keys, place = torch.unique(torch.cat([keys, found]), return_inverse=True)
        counts = torch.cat([times, torch.ones_like(found)])
        times = torch.zeros(len(keys), dtype=torch.int64).index_add_(0, place, counts)
        step(index + 1)
    # Next to a block near a surface that enough views show, fewer suffice, so that no surface ends at the side of a block.
    steps = [(x * 2 * _KEY + y) * 2 * _KEY + z for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    shown = keys[times >= min_views]
    keys = keys[torch.isin(keys, (shown[:, None] + torch.tensor(steps)).flatten())]
    return torch.stack([keys // (4 * _KEY**2), keys // (2 * _KEY) % (2 * _KEY), keys % (2 * _KEY)], -1) - _KEY


def cell_keys(points: Float[Tensor, "n 3"], side: float) -> Int64[Tensor, " n"]:
    """One number for the cell of this side that contains each point."""
    return _block_keys(torch.floor(points / side).long())


def _block_keys(blocks: Int64[Tensor, "n 3"]) -> Int64[Tensor, " n"]:
    place = blocks + _KEY
    return (place[:, 0] * 2 * _KEY + place[:, 1]) * 2 * _KEY + place[:, 2]
