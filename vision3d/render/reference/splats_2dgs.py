"""The plain torch rasterizer of 2D Gaussians with exact ray intersections (Huang et al. 2024)."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.reference.quaternion import quat_to_rotmat
from vision3d.render.reference.blending import before_limit, cut_exponents, graph_link, slab_alpha
from vision3d.render.reference.projection import (
    MAX_EXTENT,
    PairIds,
    all_pairs,
    cut_extent,
    scatter_pairs,
    seen_pairs,
    visible_radii,
)
from vision3d.render.reference.tiles import State, walk, weigh
from vision3d.render.splats.kernels import of_visible
from vision3d.render.splats.records import Blended2dgs, Camera, Gaussians, Pixels, Projected2dgs, TileLists, Visible


def project_2dgs(gaussians: Gaussians, camera: Camera, *, packed: bool = False) -> tuple[Visible, Projected2dgs]:
    """As `Kernels.project_2dgs`."""
    means, quats, scales, _, opacities = gaussians
    viewmats, Ks = camera.viewmats, camera.Ks.detach()
    shape = (viewmats.shape[0], viewmats.shape[1], means.shape[1])

    def screen(pairs: PairIds) -> tuple[Tensor, ...]:
        batch, view_id, gaussian = pairs
        view, K = viewmats[batch, view_id], Ks[batch, view_id]
        point = (view[:, :3, :3] @ means[batch, gaussian][..., None])[..., 0] + view[:, :3, 3]
        axes = view[:, :3, :3] @ quat_to_rotmat(cast(Tensor, quats)[batch, gaussian])
        splat = torch.cat([axes[:, :, :2] * cast(Tensor, scales)[batch, gaussian][:, None, :2], point[..., None]], -1)
        focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1)[..., None]
        transform = torch.cat([focal * splat[:, :2] + K[:, :2, 2:] * splat[:, 2:], splat[:, 2:]], 1)
        away = (axes[:, :, 2] * point).sum(-1, keepdim=True) >= 0
        normal = torch.where(away, -axes[:, :, 2], axes[:, :, 2])
        # Rows of x and y relative to the projected center: an offset that only affects rounding.
        anchor = transform[:, :2, 2] / transform[:, 2:, 2]
        rows = transform[:, :2, :2] - anchor[..., None] * transform[:, 2:, :2]
        reach, depth = transform[:, 2, :2], transform[:, 2, 2]
        bounded = reach.square().sum(-1) < depth.square()
        divisor = torch.where(bounded, reach.square().sum(-1) - depth.square(), -1)
        shift = (rows * reach[:, None]).sum(-1) / divisor[:, None]
        mean2d = anchor + torch.where(bounded[:, None], shift, 0)
        return mean2d, depth, transform, normal, anchor, rows, reach

    with torch.no_grad():
        pairs = all_pairs(shape, means.device)
        mean2d, depth, transform, _, anchor, rows, reach = screen(pairs)
        if opacities is None:
            extent = torch.full_like(depth, MAX_EXTENT)
        else:
            extent = cut_extent(opacities[pairs[0], pairs[2]])
        # The box of `extent` standard deviations; the entire image if they cross the plane of the camera.
        square = extent.square()[:, None]
        divisor = square * reach.square().sum(-1, keepdim=True) - depth.square()[:, None]
        center = square * (rows * reach[:, None]).sum(-1) / divisor
        half = (center.square() - square * rows.square().sum(-1) / divisor).clamp(min=0).sqrt()
        box = (anchor + center - mean2d).abs() + half
        everything = torch.maximum(mean2d.abs(), (mean2d.new_tensor([camera.width, camera.height]) - mean2d).abs()) + 1
        box = torch.maximum(torch.where(divisor < 0, box, everything), extent[:, None] * 0.5**0.5)
        seen = (depth >= camera.near_plane) & (depth <= camera.far_plane) & transform.isfinite().all(-1).all(-1)
        radii = visible_radii(seen, mean2d, torch.ceil(box), camera)
    pairs = seen_pairs(pairs, radii)
    mean2d, depth, transform, normal = (scatter_pairs(value, pairs, shape) for value in screen(pairs)[:4])
    return of_visible(Projected2dgs(radii.view(*shape, 2), mean2d, depth, transform, normal), packed)


def blend_2dgs(
    projected: Projected2dgs,
    colors: Float[Tensor, "p d"],
    opacities: Float[Tensor, " p"],
    lists: TileLists,
    pixels: Pixels = Pixels(),  # noqa: B008  a tuple of None
    *,
    alpha_max: float,
    distloss: bool,
    densify: Float[Tensor, "p 2"] | None = None,
) -> Blended2dgs:
    """As `Kernels.blend_2dgs`."""
    _, means2d, _, ray_transforms, normals = projected
    cuts = cut_exponents(opacities)
    features = torch.cat([colors, normals], -1)
    if densify is not None:
        shift = torch.nn.functional.pad(densify * ray_transforms[:, 2, 2:], (0, 1))
        ray_transforms = ray_transforms + torch.nn.functional.pad(shift[..., None], (2, 0))

    def step(state: State, ids: Tensor, positions: Tensor, listed: Tensor, x: Tensor, y: Tensor, *limit: Tensor) -> State:
        transmittance, feature, distortion, moment, median, last, middle, done = state
        exponent, met = _exponent(means2d[ids], ray_transforms[ids], x, y)
        alpha = slab_alpha(torch.where(met, exponent, -1), ids, listed, opacities, cuts, alpha_max)
        alpha = before_limit(alpha, colors[:, -1], ids, *limit)
        weight, before, transmittance, done = weigh(alpha, transmittance, done)
        feature = feature + weight.mT @ features[ids]
        depth = colors[ids][:, :, -1]
        if distloss:
            lump = weight * depth[..., None]
            moments = moment[:, None] + lump.cumsum(1)
            distortion = distortion + 2 * (lump * (1 - before) - weight * (moments - lump)).sum(1)
            moment = moments[:, -1]
        position = torch.where(weight > 0, positions[..., None], -1)
        last = torch.maximum(last, position.amax(1).int())
        nearer, slot = torch.where(before > 0.5, position, -1).max(1)
        median = torch.where(nearer >= 0, depth.gather(1, slot), median)
        middle = torch.maximum(middle, nearer.int())
        return transmittance, feature, distortion, moment, median, last, middle, done

    def start(count: int, outside: Tensor) -> State:
        pixels = (count, outside.shape[1])
        nothing = torch.full(pixels, -1, dtype=torch.int32, device=means2d.device)
        zeros = means2d.new_zeros(pixels)
        feature = means2d.new_zeros((*pixels, features.shape[1]))
        return means2d.new_ones(pixels), feature, zeros, zeros, zeros, nothing, nothing, outside

    maps = walk(step, start, lists, pixels.masks, pixels.max_depths)
    transmittance, feature, distortion, _, median, last, middle = maps
    feature = feature + graph_link(means2d, ray_transforms, features, opacities)
    color, normal = feature[..., :-3], feature[..., -3:]
    if pixels.backgrounds is not None:
        color = color + transmittance[..., None] * pixels.backgrounds[:, None, None]
    return Blended2dgs(color, transmittance, normal, distortion, median, last, middle)


def _exponent(center: Tensor, transform: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """q = 0.5 min(u^2 + v^2, 2 |d|^2) of (tiles, slab, pixels), and a mask of finite values.

    (u, v) is the intersection of the pixel's ray with the plane of the Gaussian, in standard deviations; none behind the
    camera.
    """
    # Pixels are relative to the projected center, which only affects rounding.
    anchor = center.detach()
    across = transform[:, :, 0] - anchor[:, :, :1] * transform[:, :, 2]
    down = transform[:, :, 1] - anchor[:, :, 1:] * transform[:, :, 2]
    toward = transform[:, :, 2]
    dx, dy = x[:, None] - anchor[:, :, :1], y[:, None] - anchor[:, :, 1:]
    # (dx M3 - M1) x (dy M3 - M2), written as a plane in dx and dy.
    by_x, by_y = torch.linalg.cross(down, toward), torch.linalg.cross(toward, across)
    constant = torch.linalg.cross(across, down)
    hit = [dx * by_x[..., i, None] + dy * by_y[..., i, None] + constant[..., i, None] for i in range(3)]
    low_pass = (center[:, :, :1] - x[:, None]).square() + (center[:, :, 1:] - y[:, None]).square()
    with torch.no_grad():
        front = (toward * constant).sum(-1, keepdim=True) * hit[2] > 0  # the depth of the hit is det M / hit[2]
        nearer = (hit[0].square() + hit[1].square() < 2 * low_pass * hit[2].square()) & front
    u, v = (torch.where(nearer, hit[i], 0) / torch.where(nearer, hit[2], 1) for i in range(2))
    exponent = torch.where(nearer, 0.5 * (u * u + v * v), low_pass)
    return exponent, exponent.isfinite()
