"""The operations of the rasterizer, each run by the backend that is named: one module of functions a backend.

Shapes: b scenes, c cameras, n Gaussians, i = b * c images; `nnz` counts (image, Gaussian) pairs in that order, all of
them or the visible ones alone; m counts (tile, pair) intersections.
"""

import importlib
from types import ModuleType
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vision3d.device import resolve_backend
from vision3d.errors import BackendError

Backend = Literal["native", "reference"]

_MODULES = {"reference": "vision3d.render.reference.splats", "native": "vision3d.render.splats.native_ops"}


def backends(device: torch.device) -> list[str]:
    """Backends with operations of their own that run on the device."""
    return [name for name in _MODULES if name == "reference" or resolve_backend("auto", device) == name]


def resolve(name: str, device: torch.device) -> Literal["native", "reference", "gsplat"]:
    """The backend that renders on the device when `name` is asked for.

    Raises:
        BackendError: It is unknown, not built or does not run on this device.
    """
    if name == "reference":
        return name
    chosen = resolve_backend(name, device)
    if chosen == "gsplat" or chosen in _MODULES:
        return chosen
    if name == "auto":
        return "reference"
    raise BackendError(f"backend {name}: has no rasterizer in this build; use backend='reference'")


def _kernels(backend: str) -> ModuleType:
    return importlib.import_module(_MODULES[backend])


def project(
    means: Float[Tensor, "b n 3"],
    quats: Float[Tensor, "b n 4"] | None,
    scales: Float[Tensor, "b n 3"] | None,
    covars: Float[Tensor, "b n 6"] | None,
    opacities: Float[Tensor, "b n"] | None,
    viewmats: Float[Tensor, "b c 4 4"],
    Ks: Float[Tensor, "b c 3 3"],
    width: int,
    height: int,
    *,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    camera_model: str,
    antialiased: bool,
    backend: Backend,
) -> tuple[
    Int[Tensor, "b c n 2"],
    Float[Tensor, "b c n 2"],
    Float[Tensor, "b c n"],
    Float[Tensor, "b c n 3"],
    Float[Tensor, "b c n"],
]:
    """Project 3D Gaussians into every camera: S = J W Sigma W^T J^T + eps2d I (Zwicker et al. 2002; Kerbl et al. 2023).

    Args:
        quats: Order wxyz, any length > 0; None with `covars`.
        scales: Standard deviations along the axes [m]; None with `covars`.
        covars: Upper triangle xx xy xz yy yz zz, instead of `quats` and `scales` [m^2].
        opacities: Decide with ln(255 opacity) how far a Gaussian reaches; None: 3.33 standard deviations. No gradient.
        eps2d: Variance added to both image axes [px^2].
        radius_clip: Gaussians whose two radii are at most this are left out [px].
        camera_model: pinhole, ortho, or fisheye (equidistant).
        antialiased: The opacity that counts for the reach is multiplied by the compensation.

    Returns:
        radii (int32, 0 for what is not seen) and means [px], depths along the camera's z [m], conics (a, b, c) of the
        exponent q = 0.5 (a dx^2 + c dy^2) + b dx dy, and the compensation sqrt(det(S - eps2d I) / det S), at least
        0.005. What is not seen (also everything not finite) is 0 and has gradient 0. `Ks` get no gradient.
    """
    return _kernels(backend).project(
        means, quats, scales, covars, opacities, viewmats, Ks.detach(), width, height, eps2d=eps2d,
        near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip, camera_model=camera_model,
        antialiased=antialiased,
    )  # fmt: skip


def visible_pairs(radii: Int[Tensor, "b c n 2"]) -> tuple[Int[Tensor, " v"], Int[Tensor, " v"]]:
    """Image (scene * c + camera) and Gaussian of the pairs that are seen, sorted by image."""
    visible = radii[..., 0].flatten().nonzero()[:, 0]
    count = max(radii.shape[2], 1)
    images = torch.div(visible, count, rounding_mode="floor")
    return images, visible - images * count


