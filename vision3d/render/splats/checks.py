"""Checks of the arguments of the rasterizer: one-line errors with the argument, got and want."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from vision3d.core.errors import BackendError, DeviceError, InputError, ShapeError, nearest_names
from vision3d.core.op_checks import check_dense

MAX_ALPHA = 0.9999
"""Gaussians with this alpha are never drawn: a pixel stops before the Gaussian that would reduce its transmittance to 1e-4."""
RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
DEPTH_MODES = ("D", "ED")
"""Modes without colors."""
_RAY_MODES = {"d": "D", "Ed": "ED", "RGB-d": "RGB+D", "RGB-Ed": "RGB+ED"}
CAMERA_MODELS = ("pinhole", "ortho", "fisheye")


@dataclass(frozen=True)
class Sizes:
    """Sizes shared by the arguments."""

    batch: tuple[int, ...]
    num_batches: int
    num_cameras: int
    num_gaussians: int

    @property
    def num_images(self) -> int:
        return self.num_batches * self.num_cameras


def check_gaussians(
    means: object,
    quats: object,
    scales: object,
    opacities: object,
    colors: object,
    viewmats: object,
    Ks: object,
    backgrounds: object,
    covars: object,
    sh_degree: object,
    render_mode: str,
) -> None:
    """Check shapes, dtypes and devices of the tensors.

    Raises:
        ShapeError: A tensor has the wrong shape or dtype.
        DeviceError: A tensor is on a different device than `means`.
        InputError: A number or a name is out of range.
    """
    if not isinstance(means, Tensor):
        raise ShapeError("means", type(means).__name__, "a torch.Tensor [..., N, 3]")
    if means.dtype not in (torch.float32, torch.float64):
        raise ShapeError("means", means.dtype, "torch.float32 or torch.float64")
    check_dense("means", means)
    if means.dim() < 2 or means.shape[-1] != 3:
        raise ShapeError("means", means.shape, "[..., N, 3]")
    batch, n = tuple(means.shape[:-2]), means.shape[-2]
    if not isinstance(viewmats, Tensor) or viewmats.dim() < 3:
        raise ShapeError("viewmats", getattr(viewmats, "shape", type(viewmats).__name__), "[..., C, 4, 4]")
    c = viewmats.shape[-3]
    if c < 1:
        raise ShapeError("viewmats", viewmats.shape, "at least one camera, [..., C, 4, 4]")
    check_tensor("viewmats", viewmats, (*batch, c, 4, 4), means)
    check_tensor("Ks", Ks, (*batch, c, 3, 3), means)
    check_tensor("opacities", opacities, (*batch, n), means)
    if covars is None:
        check_tensor("quats", quats, (*batch, n, 4), means)
        check_tensor("scales", scales, (*batch, n, 3), means)
    else:
        check_tensor("covars", covars, (*batch, n, 3, 3), means)
    channels = check_colors(colors, sh_degree, batch, c, n, means)
    check_mode(render_mode)
    if backgrounds is not None and render_mode not in DEPTH_MODES:
        check_tensor("backgrounds", backgrounds, (*batch, c, channels), means)


def check_colors(colors: object, sh_degree: object, batch: tuple[int, ...], c: int, n: int, means: Tensor) -> int:
    """The number of channels of colors [..., (C,) N, D], or of SH coefficients [..., (C,) N, K, 3] with a degree."""
    if colors is None:
        raise ShapeError("colors", "None", f"a torch.Tensor; only render_mode {' and '.join(DEPTH_MODES)} need none")
    if not isinstance(colors, Tensor):
        raise ShapeError("colors", type(colors).__name__, "a torch.Tensor")
    tail = 1 if sh_degree is None else 2
    layouts = [(*batch, n), (*batch, c, n)]
    ranks = [len(layout) + tail for layout in layouts]
    shape = tuple(colors.shape)
    if colors.dim() not in ranks or shape[:-tail] != layouts[ranks.index(colors.dim())]:
        dots = "".join(f"{size}, " for size in batch)
        want = f"[{dots}{n}, D] or [{dots}{c}, {n}, D]" if tail == 1 else f"[{dots}{n}, K, 3] or [{dots}{c}, {n}, K, 3]"
        hint = "" if sh_degree is not None else " (give sh_degree for spherical harmonics)"
        raise ShapeError("colors", shape, want + hint)
    if sh_degree is not None:
        if not isinstance(sh_degree, int) or not 0 <= sh_degree <= 4:
            raise InputError(f"sh_degree: got {sh_degree!r}, want 0 to 4, or None for plain colors")
        if shape[-1] != 3 or shape[-2] < (sh_degree + 1) ** 2:
            want = f"at least {(sh_degree + 1) ** 2} coefficients of 3 channels for degree {sh_degree}"
            raise ShapeError("colors", shape, want)
    elif shape[-1] < 1:
        raise ShapeError("colors", shape, "at least one channel")
    check_tensor("colors", colors, shape, means)
    return shape[-1]


def check_tensor(name: str, tensor: object, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> None:
    """Check that a tensor has this shape, and the dtype (unless given) and device of `means`."""
    if not isinstance(tensor, Tensor):
        raise ShapeError(name, type(tensor).__name__, f"a torch.Tensor of shape {tuple(shape)}")
    if tuple(tensor.shape) != tuple(shape):
        raise ShapeError(name, tuple(tensor.shape), tuple(shape))
    check_dense(name, tensor)
    if tensor.dtype != (dtype or like.dtype):
        raise ShapeError(name, tensor.dtype, dtype or f"{like.dtype} as means")
    if tensor.device != like.device:
        raise DeviceError(f"{name}: got device {tensor.device}, want {like.device} as means")


def check_mode(render_mode: str) -> None:
    """Check the render mode; those of gsplat for distances along rays are a BackendError."""
    if render_mode in _RAY_MODES:
        hint = f"use {_RAY_MODES[render_mode]}, depth along the camera's z"
        raise BackendError(f"render_mode: {render_mode} (distance along the ray) is not supported; {hint}")
    check_choice("render_mode", render_mode, RENDER_MODES)


def check_choice(name: str, value: str, valid: Iterable[str]) -> None:
    """Check that a name is valid."""
    if value not in tuple(valid):
        raise InputError(f"{name}: got {value!r}; {nearest_names(str(value), valid)}")


def check_planes(near_plane: float, far_plane: float, camera_model: str) -> None:
    """Check the clipping planes: only an orthographic camera sees what is behind its center."""
    low = -math.inf if camera_model == "ortho" else 0
    if not low < near_plane < far_plane:
        want = "near_plane < far_plane" if camera_model == "ortho" else "0 < near_plane < far_plane"
        raise InputError(f"near_plane, far_plane: got {near_plane}, {far_plane}, want {want}")


def check_numbers(
    width: object,
    height: object,
    tile_size: object,
    eps2d: float | int,
    alpha_max: float | int,
    channel_chunk: object,
) -> None:
    """Check the ranges of the scalars."""
    counts = {"width": width, "height": height, "tile_size": tile_size, "channel_chunk": channel_chunk}
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name}: got {value!r}, want an int >= 1")
    if not eps2d >= 0:
        raise InputError(f"eps2d: got {eps2d}, want >= 0 square pixels")
    if not 0 < alpha_max < MAX_ALPHA:
        raise InputError(
            f"alpha_max: got {alpha_max}, want a number above 0 and below {MAX_ALPHA}: Gaussians of larger alpha are not drawn"
        )


def check_pixels(
    masks: Tensor | None, max_depths: Tensor | None, size: Sizes, height: int, width: int, tile_size: int, means: Tensor
) -> None:
    """Check that there is a mask value for each tile and a depth for each pixel, or none at all."""
    if masks is not None:
        tiles = (-(-height // tile_size), -(-width // tile_size))
        check_tensor("masks", masks, (*size.batch, size.num_cameras, *tiles), means, torch.bool)
    if max_depths is not None:
        check_tensor("max_depths", max_depths, (*size.batch, size.num_cameras, height, width), means)


def refuse_for_gsplat(function: str, **options: object) -> None:
    """Raise an error for options of ours that gsplat's function lacks.

    Raises:
        BackendError: The message has the first one given.
    """
    for name, value in options.items():
        if value is not None:
            raise BackendError(f"{name}: {function} takes none; use backend='native' or 'reference'")


def refuse_unsupported(options: dict[str, object]) -> None:
    """Raise an error for options of gsplat that none of our backends supports.

    Raises:
        BackendError: The message has the option and an alternative.
    """
    hints = {
        "distributed": "render one camera a process and reduce the gradients (vision3d fit does under torchrun)",
        "with_ut": "project with the usual Jacobian (with_ut=False)",
        "with_eval3d": "evaluate in the image (with_eval3d=False)",
        "rolling_shutter": "use one pose for each image (global shutter)",
        "viewmats_rs": "use one pose for each image (global shutter)",
        "return_normals": "use rasterize_2dgs, or render_views with RGB+ED",
        "global_z_order": "Gaussians are sorted by depth along the camera's z (global_z_order=True)",
        "rays": "give viewmats and Ks",
        "lidar_coeffs": "vision3d.render.lidar scans meshes",
        "ut_params": "project with the usual Jacobian (with_ut=False)",
        "extra_signals": "append them to colors",
        "extra_signals_sh_degree": "append them to colors",
        "renderer_config": "leave it out",
    }
    for name, value in options.items():
        is_global = name == "rolling_shutter" and getattr(value, "name", "") == "GLOBAL"
        if value is None or (value is False and name != "global_z_order") or is_global:
            continue
        hint = hints.get(name, "undistort the photos first, as vision3d.load does")
        raise BackendError(f"{name}: is not supported by this rasterizer; {hint}, or pass backend='gsplat' on CUDA")
