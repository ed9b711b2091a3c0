"""Depth maps to a surface: truncated signed distances in blocks of voxels (Open3D), with a bound on the memory."""

import importlib
import logging
import math
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.errors import ConfigError, InputError, MissingDependencyError
from vision3d.scene import Mesh
from vision3d.stages.meshing.bounds import Box
from vision3d.stages.meshing.config import MIN_RESOLUTION
from vision3d.stages.meshing.views import Maps, SceneViews

logger = logging.getLogger("vision3d.mesh")

SIDE = 16
"""Voxels along a side of a block."""
BLOCK_BYTES = SIDE**3 * (8 + 16) + 40_000
"""Of one block: distance and weight, four indices of marching cubes a voxel, and its share of the surface."""
_KEY = 1 << 20
"""Blocks along an axis, at most, on either side of the world's origin."""


class Grid(NamedTuple):
    """Where voxels are."""

    voxel: float
    """Their side [m]."""
    blocks: Int64[Tensor, "b 3"]
    """Places of the blocks, in sides of a block."""


def open3d() -> ModuleType:
    """The package.

    Raises:
        MissingDependencyError: It is not installed, or a library that it needs is not.
    """
    try:
        return importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        raise MissingDependencyError("open3d", "mesh", "meshes of scenes") from error


def fuse(views: SceneViews, grid: Grid, *, truncation: float, min_views: int, step: Callable[[int], None]) -> Mesh:
    """The surface where the mean signed distance to what the views show is zero.

    Args:
        views: Rendered scene.
        grid: Of `plan`.
        truncation: Distance up to which a view tells about the surface [voxels].
        min_views: Views that must have seen all corners of a voxel.
        step: Takes the number of views that are done.

    Raises:
        InputError: There is no such place.
        MissingDependencyError: Open3D is not there.
    """
    o3d = open3d()
    tensor, float32 = o3d.core.Tensor, o3d.core.float32
    count = len(grid.blocks)
    voxels = o3d.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight"), (float32, float32), ((1), (1)), grid.voxel, SIDE, count + 1, o3d.core.Device("CPU:0")
    )
    corners = grid.blocks.double() * SIDE * grid.voxel
    reach = 0.5 * math.sqrt(3) * SIDE * grid.voxel + truncation * grid.voxel
    middles = corners + 0.5 * SIDE * grid.voxel
    for index in range(len(views)):
        maps = views[index]
        viewmat, K = views.cameras.viewmats[index].cpu().double(), views.cameras.Ks[index].cpu().double()
        depth, far = _with_free_space(maps, reach)
        seen = _in_sight(middles, reach, viewmat, K, maps)
        if bool(seen.any()):
            K = K.clone()
            K[:2, 2] -= 0.5  # Open3D has the centre of the first pixel at 0
            voxels.integrate(
                tensor(grid.blocks[seen].int().numpy()), o3d.t.geometry.Image(tensor(depth.numpy())), tensor(K.numpy()),
                tensor(viewmat.numpy()), 1.0, 2 * far, truncation,
            )  # fmt: skip
        step(index + 1)
    found = voxels.extract_triangle_mesh(min_views - 0.5)
    if "indices" not in found.triangle or not len(found.triangle.indices):
        raise InputError(
            f"scene: no part of it is seen by {min_views} of the {len(views)} views; want more cameras, or fewer --min-views"
        )
    vertices = torch.from_numpy(found.vertex.positions.numpy().copy())
    return Mesh(vertices, torch.from_numpy(found.triangle.indices.numpy().astype(np.int64)))


def plan(
    views: SceneViews, box: Box, voxel: float, *, truncation: float, max_bytes: float, step: Callable[[int], None]
) -> Grid:
    """The blocks near the surfaces inside the box; voxels are larger than asked for where the memory would not do.

    Raises:
        ConfigError: Not even a coarse grid fits.
        InputError: No surface is inside the box.
    """
    asked = voxel
    longest = box.longest
    while True:
        blocks = _near_surfaces(views, box, voxel, truncation, step)
        if not len(blocks):
            raise InputError(
                f"box: no view shows a surface inside {box.low.tolist()} to {box.high.tolist()}; want another --box"
            )
        share = len(blocks) * BLOCK_BYTES / max_bytes
        if share <= 1:
            break
        # Blocks go with the surface: with the square of the resolution, and slower where they are few.
        voxel *= max(1.05, 1.02 * math.sqrt(share))
        if longest / voxel < MIN_RESOLUTION:
            need = len(blocks) * BLOCK_BYTES / 1e9
            raise ConfigError("max_memory", f"got {max_bytes / 1e9:.2g} GB for voxels, want at least {need:.2g} for this scene")
    if voxel > asked:
        logger.warning(
            "a resolution of %d would take more than the %.3g GB for voxels; %d is taken (--max-memory)",
            round(longest / asked), max_bytes / 1e9, round(longest / voxel),
        )  # fmt: skip
    return Grid(voxel, blocks)


def _near_surfaces(views: SceneViews, box: Box, voxel: float, truncation: float, step: Callable[[int], None]) -> Tensor:
    side = SIDE * voxel
    if float(torch.maximum(box.high.abs(), box.low.abs()).max()) / side >= _KEY:
        raise ConfigError("voxel", f"got {voxel:g} m, which is too small for a scene this far from the origin")
    keys = torch.empty(0, dtype=torch.int64)
    around = torch.tensor([[x, y, z] for x in (-1.5, 1.5) for y in (-1.5, 1.5) for z in (-1.5, 1.5)]).double() * voxel
    for index in range(len(views)):
        maps = views[index]
        points = views.points(index, maps)[maps.depth > 0]
        points = points[box.contains(points)].double()
        eye = views.cameras.centers[index].cpu().double()
        rays = torch.nn.functional.normalize(points - eye, dim=-1) * truncation * voxel
        near = torch.unique(torch.cat([cell_keys(points + sign * rays, side) for sign in (-1, 0, 1)]))
        cells = torch.unique(cell_keys((points[:: max(1, len(points) // 65536)][:, None] + around).flatten(0, 1), side))
        keys = torch.unique(torch.cat([keys, near, cells]))
        step(index + 1)
    return torch.stack([keys // (4 * _KEY**2), keys // (2 * _KEY) % (2 * _KEY), keys % (2 * _KEY)], -1) - _KEY


def cell_keys(points: Float[Tensor, "n 3"], side: float) -> Int64[Tensor, " n"]:
    """One number for the cell of this side that each point is in."""
    place = torch.floor(points / side).long() + _KEY
    return (place[:, 0] * 2 * _KEY + place[:, 1]) * 2 * _KEY + place[:, 2]


def _with_free_space(maps: Maps, reach: float) -> tuple[Tensor, float]:
    """The depth map with a far value where rays meet nothing, and that value."""
    far = 10 * float(maps.depth.max()) + 1e3 * reach
    return torch.where(maps.is_free, far, maps.depth).float().contiguous(), far


def _in_sight(middles: Float[Tensor, "b 3"], reach: float, viewmat: Tensor, K: Tensor, maps: Maps) -> Tensor:
    """Blocks that may be in the picture, judged by the balls about them."""
    x, y, z = (middles @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(-1)
    height, width = maps.depth.shape
    is_seen = z > -reach
    for place, focal, center, size in ((x, K[0, 0], K[0, 2], width), (y, K[1, 1], K[1, 2], height)):
        for slope, sign in ((-center / focal, 1), ((size - center) / focal, -1)):
            # Signed distance from the plane through the eye and a side of the picture.
            is_seen &= sign * (place - slope * z) / (1 + slope**2).sqrt() > -reach
    return is_seen
