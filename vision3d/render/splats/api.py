"""`rasterize`: 3D Gaussians to images, differentiable in every float input, with the call of gsplat."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.errors import BackendError, InputError
from vision3d.op_checks import check_image_size
from vision3d.render.splats import checks, ops
from vision3d.render.splats.pairs import Pairs, SparseRows, by_scene, expected_depth, pair_colors, with_depth


def rasterize(
    means: Float[Tensor, "*batch n 3"],
    quats: Float[Tensor, "*batch n 4"] | None,
    scales: Float[Tensor, "*batch n 3"] | None,
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
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Float[Tensor, "*batch c d"] | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    segmented: bool = False,
    covars: Float[Tensor, "*batch n 3 3"] | None = None,
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: object | None = None,
    rolling_shutter: object | None = None,
    viewmats_rs: Tensor | None = None,
    *,
    alpha_max: float = 0.99,
    masks: Bool[Tensor, "*batch c th tw"] | None = None,
    max_depths: Float[Tensor, "*batch c h w"] | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "*batch c h w x"], Float[Tensor, "*batch c h w 1"], dict[str, Any]]:
    """Render 3D Gaussians in every camera (Kerbl et al. 2023), on a CPU or a GPU with the same result.

    C = sum_i T_i alpha_i c_i + T background, alpha_i = min(alpha_max, o_i exp(-q_i)), front to back by camera depth.
    Gradients reach means, quats, scales, opacities, colors, viewmats, covars and backgrounds, from colours, alphas and
    depths alike; not Ks. Gaussians that are not finite, behind the near plane or too faint to see (opacity < 1/255) are
    left out and get a gradient of zero. NaN colours of Gaussians in sight show in the image.

    Args:
        means: Centres in the world [m].
        quats: Rotations, order wxyz, any length > 0. None with `covars`.
        scales: Standard deviations along the rotated axes [m], > 0. None with `covars`.
        opacities: In [0, 1].
        colors: [..., (C,) N, D] of any D; with `sh_degree` coefficients [..., (C,) N, K, 3] of max(SH + 0.5, 0).
        viewmats: World to camera, rigid.
        Ks: Intrinsics [px]; the skew is not read.
        width: Image width [px]; all images of a call have at most 2^28 pixels and 2^24 tiles.
        height: Image height [px].
        near_plane: Smallest camera depth that is seen [m], > 0.
        far_plane: Largest camera depth that is seen [m].
        radius_clip: Gaussians whose radii are both at most this are left out [px].
        eps2d: Variance of the low-pass filter, added to the projected covariance [px^2].
        sh_degree: Active degree, 0 to 4, (sh_degree + 1)^2 <= K.
        packed: Only visible (camera, Gaussian) pairs in `info`, [nnz, ...], instead of [..., C, N, ...]. Same images.
        tile_size: Side of a tile [px]. Same images.
        backgrounds: Colour behind everything, without a depth channel; black when None.
        render_mode: RGB; D: sum of weight times depth; ED: D divided by alpha; RGB+D and RGB+ED put depth last.
        sparse_grad: Gradients of means, quats and scales as COO tensors of the visible rows; needs `packed`, no batch.
        absgrad: After a backward pass `info["means2d"].absgrad` holds the sum over pixels of absolute gradients.
        rasterize_mode: classic, or antialiased: opacities are multiplied by the compensation of Mip-Splatting.
        channel_chunk: Most channels blended at once. Same images; with `absgrad` the chunks' sums are added.
        distributed: Not supported.
        camera_model: pinhole, ortho (fx, fy are pixels a metre) or fisheye (equidistant).
        segmented: gsplat's choice of its sort; read with backend="gsplat" alone.
        covars: Covariances instead of quats and scales [m^2]; only the upper triangle is read.
        with_ut: Not supported, like the arguments down to viewmats_rs: raises BackendError unless backend="gsplat".
        alpha_max: Largest alpha of one Gaussian, below 0.9999; 0.999 for scenes made with gsplat 1.5.3. gsplat has its own.
        masks: Tiles to render (True); the others show the background.
        max_depths: Farthest depth that is seen at each pixel [m], as of a surface that stands there: a Gaussian whose depth
            is not below it adds nothing to the pixel. inf sees everything. Without gradient; not with backend="gsplat".
        backend: auto, native, reference (plain torch) or gsplat (CUDA).

    Returns:
        Images, alphas, and the info dictionary: batch_ids, camera_ids, gaussian_ids (None when dense), radii, means2d,
        depths, conics, opacities, tile_width, tile_height, tiles_per_gauss, isect_ids, flatten_ids, isect_offsets,
        last_ids, width, height, tile_size, n_batches, n_cameras.

    Raises:
        ShapeError: A tensor has the wrong shape or dtype; names it, with got and want.
        DeviceError: A tensor is on another device than `means`.
        InputError: A number or name is out of range.
        BackendError: An option or the backend is not supported here.

    Example:
        >>> means, quats = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
        >>> K = torch.tensor([[[20.0, 0.0, 8.0], [0.0, 20.0, 8.0], [0.0, 0.0, 1.0]]])
        >>> image, alpha, info = rasterize(
        ...     means, quats, torch.full((1, 3), 0.1), torch.ones(1), torch.ones(1, 3), torch.eye(4)[None], K, 16, 16
        ... )
        >>> image.shape, alpha.shape
        (torch.Size([1, 16, 16, 3]), torch.Size([1, 16, 16, 1]))
    """
    size = checks.check_gaussians(
        means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, covars, sh_degree, render_mode
    )
    checks.check_numbers(width, height, tile_size, near_plane, far_plane, eps2d, alpha_max, channel_chunk)
    check_image_size(size.num_images, width, height, tile_size)
    checks.check_choice("rasterize_mode", rasterize_mode, ("classic", "antialiased"))
    tiles = (-(-height // tile_size), -(-width // tile_size))
    if masks is not None:
        checks.check_tensor("masks", masks, (*size.batch, size.num_cameras, *tiles), means, torch.bool)
    checks.check_max_depths(max_depths, size, height, width, means)
    if sparse_grad and (not packed or size.batch):
        raise InputError("sparse_grad: needs packed=True and no batch dimensions")
    chosen = ops.resolve(backend, means.device)
    unsupported = {
        "distributed": distributed,
        "with_ut": with_ut,
        "with_eval3d": with_eval3d,
        "radial_coeffs": radial_coeffs,
        "tangential_coeffs": tangential_coeffs,
        "thin_prism_coeffs": thin_prism_coeffs,
        "ftheta_coeffs": ftheta_coeffs,
        "rolling_shutter": rolling_shutter,
        "viewmats_rs": viewmats_rs,
    }
    if chosen == "gsplat":
        checks.refuse_for_gsplat("gsplat.rasterization", masks=masks, max_depths=max_depths)
        import gsplat

        unsupported = {name: value for name, value in unsupported.items() if value is not None}
        return gsplat.rasterization(
            means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, radius_clip,
            eps2d, sh_degree, packed, tile_size, backgrounds, render_mode, sparse_grad, absgrad, rasterize_mode,
            channel_chunk, camera_model=camera_model, segmented=segmented, covars=covars, **unsupported,
        )  # fmt: skip
    checks.refuse_unsupported(unsupported)
    if camera_model == "ftheta":
        raise BackendError("camera_model: ftheta is not supported; use fisheye, or backend='gsplat' on CUDA")
    checks.check_choice("camera_model", camera_model, checks.CAMERA_MODELS)

    rows = SparseRows()
    means = rows.attach(means) if sparse_grad else means
    means, opacities, colors, viewmats, Ks = (by_scene(tensor, size) for tensor in (means, opacities, colors, viewmats, Ks))
    upper = None
    if covars is not None:
        quats = scales = None
        upper = by_scene(covars, size)[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    elif quats is not None and scales is not None:
        if sparse_grad:
            quats, scales = rows.attach(quats), rows.attach(scales)
        quats, scales = by_scene(quats, size), by_scene(scales, size)
    with torch.autocast(means.device.type, enabled=False):
        seen, projected = ops.project_pairs(
            means, quats, scales, upper, opacities, viewmats, Ks, width, height, eps2d=eps2d, near_plane=near_plane,
            far_plane=far_plane, radius_clip=radius_clip, camera_model=camera_model,
            antialiased=rasterize_mode == "antialiased", packed=packed, backend=chosen,
        )  # fmt: skip
        pairs = Pairs(size, packed, *seen)
        rows.rows = pairs.gaussians.unique() if sparse_grad else None
        if not packed:
            projected = tuple(value.reshape(*size.batch, *value.shape[1:]) for value in projected)
        radii, means2d, depths, conics, compensations = projected
        opacity = pairs.of_gaussians(opacities)
        if rasterize_mode == "antialiased":
            opacity = opacity * pairs.flat(compensations)
        flat_means2d, flat_depths, flat_conics = pairs.flat(means2d), pairs.flat(depths), pairs.flat(conics)
        tiles_per_gauss, isect_ids, flatten_ids, isect_offsets = ops.intersect(
            flat_means2d, pairs.flat(radii), flat_depths, flat_conics, opacity, pairs.image_ids(), size.num_images,
            width, height, tile_size, backend=chosen,
        )  # fmt: skip
        backdrop = None if backgrounds is None or render_mode in ("D", "ED") else backgrounds.flatten(0, -2)
        features = pair_colors(pairs, means, colors, viewmats, sh_degree, chosen)
        features, backdrop = with_depth(features, flat_depths, backdrop, render_mode)
        shown, limits = (None if maps is None else maps.flatten(0, -3) for maps in (masks, max_depths))
        parts = [
            ops.blend(
                flat_means2d, flat_conics, chunk, opacity, behind, shown, width, height, tile_size, isect_offsets,
                flatten_ids, alpha_max=alpha_max, absgrad=absgrad, depths=flat_depths, max_depths=limits, backend=chosen,
            )
            for chunk, behind in _chunks(features, backdrop, channel_chunk)
        ]  # fmt: skip
        if absgrad:
            means2d.absgrad = flat_means2d.absgrad.view_as(means2d)  # pyright: ignore[reportAttributeAccessIssue]
        image_shape = (*size.batch, size.num_cameras, height, width)
        images = torch.cat([part[0] for part in parts], -1).reshape(*image_shape, features.shape[-1])
        alphas = 1 - parts[0][1].reshape(*image_shape, 1)
        images = expected_depth(images, alphas, render_mode)
    info = {
        **pairs.ids(),
        "radii": radii,
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "opacities": pairs.shaped(opacity),
        "tile_width": tiles[1],
        "tile_height": tiles[0],
        "tiles_per_gauss": pairs.shaped(tiles_per_gauss),
        "isect_ids": isect_ids,
        "flatten_ids": flatten_ids,
        "isect_offsets": isect_offsets.reshape(*size.batch, size.num_cameras, *tiles),
        "last_ids": parts[0][2].reshape(image_shape),
        "width": width,
        "height": height,
        "tile_size": tile_size,
        "n_batches": size.num_batches,
        "n_cameras": size.num_cameras,
    }
    return images, alphas, info


def _chunks(features: Tensor, backdrop: Tensor | None, most: int) -> list[tuple[Tensor, Tensor | None]]:
    """Features and backgrounds cut into runs of at most `most` channels."""
    parts = features.split(most, -1)
    behind = [None] * len(parts) if backdrop is None else backdrop.split(most, -1)
    return list(zip(parts, behind))
