"""`rasterize_2dgs`: 2D Gaussians (discs) to images with normals and depths, with the call of gsplat's 2DGS."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.errors import BackendError, InputError
from vision3d.op_checks import check_image_size
from vision3d.render.maps import depth_to_normals
from vision3d.render.splats import checks, ops
from vision3d.render.splats.pairs import Pairs, SparseRows, by_scene, pair_colors, with_depth

_Maps = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, dict[str, Any]]


def rasterize_2dgs(
    means: Float[Tensor, "*batch n 3"],
    quats: Float[Tensor, "*batch n 4"],
    scales: Float[Tensor, "*batch n 3"],
    opacities: Float[Tensor, "*batch n"],
    colors: Float[Tensor, "..."],
    viewmats: Float[Tensor, "*batch c 4 4"],
    Ks: Float[Tensor, "*batch c 3 3"],
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = False,
    tile_size: int = 16,
    backgrounds: Float[Tensor, "*batch c d"] | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    distloss: bool = False,
    depth_mode: str = "expected",
    *,
    alpha_max: float = 0.99,
    masks: Bool[Tensor, "*batch c th tw"] | None = None,
    max_depths: Float[Tensor, "*batch c h w"] | None = None,
    backend: str = "auto",
) -> _Maps:
    """Render discs in every pinhole camera (Huang et al. 2024, 2D Gaussian Splatting).

    The third scale is not read; the normal is the third axis of the rotation, turned to the camera. Gradients reach
    every float input but Ks, from all the maps.

    Args:
        means: Centres in the world [m].
        quats: Rotations, order wxyz, any length > 0.
        scales: Standard deviations along the first two axes [m]; the third is ignored.
        opacities: In [0, 1].
        colors: As for `rasterize`.
        viewmats: World to camera, rigid.
        Ks: Intrinsics [px]; the skew is not read.
        width: Image width [px].
        height: Image height [px].
        near_plane: Smallest camera depth of a centre that is seen [m], > 0.
        far_plane: Largest camera depth of a centre that is seen [m].
        radius_clip: Discs whose radii are both at most this are left out [px].
        eps2d: The low-pass filter of discs is fixed (standard deviation 1/sqrt(2) px), so only the default is taken.
        sh_degree: Active degree, 0 to 4.
        packed: Only visible pairs in `info`. Same images.
        tile_size: Side of a tile [px]. Same images.
        backgrounds: Colour behind everything, without a depth channel.
        render_mode: As for `rasterize`.
        sparse_grad: As for `rasterize`.
        absgrad: Not supported: read info["gradient_2dgs"].grad.
        distloss: Compute the distortion; otherwise its map is zero.
        depth_mode: Depth that `surf_normals` come from: expected (of RGB+ED, whatever the mode) or median.
        alpha_max: As for `rasterize`.
        masks: As for `rasterize`.
        max_depths: As for `rasterize`. The depth of a disc is that of its centre at every pixel, in the limit as in the
            order, in expected and in median depths: the discs before a limit are the first ones of the list.
        backend: As for `rasterize`.

    Returns:
        Images [..., C, H, W, X]; alphas [..., 1]; world-space normals [..., 3] weighted like colours (divide by alpha
        for the mean); world-space normals of the depth map [..., 3], None in mode RGB; distortion [..., 1]:
        2 sum_{j < i} w_i w_j (z_i - z_j); median depth [..., 1]; and the info dictionary with ray_transforms, normals,
        render_distort, median_ids and gradient_2dgs (zeros whose gradient is that of the projected centres) beside
        the entries of `rasterize`, without conics.

    Raises:
        ShapeError, DeviceError, InputError, BackendError: As for `rasterize`.
    """
    size = checks.check_gaussians(
        means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, None, sh_degree, render_mode
    )
    checks.check_numbers(width, height, tile_size, near_plane, far_plane, eps2d, alpha_max, channel_chunk=1)
    check_image_size(size.num_images, width, height, tile_size)
    checks.check_choice("depth_mode", depth_mode, ("expected", "median"))
    tiles = (-(-height // tile_size), -(-width // tile_size))
    if masks is not None:
        checks.check_tensor("masks", masks, (*size.batch, size.num_cameras, *tiles), means, torch.bool)
    checks.check_max_depths(max_depths, size, height, width, means)
    if eps2d != 0.3:
        raise InputError(f"eps2d: got {eps2d}; the low-pass filter of 2D Gaussians is fixed, leave the default 0.3")
    if absgrad:
        raise BackendError("absgrad: is for 3D Gaussians; for discs read info['gradient_2dgs'].grad after backward")
    if sparse_grad and (not packed or size.batch):
        raise InputError("sparse_grad: needs packed=True and no batch dimensions")
    chosen = ops.resolve(backend, means.device)
    if chosen == "gsplat":
        checks.refuse_for_gsplat("gsplat.rasterization_2dgs", masks=masks, max_depths=max_depths)
        import gsplat

        return gsplat.rasterization_2dgs(
            means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, radius_clip,
            eps2d, sh_degree, packed, tile_size, backgrounds, render_mode, sparse_grad, absgrad, distloss, depth_mode,
        )  # fmt: skip

    rows = SparseRows()
    if sparse_grad:
        means, quats, scales = rows.attach(means), rows.attach(quats), rows.attach(scales)
    scene_viewmats, scene_Ks = by_scene(viewmats, size), by_scene(Ks, size)
    means, quats, scales, opacities, colors = (by_scene(tensor, size) for tensor in (means, quats, scales, opacities, colors))
    with torch.autocast(means.device.type, enabled=False):
        radii, means2d, depths, transforms, normals = ops.project_2dgs(
            means, quats, scales, opacities, scene_viewmats, scene_Ks, width, height, near_plane=near_plane,
            far_plane=far_plane, radius_clip=radius_clip, backend=chosen,
        )  # fmt: skip
        pairs = Pairs.of(radii, size, packed)
        rows.rows = pairs.gaussians.unique() if sparse_grad else None
        radii, means2d, depths, transforms, normals = (
            pairs.layout(value) for value in (radii, means2d, depths, transforms, normals)
        )
        opacity = pairs.of_gaussians(opacities)
        flat_depths = pairs.flat(depths)
        tiles_per_gauss, isect_ids, flatten_ids, isect_offsets = ops.intersect(
            pairs.flat(means2d), pairs.flat(radii), flat_depths, None, opacity, pairs.image_ids(), size.num_images,
            width, height, tile_size, backend=chosen,
        )  # fmt: skip
        densify = torch.zeros_like(means2d, requires_grad=transforms.requires_grad)
        backdrop = None if backgrounds is None or render_mode in ("D", "ED") else backgrounds.flatten(0, -2)
        # The depth always comes along as the last channel, for the median and the distortion.
        inner_mode = "D" if render_mode in ("D", "ED") else "RGB+D"
        features = pair_colors(pairs, means, colors, scene_viewmats, sh_degree, chosen)
        features, backdrop = with_depth(features, flat_depths, backdrop, inner_mode)
        shown, limits = (None if maps is None else maps.flatten(0, -3) for maps in (masks, max_depths))
        image, transmittance, normal, distortion, median, last_ids, median_ids = ops.blend_2dgs(
            pairs.flat(means2d), pairs.flat(transforms), features, opacity, pairs.flat(normals), pairs.flat(densify),
            backdrop, shown, width, height, tile_size, isect_offsets,
            flatten_ids, alpha_max=alpha_max, distloss=distloss, max_depths=limits, backend=chosen,
        )  # fmt: skip
        shape = (*size.batch, size.num_cameras, height, width)
        alphas = 1 - transmittance.reshape(*shape, 1)
        image, median, distortion = image.reshape(*shape, -1), median.reshape(*shape, 1), distortion.reshape(*shape, 1)
        expected = image[..., -1:] / alphas.clamp(min=1e-10)
        # x_world = R^T x_cam, for row vectors a product with R from the right.
        world_normals = (normal.reshape(*shape[:-2], -1, 3) @ viewmats[..., :3, :3]).reshape(*shape, 3)
        surf_normals = None
        if render_mode != "RGB":
            surface = expected if depth_mode == "expected" else median
            surf_normals = depth_to_normals(surface[..., 0], viewmats, Ks)
    if render_mode == "RGB":
        image = image[..., :-1]
    elif render_mode.endswith("ED"):
        image = torch.cat([image[..., :-1], expected], -1)
    info = {
        **pairs.ids(),
        "radii": radii,
        "means2d": means2d,
        "depths": depths,
        "ray_transforms": transforms,
        "opacities": pairs.shaped(opacity),
        "normals": normals,
        "tile_width": tiles[1],
        "tile_height": tiles[0],
        "tiles_per_gauss": pairs.shaped(tiles_per_gauss),
        "isect_ids": isect_ids,
        "flatten_ids": flatten_ids,
        "isect_offsets": isect_offsets.reshape(*size.batch, size.num_cameras, *tiles),
        "last_ids": last_ids.reshape(shape),
        "median_ids": median_ids.reshape(shape),
        "width": width,
        "height": height,
        "tile_size": tile_size,
        "n_batches": size.num_batches,
        "n_cameras": size.num_cameras,
        "render_distort": distortion,
        "gradient_2dgs": densify,
    }
    return image, alphas, world_normals, surf_normals, distortion, median, info
