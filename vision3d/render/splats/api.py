"""`rasterize`: 3D Gaussians to images, differentiable in every float input, with gsplat's signature."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.render.splats import backends, checks
from vision3d.render.splats.calls import TILE_SIZE, Call
from vision3d.render.splats.records import Camera, Gaussians


def rasterize(
    means: Float[Tensor, "*batch n 3"],
    quats: Float[Tensor, "*batch n 4"] | None,
    scales: Float[Tensor, "*batch n 3"] | None,
    opacities: Float[Tensor, "*batch n"],
    colors: Float[Tensor, "..."] | None,
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
    tile_size: int | None = None,
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
    return_normals: bool = False,
    global_z_order: bool = True,
    rays: Tensor | None = None,
    lidar_coeffs: object | None = None,
    external_distortion_coeffs: object | None = None,
    ut_params: object | None = None,
    extra_signals: Tensor | None = None,
    extra_signals_sh_degree: int | None = None,
    renderer_config: object | None = None,
) -> tuple[Float[Tensor, "*batch c h w x"], Float[Tensor, "*batch c h w 1"], dict[str, Any]]:
    """Render 3D Gaussians in every camera (Kerbl et al. 2023), with the same result on CPU and GPU.

    C = sum_i T_i alpha_i c_i + T background, alpha_i = min(alpha_max, o_i exp(-q_i)), front to back by camera depth.
    Gradients of colors, alphas and depths flow to means, quats, scales, opacities, colors, viewmats, covars and backgrounds,
    but not to Ks. Gaussians that are not finite, behind the near plane or too faint (opacity < 1/255) are skipped and get a
    gradient of zero. NaN colors of visible Gaussians appear in the image.

    Args:
        means: Centers in the world [m].
        quats: Rotations, order wxyz, any length > 0. None with `covars`.
        scales: Standard deviations along the rotated axes [m], > 0. None with `covars`.
        opacities: In [0, 1].
        colors: [..., (C,) N, D] of any D; with `sh_degree` coefficients [..., (C,) N, K, 3] of max(SH + 0.5, 0).
            None with the modes D and ED.
        viewmats: World to camera, rigid.
        Ks: Intrinsics [px]; the skew is ignored.
        width: Image width [px]; at most 2^28 pixels and 2^24 tiles in all images of a call.
        height: Image height [px].
        near_plane: Minimum camera depth [m], > 0; any number for ortho cameras.
        far_plane: Maximum camera depth [m].
        radius_clip: Gaussians whose radii are both at most this are skipped [px].
        eps2d: Variance of the low-pass filter, added to the projected covariance [px^2].
        sh_degree: Active degree, 0 to 4, (sh_degree + 1)^2 <= K.
        packed: `info` has only visible (camera, Gaussian) pairs, [nnz, ...], instead of [..., C, N, ...]. Does not change
            images.
        tile_size: Tile size [px], 16 when None. Does not change the images. The native kernels use the nearest of 4, 8 and 16.
        backgrounds: Background color, without a depth channel; black when None.
        render_mode: RGB; D: sum of weight times depth; ED: D divided by alpha; RGB+D and RGB+ED have the depth as last channel.
        sparse_grad: Gradients of means, quats and scales as COO tensors of the visible rows; needs `packed`, no batch.
        absgrad: After a backward pass `info["means2d"].absgrad` holds the sum over pixels of absolute gradients.
        rasterize_mode: classic, or antialiased: opacities are multiplied by the compensation of Mip-Splatting.
        channel_chunk: Maximum number of channels blended at once. Does not change images; `absgrad` adds the chunks' sums.
        distributed: Not supported.
        camera_model: pinhole, ortho (fx, fy are pixels per meter) or fisheye (equidistant).
        segmented: Sorting method of gsplat; only used with backend="gsplat".
        covars: Covariances instead of quats and scales [m^2]; only the upper triangle is used.
        with_ut: Not supported, nor are the arguments down to viewmats_rs: BackendError unless backend="gsplat".
        alpha_max: Maximum alpha of one Gaussian, below 0.9999; 0.999 for scenes made with gsplat 1.5.3. gsplat has its own.
        masks: Tiles to render (True); the others show the background.
        max_depths: Maximum depth at each pixel [m], for example of an opaque surface: a Gaussian whose depth is not below it
            does not contribute to the pixel. inf means no limit. Without gradient; not with backend="gsplat".
        backend: auto, native, reference (plain torch) or gsplat (CUDA).
        return_normals: Not supported, nor are the arguments below, which gsplat 1.6 added; see `with_ut`.

    Returns:
        Images, alphas, and the info dictionary: batch_ids, camera_ids, gaussian_ids (None when dense), radii, means2d,
        depths, conics, opacities, tile_width, tile_height, tiles_per_gauss, isect_ids, flatten_ids, isect_offsets,
        last_ids, width, height, tile_size, n_batches, n_cameras.

    Raises:
        ShapeError: A tensor has the wrong shape or dtype; the message has its name, got and want.
        DeviceError: A tensor is on a different device than `means`.
        InputError: A number or name is out of range.
        BackendError: An option or the backend is not supported here.

    Example:
        >>> import torch
        >>> means, quats = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
        >>> K = torch.tensor([[[20.0, 0.0, 8.0], [0.0, 20.0, 8.0], [0.0, 0.0, 1.0]]])
        >>> image, alpha, info = rasterize(
        ...     means, quats, torch.full((1, 3), 0.1), torch.ones(1), torch.ones(1, 3), torch.eye(4)[None], K, 16, 16
        ... )
        >>> image.shape, alpha.shape
        (torch.Size([1, 16, 16, 3]), torch.Size([1, 16, 16, 1]))
    """
    newer = {
        "return_normals": return_normals or None,
        "global_z_order": None if global_z_order else False,
        "rays": rays,
        "lidar_coeffs": lidar_coeffs,
        "external_distortion_coeffs": external_distortion_coeffs,
        "ut_params": ut_params,
        "extra_signals": extra_signals,
        "extra_signals_sh_degree": extra_signals_sh_degree,
        "renderer_config": renderer_config,
    }
    call = Call(
        gaussians=Gaussians(means, quats, scales, covars, opacities),
        camera=Camera(viewmats, Ks, width, height, camera_model, near_plane, far_plane, radius_clip),
        colors=colors,
        sh_degree=sh_degree,
        eps2d=eps2d,
        packed=packed,
        tile_size=TILE_SIZE if tile_size is None else tile_size,
        backgrounds=backgrounds,
        render_mode=render_mode,
        sparse_grad=sparse_grad,
        absgrad=absgrad,
        alpha_max=alpha_max,
        masks=masks,
        max_depths=max_depths,
        options={
            "rasterize_mode": rasterize_mode,
            "channel_chunk": channel_chunk,
            "distributed": distributed,
            "segmented": segmented,
            "with_ut": with_ut,
            "with_eval3d": with_eval3d,
            "radial_coeffs": radial_coeffs,
            "tangential_coeffs": tangential_coeffs,
            "thin_prism_coeffs": thin_prism_coeffs,
            "ftheta_coeffs": ftheta_coeffs,
            "rolling_shutter": rolling_shutter,
            "viewmats_rs": viewmats_rs,
            **{name: value for name, value in newer.items() if value is not None},  # gsplat 1.5 does not know them
        },
    ).with_colors()
    call.check(channel_chunk)
    checks.check_choice("rasterize_mode", rasterize_mode, ("classic", "antialiased"))
    return backends.backend(backend, means.device).rasterize(call)
