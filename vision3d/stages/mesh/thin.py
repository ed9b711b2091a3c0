"""Rods, stems and wires: thin parts carved away by depth maps although there are Gaussians, reconstructed from the Gaussians.

For a rod thinner than a voxel or a pixel, views from one side carve away what those from the other side show. The opacity of
its Gaussians has the rod as a level set and is combined with the distances of the depth maps.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.render.baking.views import SceneViews
from vision3d.scene import GaussianScene
from vision3d.stages.mesh.bounds import Box

_WIDEST = 1.0
"""Maximum standard deviation along the middle axis of a thin Gaussian [voxels]."""
_LONGEST = 40.0
"""Maximum standard deviation along the longest axis of a thin Gaussian [voxels]."""
_SLACK = 4.0
"""Difference of depths within which a view shows a Gaussian [voxels]."""
_SHOWN = 0.3
"""Minimum fraction of the views without occlusion of a Gaussian that must show it, rather than something behind it."""
_BLUR = 0.3
"""Variance that the rasterizer adds to Gaussians that are not antialiased [px^2]."""
_REACH = 2.5
"""Maximum extent of a Gaussian [standard deviations]."""
_AT_ONCE = 1 << 20
"""Points whose distances from Gaussians are computed together."""
_MIN_WIDTH = 0.7
"""Minimum standard deviation: narrower ones fall between voxels [voxels]."""


def thin_gaussians(views: SceneViews, box: Box, voxel: float, min_views: int) -> GaussianScene:
    """The thin Gaussians in the box that enough views show, widened to the resolution of images and voxels.

    Args:
        views: Rendered scene.
        box: Region to keep.
        voxel: Side of a voxel [m].
        min_views: Minimum number of views that show a Gaussian.
    """
    scene = views.scene.to("cpu")
    sizes = scene.log_scales.exp().sort(-1).values / voxel
    thin = scene[(sizes[:, 1] < _WIDEST) & (sizes[:, 2] < _LONGEST) & box.contains(scene.means)]
    thin = thin[_is_shown(thin.means, views, _SLACK * voxel, min_views)]
    widths = (2 * thin.log_scales).exp() + _pixel_variance(views, thin.means)[:, None]
    return replace(thin, log_scales=0.5 * widths.clamp(min=(_MIN_WIDTH * voxel) ** 2).log())


def _is_shown(points: Float[Tensor, "n 3"], views: SceneViews, slack: float, min_views: int) -> Bool[Tensor, " n"]:
    """Mask of points shown by enough views, and by most of those without occlusion."""
    shown, passed = torch.zeros(len(points)), torch.zeros(len(points))
    for index in range(len(views)):
        maps, camera = views[index], views.cameras[index].to("cpu")
        place = points @ camera.viewmats[0, :3, :3].T + camera.viewmats[0, :3, 3]
        z = place[:, 2]
        pixels = place[:, :2] / z.clamp(min=1e-6)[:, None] @ camera.Ks[0, :2, :2].T + camera.Ks[0, :2, 2]
        height, width = maps.depth.shape
        is_inside = (z > 1e-6) & (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
        column, row = pixels.nan_to_num(0).long().unbind(1)
        depth = torch.where(maps.depth > 0, maps.depth, torch.inf)[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        shown += is_inside & ((depth - z).abs() < slack)
        passed += is_inside & (depth >= z + slack)
    return (shown >= min_views) & (shown > _SHOWN * (shown + passed))


def _pixel_variance(views: SceneViews, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Variance that images add to Gaussians, at their median distance [m^2]."""
    if views.scene.antialiased:
        return torch.zeros(len(points))
    centers, focals = views.cameras.centers.cpu(), views.cameras.Ks[:, 0, 0].cpu()
    return _BLUR * (torch.cdist(points, centers) / focals).median(1).values.square()


def opacity_in_voxels(scene: GaussianScene, voxel: float) -> tuple[Int64[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Voxels near Gaussians (positions in voxels), and the opacity at their corners: 1 - prod(1 - o exp(-q / 2))."""
    axes, scales = quat_to_rotmat(scene.quats), scene.log_scales.exp()
    extents = _REACH * (axes * scales[:, None]).square().sum(-1).sqrt()
    low = torch.ceil((scene.means - extents) / voxel).long()
    sizes = torch.floor((scene.means + extents) / voxel).long() + 1 - low
    base, span = low.amin(0), (low + sizes).amax(0) - low.amin(0)
    steps = torch.stack([span[1] * span[2], span[2], torch.ones_like(span[2])])
    keys, logs = [], []
    for some in _batches(sizes):
        where = low[some, None] + torch.cartesian_prod(*map(torch.arange, sizes[some].amax(0).tolist())).view(-1, 3)
        offset = (where * voxel - scene.means[some, None]) @ axes[some] / scales[some, None]
        squared = offset.square().sum(-1)
        near = squared < _REACH**2
        keys.append(((where[near] - base) * steps).sum(-1))
        # Opacities are below one, so that the logarithm is finite.
        logs.append(torch.log1p(-scene.opacities[some, None].clamp(max=0.999) * torch.exp(-0.5 * squared))[near])
    found, owner = torch.unique(torch.cat(keys), return_inverse=True)
    places = torch.stack([found // steps[0], found // span[2] % span[1], found % span[2]], -1) + base
    return places, -torch.expm1(torch.zeros(len(found)).index_add_(0, owner, torch.cat(logs)))


def _batches(sizes: Int64[Tensor, "n 3"]) -> Iterator[Int64[Tensor, " k"]]:
    """Rows of boxes of similar sizes, in batches limited by the number of points of their common size."""
    rows = sizes.prod(-1).argsort(stable=True)
    while len(rows):
        common = torch.cummax(sizes[rows], 0).values.prod(-1)
        count = max(1, int((common * torch.arange(1, len(rows) + 1) <= _AT_ONCE).long().cumprod(0).sum()))
        yield rows[:count]
        rows = rows[count:]
