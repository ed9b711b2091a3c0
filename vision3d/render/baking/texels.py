"""Colors of a mesh from rendered views: means weighted by angle and visibility."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.render.baking.views import Maps, SceneViews
from vision3d.render.meshes import rasterize, screen_positions
from vision3d.render.meshes.texels import spread, texels_of
from vision3d.scene import Cameras, Mesh

logger = logging.getLogger("vision3d.mesh")

_SHARPNESS = 4
"""Power of the cosine between normal and view in the weights."""
_MIN_COSINE = 0.1
"""Minimum cosine for coloring a point from a view."""
_BIAS = 1.5
"""Maximum depth of a point behind the nearest surface of its pixel [pixels at that depth]."""
_NEARER = 0.93
"""Fraction of the mesh depth below which a view shows something other than the mesh."""


def colors_of(
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    mesh: Mesh,
    views: SceneViews,
    step: Callable[[int], None],
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
    """Mean colors of points on a mesh in the views that see them, and a mask of visible points.

    A view sees a point that no face of the mesh occludes, according to the depth of the mesh in that view. Its weight is
    alpha cos^4 / depth^2: it decreases with the angle, and with the size of a pixel on the surface.
    """
    total, weights = torch.zeros(len(points), 3), torch.zeros(len(points))
    for index in range(len(views)):
        maps, camera = views[index], views.cameras[index : index + 1].to("cpu")
        weight, grid = _weights(points, normals, mesh, camera, maps)
        seen = weight > 0
        if bool(seen.any()):
            # The color of a transparent pixel is undefined and must not be blended in.
            shown = _sampled(torch.cat([maps.color * maps.alpha[..., None], maps.alpha[..., None]], -1), grid[seen])
            total[seen] += weight[seen, None] * shown[:, :3] / shown[:, 3:]
            weights[seen] += weight[seen]
        step(index + 1)
    is_seen = weights > 0
    return total / weights.clamp(min=1e-12)[:, None], is_seen


def bake(mesh: Mesh, views: SceneViews, size: int, step: Callable[[int], None]) -> tuple[Mesh, float]:
    """The mesh with a texture of the mean colors, and the fraction of its texels visible in views.

    Invisible texels, and all texels between the charts, get the color of the nearest visible texel, so that neither bilinear
    sampling nor mip levels show seams.
    """
    texels = texels_of(mesh, size)
    colors, is_seen = colors_of(texels.points, texels.normals, mesh, views, step)
    texture = torch.zeros(size, size, 3)
    texture[texels.mask] = colors
    is_known = torch.zeros(size, size, dtype=torch.bool)
    is_known[texels.mask] = is_seen
    return replace(mesh, texture=spread(texture, is_known)), float(is_seen.float().mean()) if len(is_seen) else 0.0


def color_vertices(mesh: Mesh, views: SceneViews, step: Callable[[int], None]) -> tuple[Mesh, float]:
    """The mesh with vertex colors, and the fraction of its vertices visible in views; the others get the nearest one's."""
    assert mesh.normals is not None
    colors, is_seen = colors_of(mesh.vertices, mesh.normals, mesh, views, step)
    if bool(is_seen.any()) and not bool(is_seen.all()):
        from scipy.spatial import KDTree

        _, nearest = KDTree(mesh.vertices[is_seen].numpy()).query(mesh.vertices[~is_seen].numpy())
        colors[~is_seen] = colors[is_seen][torch.from_numpy(np.asarray(nearest))]
    return replace(mesh, vertex_colors=colors.clamp(0, 1)), float(is_seen.float().mean())


def _weights(points: Tensor, normals: Tensor, mesh: Mesh, camera: Cameras, maps: Maps) -> tuple[Tensor, Tensor]:
    """Weight of the view for each point (0 if it is not visible), and its pixel position."""
    width, height = int(camera.width), int(camera.height)
    viewmat, K = camera.viewmats[0], camera.Ks[0]
    rays = torch.nn.functional.normalize(points - camera.centers[0], dim=-1)
    cosines = -(rays * normals).sum(-1)
    place = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    depth = place[:, 2]
    pixels = (place[:, :2] / depth.clamp(min=1e-6)[:, None]) @ K[:2, :2].T + K[:2, 2]
    is_inside = (depth > 0) & (pixels >= 0.5).all(-1) & (pixels[:, 0] <= width - 0.5) & (pixels[:, 1] <= height - 0.5)
    positions = screen_positions(mesh.vertices, camera.viewmats, camera.Ks)
    surface = rasterize(positions, mesh.faces, width, height)
    # Both the mesh's depth and the view's color are wrong where a pixel is half covered by something nearer.
    nearest = torch.where(surface.face_ids[0] >= 0, surface.depths[0], torch.inf)
    nearest = _least_around(nearest)
    column, row = pixels.nan_to_num().long().clamp(min=0).unbind(-1)
    column, row = column.clamp(max=width - 1), row.clamp(max=height - 1)
    # Within a pixel and its neighbors, the depth of a slanted surface changes by some pixels over the cosine.
    slack = _BIAS * depth / K[0, 0] * (1 + 2 * (1 - cosines.clamp(0, 1) ** 2).sqrt() / cosines.clamp(min=_MIN_COSINE))
    is_seen = is_inside & (cosines > _MIN_COSINE) & (depth <= nearest[row, column] + slack)
    is_seen &= _shown_depth(maps)[row, column] >= _NEARER * depth
    alpha = _sampled(maps.alpha[..., None], pixels)[:, 0]
    weight = torch.where(is_seen & (alpha > 0.5), alpha * cosines.clamp(min=0) ** _SHARPNESS / depth.clamp(min=1e-6) ** 2, 0)
    return weight, pixels


def is_own(maps: Maps, depth: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Pixels whose color is that of a mesh with this depth, and not of something in front of it that the mesh lacks."""
    return _shown_depth(maps) >= _NEARER * depth


def _shown_depth(maps: Maps) -> Float[Tensor, "h w"]:
    """Minimum depth that a view shows at a pixel or next to it; infinity where it shows no surface, or haze."""
    return _least_around(torch.where(maps.is_certain, maps.depth, torch.inf))


def _least_around(depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Minimum over each pixel and its eight neighbors."""
    return -torch.nn.functional.max_pool2d(-depth[None], 3, 1, 1)[0]


def _sampled(image: Float[Tensor, "h w c"], pixels: Float[Tensor, "n 2"]) -> Float[Tensor, "n c"]:
    """Bilinear between pixel centers."""
    height, width = image.shape[:2]
    grid = 2 * pixels / pixels.new_tensor([width, height]) - 1
    found = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], grid[None, None], align_corners=False, padding_mode="border"
    )
    return found[0, :, 0].T
