"""`rasterize_2dgs` with tile lists: project, list, blend."""

from typing import cast

import torch
from torch import Tensor

from vision3d.render.maps import depth_to_normals
from vision3d.render.splats.calls import Call, Maps
from vision3d.render.splats.kernels import Kernels
from vision3d.render.splats.pairs import Pairs, SparseRows, by_scene, flat_pixels, info_of, pair_colors, with_depth


def rasterize(kernels: Kernels, call: Call) -> Maps:
    """Same result as `vision3d.rasterize_2dgs`."""
    size, mode = call.sizes, call.render_mode
    rows = SparseRows()
    gaussians, colors, camera = by_scene(call, size, rows)
    with torch.autocast(gaussians.means.device.type, enabled=False):
        visible, projected = kernels.project_2dgs(gaussians, camera, packed=call.packed)
        pairs = Pairs(size, call.packed, *visible)
        rows.rows = pairs.gaussians.unique() if call.sparse_grad else None
        projected, flat = pairs.layouts(projected)
        opacity = pairs.of_gaussians(cast(Tensor, gaussians.opacities))
        found = kernels.intersect(flat, opacity, pairs.image_ids(), pairs.grid(camera, call.tile_size))
        densify = torch.zeros_like(projected.means2d, requires_grad=projected.transforms.requires_grad)
        pixels = flat_pixels(call)
        # The depth is always the last channel, for the median and the distortion.
        inner_mode = "D" if mode in ("D", "ED") else "RGB+D"
        features = pair_colors(pairs, gaussians.means, colors, camera.viewmats, call.sh_degree, kernels)
        features, backdrop = with_depth(features, flat.depths, pixels.backgrounds, inner_mode)
        drawn = kernels.blend_2dgs(
            flat, features, opacity, found.lists, pixels._replace(backgrounds=backdrop), alpha_max=call.alpha_max,
            distloss=call.options["distloss"], densify=pairs.flat(densify),
        )  # fmt: skip
        shape = pairs.image_shape(camera)
        alphas = 1 - drawn.transmittances.reshape(*shape, 1)
        image, median, distortion = (
            value.reshape(*shape, -1) for value in (drawn.colors, drawn.medians[..., None], drawn.distortions[..., None])
        )
        expected = image[..., -1:] / alphas.clamp(min=1e-10)
        # x_world = R^T x_cam, for row vectors a product with R from the right.
        viewmats = call.camera.viewmats
        world_normals = (drawn.normals.reshape(*shape[:-2], -1, 3) @ viewmats[..., :3, :3]).reshape(*shape, 3)
        surf_normals = None
        if mode != "RGB":
            surface = expected if call.options["depth_mode"] == "expected" else median
            surf_normals = depth_to_normals(surface[..., 0], viewmats, call.camera.Ks)
    if mode == "RGB":
        image = image[..., :-1]
    elif mode.endswith("ED"):
        image = torch.cat([image[..., :-1], expected], -1)
    info = {
        **info_of(call, pairs, projected, opacity, found),
        "ray_transforms": projected.transforms,
        "normals": projected.normals,
        "last_ids": drawn.last_ids.reshape(shape),
        "median_ids": drawn.median_ids.reshape(shape),
        "render_distort": distortion,
        "gradient_2dgs": densify,
    }
    return image, alphas, world_normals, surf_normals, distortion, median, info
