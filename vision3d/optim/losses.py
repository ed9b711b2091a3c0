"""Losses of a fit: photometric terms, regularizers of Gaussians, and the geometric terms of 2DGS.

Images are (H, W, C) or (B, H, W, C) in [0, 1]. A mask is (H, W) or (B, H, W), True for valid pixels; other pixels have no
influence on the value and get no gradient.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import DeviceError, InputError, ShapeError
from vision3d.optim import ssim as _ssim
from vision3d.optim.reference.ssim import Padding

Image = Float[Tensor, "*batch h w c"]
Mask = Bool[Tensor, "*batch h w"]
Scalar = Float[Tensor, ""]


def l1(a: Image, b: Image, mask: Mask | None = None) -> Scalar:
    """Mean absolute difference over valid pixels.

    Raises:
        ShapeError: The images differ in shape or dtype, or the mask does not match them.
    """
    check_pair(a, b, mask)
    if mask is None:
        return torch.nn.functional.l1_loss(a, b)
    inside = mask.unsqueeze(-1)
    a, b = torch.where(inside, a, 0), torch.where(inside, b, 0)
    return torch.nn.functional.l1_loss(a, b, reduction="sum") / _count(a, mask)


def ssim(
    a: Image,
    b: Image,
    *,
    mask: Mask | None = None,
    window: int = 11,
    sigma: float = 1.5,
    padding: Padding = "valid",
    data_range: float = 1.0,
) -> Scalar:
    """Mean structural similarity, 1 for equal images (Wang et al. 2004, Gaussian window).

    Uses the native kernel for CPU tensors of float32 and float64, else torch.

    Args:
        a: First image.
        b: Second image, of the same shape.
        mask: Only windows whose center is True are used. Both images are set to 0 elsewhere, so that the value does not
            depend on those pixels.
        window: Window size [px], odd.
        sigma: Standard deviation of the window [px].
        padding: "valid" uses only windows inside the image; "same" pads with zeros, one window per pixel. Values differ
            by about 0.01 near borders, so state which one a result uses.
        data_range: Maximum value of an image.

    Raises:
        ShapeError: Shapes or dtypes differ, or an image is smaller than the window.
        InputError: `window`, `sigma`, `padding` or `data_range` is out of range.

    Example:
        >>> image = torch.rand(32, 32, 3)
        >>> ssim(image, image)
        tensor(1.)
    """
    check_pair(a, b, mask)
    if window < 1 or window % 2 == 0:
        raise InputError(f"window: got {window}, want an odd number of pixels")
    if sigma <= 0 or data_range <= 0:
        raise InputError(f"sigma and data_range: got {sigma} and {data_range}, want numbers > 0")
    if padding not in ("valid", "same"):
        raise InputError(f'padding: got {padding!r}, want "valid" or "same"')
    height, width = a.shape[-3:-1]
    if min(height, width) < window:
        raise ShapeError("image", f"{height}x{width} pixels", f"at least {window}x{window}, the window of SSIM")
    if mask is not None:
        inside = mask.unsqueeze(-1)
        a, b = torch.where(inside, a, 0), torch.where(inside, b, 0)
        if padding == "valid":
            margin = window // 2
            mask = mask[..., margin : height - margin, margin : width - margin]
    values = _ssim.ssim_map(a, b, window=window, sigma=sigma, padding=padding, data_range=data_range)
    return _mean(values, mask)


def photometric(a: Image, b: Image, ssim_weight: float = 0.2, mask: Mask | None = None, padding: Padding = "valid") -> Scalar:
    """(1 - w) L1 + w (1 - SSIM), the image loss of Gaussian splatting (Kerbl et al. 2023, eq. 7).

    Raises:
        ShapeError: As for `ssim`, unless `ssim_weight` is 0.
        InputError: `ssim_weight` is not in [0, 1].
    """
    if not 0 <= ssim_weight <= 1:
        raise InputError(f"ssim_weight: got {ssim_weight}, want a number in [0, 1]")
    loss = (1 - ssim_weight) * l1(a, b, mask)
    if ssim_weight > 0:
        loss = loss + ssim_weight * (1 - ssim(a, b, mask=mask, padding=padding))
    return loss


def opacity_loss(opacity_logits: Float[Tensor, " n"]) -> Scalar:
    """Mean opacity, in [0, 1]; with weight 0.01 it lets useless Gaussians fade (Kheradmand et al. 2024)."""
    return torch.sigmoid(opacity_logits).mean()


def scale_loss(log_scales: Float[Tensor, "n 3"]) -> Scalar:
    """Mean scale [m]; with weight 0.01 it keeps Gaussians small (Kheradmand et al. 2024)."""
    return log_scales.exp().mean()


def distortion_loss(distortions: Float[Tensor, "*batch h w 1"], mask: Mask | None = None) -> Scalar:
    """Mean of a rendered distortion map (2DGS, Huang et al. 2024, eq. 13): it concentrates the splats along a ray."""
    if mask is not None:
        _check_mask(distortions, mask)
    return _mean(distortions, mask)


def depth_loss(
    depths: Float[Tensor, "*batch h w 1"],
    alphas: Float[Tensor, "*batch h w 1"],
    measured: Float[Tensor, "*batch h w"],
    mask: Mask | None = None,
) -> Scalar:
    """Mean of |sum_i w_i (z_i / d - 1)| over pixels with a measured depth d > 0: relative errors, alike near and far.

    Args:
        depths: Rendered sums sum_i w_i z_i.
        alphas: Rendered sums of w_i; where nothing is drawn, the loss is 0.
        measured: Depths d, in the same unit; 0 where there is none.
        mask: Valid pixels.

    Raises:
        ShapeError: The maps differ in size.
    """
    check_pair(depths, alphas, mask)
    if measured.shape != depths.shape[:-1]:
        raise ShapeError("measured", measured.shape, tuple(depths.shape[:-1]))
    known = measured > 0
    relative = depths / torch.where(known, measured, 1).unsqueeze(-1)
    return _mean((relative - alphas).abs(), known if mask is None else known & mask)


def normal_consistency_loss(
    normals: Float[Tensor, "*batch h w 3"],
    surface_normals: Float[Tensor, "*batch h w 3"],
    alphas: Float[Tensor, "*batch h w 1"],
    mask: Mask | None = None,
) -> Scalar:
    """Mean of sum_i w_i (1 - n_i . N): aligns splats with the surface of their depth map (2DGS, eq. 14).

    Args:
        normals: Rendered normals sum_i w_i n_i, not normalized, unit n_i.
        surface_normals: N, unit, in the same frame, e.g. from `depth_to_normals`; pixels with N = 0 are ignored.
        alphas: Rendered sum_i w_i.
        mask: Valid pixels.

    Raises:
        ShapeError: The maps differ in size.
    """
    check_pair(normals, surface_normals, mask)
    if alphas.shape != (*normals.shape[:-1], 1):
        raise ShapeError("alphas", alphas.shape, (*normals.shape[:-1], 1))
    known = (surface_normals.detach() != 0).any(-1)
    mask = known if mask is None else known & mask
    return _mean(alphas - (normals * surface_normals).sum(-1, keepdim=True), mask)


def depth_to_normals(
    depths: Float[Tensor, "*batch h w 1"],
    Ks: Float[Tensor, "*batch 3 3"],
    viewmats: Float[Tensor, "*batch 4 4"] | None = None,
) -> Float[Tensor, "*batch h w 3"]:
    """Unit normals of the surface in depth maps of pinhole cameras, towards the camera; 0 in the border pixels.

    Central differences of the unprojected pixels (2DGS, eq. 15).

    Args:
        depths: Camera z of each pixel [m].
        Ks: Intrinsics [px].
        viewmats: World to camera; if given, the normals are in the world, else in the camera.

    Example:
        >>> K = torch.tensor([[10.0, 0, 4], [0, 10, 4], [0, 0, 1]])
        >>> depth_to_normals(torch.ones(8, 8, 1), K)[4, 4] + 0.0  # a wall facing the camera
        tensor([ 0.,  0., -1.])
    """
    height, width = depths.shape[-3:-1]
    rows = torch.arange(height, device=depths.device, dtype=depths.dtype) + 0.5
    columns = torch.arange(width, device=depths.device, dtype=depths.dtype) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    focal = Ks[..., None, None, :, :]
    rays = torch.stack([(x - focal[..., 0, 2]) / focal[..., 0, 0], (y - focal[..., 1, 2]) / focal[..., 1, 1]], -1)
    points = torch.cat([rays * depths, depths], -1)
    along_x = points[..., 1:-1, 2:, :] - points[..., 1:-1, :-2, :]
    along_y = points[..., 2:, 1:-1, :] - points[..., :-2, 1:-1, :]
    normals = torch.nn.functional.normalize(torch.linalg.cross(along_y, along_x), dim=-1)
    if viewmats is not None:
        normals = normals @ viewmats[..., None, :3, :3]  # row vectors: n_world = R^T n_camera
    return torch.nn.functional.pad(normals, (0, 0, 1, 1, 1, 1))


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean()
    weights = mask.unsqueeze(-1)
    # where instead of a product: masked values may be NaN
    return torch.where(weights, values, 0).sum() / _count(values, mask)


def _count(values: Tensor, mask: Tensor) -> Tensor:
    """Number of masked values in `values`, at least 1."""
    return (mask.sum() * values.shape[-1]).clamp(min=1)


def check_pair(a: Tensor, b: Tensor, mask: Tensor | None) -> None:
    if a.ndim not in (3, 4):
        raise ShapeError("image", a.shape, "(height, width, channels) or (batch, height, width, channels)")
    if b.shape != a.shape:
        raise ShapeError("second image", b.shape, tuple(a.shape))
    if b.dtype != a.dtype or not a.is_floating_point():
        raise ShapeError("images", f"dtypes {a.dtype} and {b.dtype}", "the same floating dtype")
    if b.device != a.device:
        raise DeviceError(f"images: on {a.device} and {b.device}; want one device")
    if mask is not None:
        _check_mask(a, mask)


def _check_mask(image: Tensor, mask: Tensor) -> None:
    if mask.dtype != torch.bool or mask.shape != image.shape[:-1]:
        raise ShapeError("mask", f"{mask.dtype} of shape {tuple(mask.shape)}", f"bool of {tuple(image.shape[:-1])}")