def project_pairs(
    *inputs: Tensor | int | None, packed: bool, backend: Backend, **options: float | bool | str
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """`project` and the visible pairs: image and Gaussian of each, then the outputs, of these pairs alone if `packed`."""
    kernels = _kernels(backend)
    if hasattr(kernels, "project_pairs"):
        return kernels.project_pairs(*inputs, packed=packed, **options)
    outputs = project(*inputs, backend=backend, **options)  # type: ignore[arg-type]
    images, gaussians = visible_pairs(outputs[0])
    if packed:
        rows = images * outputs[0].shape[2] + gaussians
        outputs = tuple(value.flatten(0, 2).index_select(0, rows) for value in outputs)
    return (images, gaussians), outputs  # type: ignore[return-value]


def sh_colors(
    means: Float[Tensor, "b n 3"],
    sh: Float[Tensor, "b n k 3"] | Float[Tensor, "b c n k 3"],
    viewmats: Float[Tensor, "b c 4 4"],
    batch_ids: Int[Tensor, " nnz"],
    camera_ids: Int[Tensor, " nnz"],
    gaussian_ids: Int[Tensor, " nnz"],
    degree: int,
    *,
    backend: Backend,
) -> Float[Tensor, "nnz 3"]:
    """max(SH + 0.5, 0) in the direction from the camera centre -R^T t to the Gaussian.

    Pairs are sorted by scene, then camera. Gradients reach `means` and `viewmats` through the direction. `degree` is the
    active one, (degree + 1)^2 <= k.
    """
    return _kernels(backend).sh_colors(means, sh, viewmats, batch_ids, camera_ids, gaussian_ids, degree)


@torch.no_grad()
def intersect(
    means2d: Float[Tensor, "nnz 2"],
    radii: Int[Tensor, "nnz 2"],
    depths: Float[Tensor, " nnz"],
    conics: Float[Tensor, "nnz 3"] | None,
    opacities: Float[Tensor, " nnz"],
    image_ids: Int[Tensor, " nnz"],
    num_images: int,
    width: int,
    height: int,
    tile_size: int,
    *,
    backend: Backend,
) -> tuple[Int[Tensor, " nnz"], Int[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, "i th tw"]]:
    """Which Gaussians touch which tiles, sorted by image, tile and depth, ties by index.

    A tile of the box mean +- radius is listed only if the least exponent over the rectangle of its pixel centres is at
    most ln(255 opacity); without `conics` the box alone decides.

    Returns:
        Tiles of each pair (int32); intersection ids, image | tile | 32 bits of the depth (int64); the pair of each
        intersection (int32); where the list of each tile begins (int32).
    """
    return _kernels(backend).intersect(
        means2d, radii, depths, conics, opacities, image_ids, num_images, width, height, tile_size
    )


def blend(
    means2d: Float[Tensor, "nnz 2"],
    conics: Float[Tensor, "nnz 3"],
    colors: Float[Tensor, "nnz d"],
    opacities: Float[Tensor, " nnz"],
    backgrounds: Float[Tensor, "i d"] | None,
    masks: Bool[Tensor, "i th tw"] | None,
    width: int,
    height: int,
    tile_size: int,
    isect_offsets: Int[Tensor, "i th tw"],
    flatten_ids: Int[Tensor, " m"],
    *,
    alpha_max: float,
    absgrad: bool = False,
    depths: Float[Tensor, " nnz"] | None = None,
    max_depths: Float[Tensor, "i h w"] | None = None,
    backend: Backend,
) -> tuple[Float[Tensor, "i h w d"], Float[Tensor, "i h w"], Int[Tensor, "i h w"]]:
    """Blend the tile lists front to back: C = sum_i T_i alpha_i c_i + T background, T_i = prod_{j < i} (1 - alpha_j).

    alpha = min(alpha_max, opacity exp(-q)), counted where q <= ln(255 opacity); no gradient passes alpha_max. A pixel
    stops before the Gaussian that would bring its transmittance to 1e-4 or below.

    Args:
        masks: Tiles that are False show the background alone.
        absgrad: `means2d.absgrad` (nnz, 2) is made here as zeros; each backward pass adds sum over pixels of
            |d loss / d means2d| to it (Ye et al. 2024, AbsGS).
        depths: By which the lists are sorted; needed with `max_depths`. Without gradient.
        max_depths: A pixel ends before the first Gaussian whose depth is not below. Without gradient.

    Returns:
        Colours, transmittances, and the position in `flatten_ids` of the last Gaussian blended (int32, -1: none).
    """
    sums = None
    if absgrad:
        sums = getattr(means2d, "absgrad", None)
        if sums is None:
            sums = means2d.absgrad = torch.zeros_like(means2d)  # pyright: ignore[reportAttributeAccessIssue]
    return _kernels(backend).blend(
        means2d, conics, colors, opacities, backgrounds, masks, width, height, tile_size, isect_offsets, flatten_ids,
        alpha_max=alpha_max, absgrad=sums, depths=depths, max_depths=max_depths,
    )  # fmt: skip


def project_2dgs(
    means: Float[Tensor, "b n 3"],
    quats: Float[Tensor, "b n 4"],
    scales: Float[Tensor, "b n 3"],
    opacities: Float[Tensor, "b n"] | None,
    viewmats: Float[Tensor, "b c 4 4"],
    Ks: Float[Tensor, "b c 3 3"],
    width: int,
    height: int,
    *,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    backend: Backend,
) -> tuple[
    Int[Tensor, "b c n 2"],
    Float[Tensor, "b c n 2"],
    Float[Tensor, "b c n"],
    Float[Tensor, "b c n 3 3"],
    Float[Tensor, "b c n 3"],
]:
    """Project discs into every pinhole camera: M = K [R s_u t_u, R s_v t_v, p] (Huang et al. 2024, eq. 9).

    Returns:
        radii (int32, 0 for what is not seen): the box mean +- radius holds every pixel where alpha reaches 1/255; means
        [px]: centre of the conic of one standard deviation, or the projected centre where that disc crosses the
        camera's plane; depths of the centres [m]; M; unit normals in camera axes, turned to the camera. What is not
        seen is 0 and has gradient 0. `Ks` get no gradient.
    """
    return _kernels(backend).project_2dgs(
        means, quats, scales, opacities, viewmats, Ks.detach(), width, height, near_plane=near_plane,
        far_plane=far_plane, radius_clip=radius_clip,
    )  # fmt: skip


def blend_2dgs(
    means2d: Float[Tensor, "nnz 2"],
    ray_transforms: Float[Tensor, "nnz 3 3"],
    colors: Float[Tensor, "nnz d"],
    opacities: Float[Tensor, " nnz"],
    normals: Float[Tensor, "nnz 3"],
    densify: Float[Tensor, "nnz 2"] | None,
    backgrounds: Float[Tensor, "i d"] | None,
    masks: Bool[Tensor, "i th tw"] | None,
    width: int,
    height: int,
    tile_size: int,
    isect_offsets: Int[Tensor, "i th tw"],
    flatten_ids: Int[Tensor, " m"],
    *,
    alpha_max: float,
    distloss: bool,
    max_depths: Float[Tensor, "i h w"] | None = None,
    backend: Backend,
) -> tuple[
    Float[Tensor, "i h w d"],
    Float[Tensor, "i h w"],
    Float[Tensor, "i h w 3"],
    Float[Tensor, "i h w"],
    Float[Tensor, "i h w"],
    Int[Tensor, "i h w"],
    Int[Tensor, "i h w"],
]:
    """Blend discs front to back with q = 0.5 min(u^2 + v^2, 2 |d|^2), otherwise like `blend`.

    (u, v) is where the pixel's ray meets the disc's plane in front of the camera, in standard deviations; d is the
    distance to `means2d` [px]. Behind the camera there is no (u, v) and the second term alone counts.

    Args:
        colors: The last channel is the depth that distortion and median read.
        densify: Zeros that receive as gradient that of the projected centres through the rays, M33 dL/d(M13, M23).
        distloss: Compute the distortion; otherwise it is zero.
        max_depths: As for `blend`, with the depth of the disc's centre, by which the lists are sorted.

    Returns:
        Colours, transmittances, camera-space normals weighted like colours, distortion
        2 sum_{j < i} w_i w_j (z_i - z_j), median depth (of the last Gaussian blended while the transmittance before
        it is above 0.5, else 0), and the positions in `flatten_ids` of the last and of the median Gaussian (int32,
        -1: none).
    """
    return _kernels(backend).blend_2dgs(
        means2d, ray_transforms, colors, opacities, normals, densify, backgrounds, masks, width, height, tile_size,
        isect_offsets, flatten_ids, alpha_max=alpha_max, distloss=distloss, max_depths=max_depths,
    )  # fmt: skip
