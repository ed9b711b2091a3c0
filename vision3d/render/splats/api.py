"""`rasterize`: 3D Gaussians to images, differentiable in every float input, with the call of gsplat."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.render.splats import backends, checks
from vision3d.render.splats.calls import Call
from vision3d.render.splats.records import Camera, Gaussians


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
        >>> import torch
        >>> means, quats = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
        >>> K = torch.tensor([[[20.0, 0.0, 8.0], [0.0, 20.0, 8.0], [0.0, 0.0, 1.0]]])
        >>> image, alpha, info = rasterize(
        ...     means, quats, torch.full((1, 3), 0.1), torch.ones(1), torch.ones(1, 3), torch.eye(4)[None], K, 16, 16
        ... )
        >>> image.shape, alpha.shape
        (torch.Size([1, 16, 16, 3]), torch.Size([1, 16, 16, 1]))
    """
    call = Call(
        gaussians=Gaussians(means, quats, scales, covars, opacities),
        camera=Camera(viewmats, Ks, width, height, camera_model, near_plane, far_plane, radius_clip),
        colors=colors,
        sh_degree=sh_degree,
        eps2d=eps2d,
        packed=packed,
        tile_size=tile_size,
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
        },
    )
    call.check(channel_chunk)
    checks.check_choice("rasterize_mode", rasterize_mode, ("classic", "antialiased"))
    return backends.backend(backend, means.device).rasterize(call)
