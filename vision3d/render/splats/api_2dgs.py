"""`rasterize_2dgs`: 2D Gaussians (surfels) to images with normals and depths, with the signature of gsplat's 2DGS."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import BackendError, InputError
from vision3d.render.splats import backends, checks
from vision3d.render.splats.calls import TILE_SIZE, Call
from vision3d.render.splats.records import Camera, Gaussians

_Maps = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, dict[str, Any]]


def rasterize_2dgs(
    means: Float[Tensor, "*batch n 3"],
    quats: Float[Tensor, "*batch n 4"],
    scales: Float[Tensor, "*batch n 3"],
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
    packed: bool = False,
    tile_size: int | None = None,
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
    """Render 2D Gaussians in every pinhole camera (Huang et al. 2024, 2D Gaussian Splatting).

    The third scale is ignored; the normal is the third axis of the rotation, facing the camera. Gradients of all maps flow to
    every float input except Ks.

    Args:
        means: Centers in the world [m].
        quats: Rotations, order wxyz, any length > 0.
        scales: Standard deviations along the first two axes [m]; the third is ignored.
        opacities: In [0, 1].
        colors: As for `rasterize`.
        viewmats: World to camera, rigid.
        Ks: Intrinsics [px]; the skew is ignored.
        width: Image width [px].
        height: Image height [px].
        near_plane: Minimum camera depth of a center [m], > 0.
        far_plane: Maximum camera depth of a center [m].
        radius_clip: 2D Gaussians whose radii are both at most this are skipped [px].
        eps2d: The low-pass filter of 2D Gaussians is fixed (standard deviation 1/sqrt(2) px), so only the default is accepted.
        sh_degree: Active degree, 0 to 4.
        packed: Only visible pairs in `info`. Does not change images.
        tile_size: As for `rasterize`.
        backgrounds: Background color, without a depth channel.
        render_mode: As for `rasterize`.
        sparse_grad: As for `rasterize`.
        absgrad: Not supported: use info["gradient_2dgs"].grad.
        distloss: Compute the distortion; otherwise its map is zero.
        depth_mode: Depth for `surf_normals`: expected (of RGB+ED, for any mode) or median.
        alpha_max: As for `rasterize`.
        masks: As for `rasterize`.
        max_depths: As for `rasterize`. The depth of a 2D Gaussian is that of its center at every pixel, for the limit, the
            order, and expected and median depths: the 2D Gaussians before a limit are the first ones of the list.
        backend: As for `rasterize`.

    Returns:
        Images [..., C, H, W, X]; alphas [..., 1]; world-space normals [..., 3] weighted like colors (divide by alpha for the
        mean); world-space normals of the depth map [..., 3], None in mode RGB; distortion [..., 1]: 2 sum_{j < i} w_i w_j (z_i
        - z_j); median depth [..., 1]; and the info dictionary with ray_transforms, normals, render_distort, median_ids and
        gradient_2dgs (zeros whose gradient is that of the projected centers) in addition to the entries of `rasterize`, without
        conics.

    Raises:
        ShapeError, DeviceError, InputError, BackendError: As for `rasterize`.
    """
    call = Call(
        gaussians=Gaussians(means, quats, scales, None, opacities),
        camera=Camera(viewmats, Ks, width, height, "pinhole", near_plane, far_plane, radius_clip),
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
        options={"distloss": distloss, "depth_mode": depth_mode},
    ).with_colors()
    call.check()
    checks.check_choice("depth_mode", depth_mode, ("expected", "median"))
    if eps2d != 0.3:
        raise InputError(f"eps2d: got {eps2d}; the low-pass filter of 2D Gaussians is fixed, leave the default 0.3")
    if absgrad:
        raise BackendError("absgrad: is for 3D Gaussians; read info['gradient_2dgs'].grad after backward")
    return backends.backend(backend, means.device).rasterize_2dgs(call)
