"""Lens distortion with OpenCV's coefficients, its inverse, and maps from photos to pinhole images.

Both models act on coordinates at focal length 1 before `K`. Pinhole: (x, y) / z and k1 k2 p1 p2 [k3 [k4 k5 k6]].
Fisheye: the equidistant coordinates angle * (x, y) / |(x, y)| and k1..k4, so that angles of 90 degrees and more work.
"""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.geometry.checks import check_trailing

Lens = Literal["pinhole", "fisheye"]
_NO_INNER = "distortion: no pinhole image without empty borders exists; check the coefficients or use balance=1"
_WIDEST = math.radians(85)  # maximum half field of view of a pinhole image made from a fisheye photo


def distort(
    plane: Float[Tensor, "*batch n 2"], coeffs: Float[Tensor, "*#batch d"], model: Lens = "pinhole"
) -> Float[Tensor, "*batch n 2"]:
    """Distorted positions of points: radial and tangential (pinhole) or theta (1 + k1 theta^2 + ..) (fisheye).

    Args:
        plane: Coordinates at focal length 1, see the module.
        coeffs: 4, 5 or 8 numbers (pinhole), 4 (fisheye), one set per n points.

    Raises:
        ShapeError: Wrong number of coefficients.
    """
    check_trailing("plane", plane, 2)
    return _distort(plane, _split(coeffs, model), model)[0]


def undistort(
    distorted: Float[Tensor, "*batch n 2"], coeffs: Float[Tensor, "*#batch d"], model: Lens = "pinhole"
) -> Float[Tensor, "*batch n 2"]:
    """The points that `distort` maps to `distorted`, up to rounding; NaN where no such point exists.

    Newton's method with step halving, restricted to the branch that contains the center (the model folds over beyond it).
    The gradient to `distorted` and `coeffs` is that of the inverse function.
    """
    check_trailing("distorted", distorted, 2)
    split = _split(coeffs, model)
    with torch.no_grad():
        plane = _newton(distorted.double(), (split[0].double(), split[1].double()), model).to(distorted)
    moved, jacobian = _distort(plane, split, model)
    # One more Newton step with a constant Jacobian: its derivative is exactly that of the implicit function.
    return plane - _solve(jacobian.detach(), moved - distorted)


def max_radius(coeffs: Float[Tensor, " d"], model: Lens = "pinhole") -> float:
    """Radius on the undistorted plane up to which the radial part increases (inf: everywhere); beyond it the model folds."""
    radial = _split(coeffs.detach().double().cpu(), model)[0].flatten().tolist()
    top = np.polynomial.Polynomial([1, *radial[:3]] if model == "pinhole" else [1, *radial])
    bottom = np.polynomial.Polynomial([1, *radial[3:]] if model == "pinhole" else [1])
    square = np.polynomial.Polynomial([0, 1])
    # d/dr of r top(r^2) / bottom(r^2), times bottom^2, as a polynomial of r^2; poles fold it as well.
    slope = (top + 2 * square * top.deriv()) * bottom - 2 * square * top * bottom.deriv()
    roots = np.concatenate([slope.trim(1e-14).roots(), bottom.trim(1e-14).roots()])
    real = roots.real[(np.abs(roots.imag) < 1e-9 * (1 + np.abs(roots))) & (roots.real > 0)]
    return math.sqrt(real.min()) if real.size else math.inf


def undistort_map(
    K: Float[Tensor, "3 3"],
    coeffs: Float[Tensor, " d"],
    width: int,
    height: int,
    model: Lens = "pinhole",
    balance: float = 0.0,
    new_K: Float[Tensor, "3 3"] | None = None,
) -> tuple[Float[Tensor, "h w 2"], Bool[Tensor, "h w"], Float[Tensor, "3 3"]]:
    """Map for resampling a distorted photo as a pinhole image of the same size.

    Args:
        K: Intrinsics of the photo.
        balance: 0 crops until no pixel is empty, 1 keeps the entire photo (of a fisheye photo, up to 85 degrees off the axis)
            with empty borders; the ratio of the focal lengths is preserved.
        new_K: Intrinsics of the pinhole image; chosen by `balance` when None.

    Returns:
        For each pixel of the pinhole image the position (x, y) in the photo, pixel centers at + 0.5 (for `grid_sample` see
        `pixels_to_grid`); whether all four neighbors of the position exist; the intrinsics.

    Raises:
        InputError: The distortion is too strong: no pinhole image without empty pixels exists.
    """
    if not 0 <= balance <= 1:
        raise InputError(f"balance: got {balance}, want 0 to 1")
    work_K, work_coeffs = K.double().cpu(), coeffs.double().cpu()
    chosen = _choose_K(work_K, work_coeffs, width, height, model, balance) if new_K is None else new_K.double().cpu()
    x, y = torch.arange(width, dtype=torch.float64) + 0.5, torch.arange(height, dtype=torch.float64) + 0.5
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    places, is_valid = _places(pixels.flatten(0, 1), work_K, work_coeffs, chosen, width, height, model)
    return places.unflatten(0, (height, width)).to(K), is_valid.unflatten(0, (height, width)).to(K.device), chosen.to(K)


def undistorted_K(
    K: Float[Tensor, "3 3"],
    coeffs: Float[Tensor, " d"],
    width: int,
    height: int,
    model: Lens = "pinhole",
    balance: float = 0.0,
) -> Float[Tensor, "3 3"]:
    """The intrinsics that `undistort_map` chooses for the pinhole image, without computing the map."""
    return _choose_K(K.double().cpu(), coeffs.double().cpu(), width, height, model, balance).to(K)


def pixels_to_grid(pixels: Float[Tensor, "*batch 2"], width: int, height: int) -> Float[Tensor, "*batch 2"]:
    """Coordinates in -1 to 1 for `torch.nn.functional.grid_sample(..., align_corners=False)`."""
    return 2 * pixels / pixels.new_tensor([width, height]) - 1


def _split(coeffs: Tensor, model: str) -> tuple[Tensor, Tensor]:
    # Radial (..., 1, 6 or 4) and tangential (..., 1, 2) coefficients, the axis for the points in between.
    if model not in ("pinhole", "fisheye"):
        raise ConfigError("model", f"{model!r} has no lens distortion; valid: fisheye, pinhole")
    count = coeffs.shape[-1]
    if count not in ((4, 5, 8) if model == "pinhole" else (4,)):
        raise ShapeError("distortion", coeffs.shape, f"{'4, 5 or 8' if model == 'pinhole' else 4} numbers ({model})")
    if model == "fisheye":
        return coeffs[..., None, :], coeffs[..., None, :0]
    padded = torch.nn.functional.pad(coeffs, (0, 8 - count))
    return padded[..., None, [0, 1, 4, 5, 6, 7]], padded[..., None, 2:4]


def _distort(plane: Tensor, split: tuple[Tensor, Tensor], model: str) -> tuple[Tensor, Tensor]:
    # The distorted points and the Jacobian (xx, xy = yx, yy) on the last axis: it is symmetric for both models.
    radial, tangential = split
    x, y = plane.unbind(-1)
    squares = x * x + y * y
    if model == "fisheye":
        factor, slope = _polynomial(squares, radial.unbind(-1))
        shift_x = shift_y = torch.zeros_like(x)
        bend = (torch.zeros_like(x),) * 3
    else:
        k1, k2, k3, k4, k5, k6 = radial.unbind(-1)
        top, top_slope = _polynomial(squares, (k1, k2, k3))
        bottom, bottom_slope = _polynomial(squares, (k4, k5, k6))
        factor = top / bottom
        slope = (top_slope - factor * bottom_slope) / bottom
        p1, p2 = tangential.unbind(-1)
        shift_x = 2 * p1 * x * y + p2 * (squares + 2 * x * x)
        shift_y = p1 * (squares + 2 * y * y) + 2 * p2 * x * y
        bend = (2 * p1 * y + 6 * p2 * x, 2 * p1 * x + 2 * p2 * y, 6 * p1 * y + 2 * p2 * x)
    moved = torch.stack([x * factor + shift_x, y * factor + shift_y], -1)
    jacobian = [
        factor + 2 * x * x * slope + bend[0],
        2 * x * y * slope + bend[1],
        factor + 2 * y * y * slope + bend[2],
    ]
    return moved, torch.stack(jacobian, -1)


def _polynomial(squares: Tensor, coefficients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    # 1 + c1 s + c2 s^2 + ... and its derivative.
    value = slope = torch.zeros_like(squares)
    for coefficient in reversed(coefficients):
        slope = slope * squares + value
        value = value * squares + coefficient
    return 1 + value * squares, slope * squares + value


def _solve(jacobian: Tensor, residual: Tensor) -> Tensor:
    xx, xy, yy = jacobian.unbind(-1)
    u, v = residual.unbind(-1)
    determinant = xx * yy - xy * xy
    return torch.stack([yy * u - xy * v, xx * v - xy * u], -1) / determinant[..., None]


def _newton(target: Tensor, split: tuple[Tensor, Tensor], model: str) -> Tensor:
    # Starting point: the target moved towards the center until it is inside the range where the lens model does not fold.
    plane = target.clone()
    for _ in range(30):
        is_folded = ~_is_upright(_distort(plane, split, model)[1])
        if not is_folded.any():
            break
        plane = torch.where(is_folded[..., None], 0.7 * plane, plane)
    moved, jacobian = _distort(plane, split, model)
    error = (moved - target).square().sum(-1)
    tolerance = 1e-12 * (1 + target.abs().amax(-1))  # the last step of `undistort` squares it
    is_better = torch.ones_like(error, dtype=torch.bool)
    for _ in range(60):
        if not (is_better & (error.sqrt() > tolerance)).any():
            break
        step = _solve(jacobian, moved - target)
        size = torch.ones_like(error)
        for _ in range(12):
            trial = plane - size[..., None] * step
            trial_moved, trial_jacobian = _distort(trial, split, model)
            trial_error = (trial_moved - target).square().sum(-1)
            is_better = (trial_error < error) & _is_upright(trial_jacobian)
            if (is_better | (error.sqrt() <= tolerance)).all():
                break
            size = torch.where(is_better, size, size / 2)
        keep = is_better[..., None]
        plane, moved = torch.where(keep, trial, plane), torch.where(keep, trial_moved, moved)
        jacobian, error = torch.where(keep, trial_jacobian, jacobian), torch.where(is_better, trial_error, error)
    return torch.where((error.sqrt() <= 100 * tolerance)[..., None], plane, torch.nan)


def _is_upright(jacobian: Tensor) -> Tensor:
    xx, xy, yy = jacobian.unbind(-1)
    return (xx * yy - xy * xy > 0) & (xx + yy > 0)


def _places(
    pixels: Tensor, K: Tensor, coeffs: Tensor, new_K: Tensor, width: int, height: int, model: Lens
) -> tuple[Tensor, Tensor]:
    # Positions in the photo of pixels of the pinhole image, and whether they can be sampled there.
    plane = (pixels - new_K[:2, 2]) @ torch.linalg.inv(new_K[:2, :2]).T
    if model == "fisheye":
        radius = torch.linalg.vector_norm(plane, dim=-1, keepdim=True)
        plane = plane * torch.where(radius > 1e-9, torch.atan(radius) / radius.clamp(min=1e-9), 1)
    is_single = torch.linalg.vector_norm(plane, dim=-1) < max_radius(coeffs, model)
    places = distort(plane, coeffs, model) @ K[:2, :2].T + K[:2, 2]
    limit = places.new_tensor([width, height]) - 0.5
    slack = 1e-6  # in pixels, for rounding
    is_inside = ((places >= 0.5 - slack) & (places <= limit + slack)).all(-1)
    return places, is_single & is_inside


def _choose_K(K: Tensor, coeffs: Tensor, width: int, height: int, model: Lens, balance: float) -> Tensor:
    if model == "pinhole" and not coeffs.any():
        return K.clone()
    border = _border(width, height)
    plane = (border - K[:2, 2]) @ torch.linalg.inv(K[:2, :2]).T
    plane = undistort(plane, coeffs, model)
    sides = torch.chunk(plane, 4)
    if any(side.isnan().any() for side in sides):
        raise InputError(
            f"distortion: the coefficients {[round(c, 6) for c in coeffs.tolist()]} fold the image over inside "
            f"its {width}x{height} pixels; check them and their order (k1 k2 p1 p2 k3 .. or fisheye k1..k4)"
        )
    if model == "fisheye":
        angle = torch.linalg.vector_norm(plane, dim=-1, keepdim=True)
        plane = plane * angle.clamp(max=_WIDEST).tan() / angle
        sides = torch.chunk(plane, 4)
    left, right, upper, lower = (side[:, axis] for side, axis in zip(sides, (0, 0, 1, 1), strict=True))
    inner = torch.stack([left.max(), upper.max(), right.min(), lower.min()])
    outer = torch.stack([left.min(), upper.min(), right.max(), lower.max()])
    if not (inner[2:] > inner[:2]).all():
        raise InputError(_NO_INNER)
    new_K = _window_K(K, inner, width, height, max)
    zoom = 1e-4
    for _ in range(14):  # accurate to a fraction of a pixel; unusual lenses need more
        if _places(border, K, coeffs, new_K, width, height, model)[1].all():
            break
        new_K = _zoomed(new_K, 1 + zoom, width, height)
        zoom *= 2
    else:
        raise InputError(_NO_INNER)
    return new_K + balance * (_window_K(K, outer, width, height, min) - new_K)


def _window_K(K: Tensor, window: Tensor, width: int, height: int, pick) -> Tensor:
    # The camera that sees the window (x0, y0, x1, y1) of the plane: all of it (min) or nothing else (max).
    size = K.new_tensor([width - 1, height - 1])
    scale = pick((size / (window[2:] - window[:2]) / K.diagonal()[:2]).tolist())
    focal = scale * K.diagonal()[:2]
    center = (window[:2] + window[2:]) / 2
    new_K = torch.diag(torch.cat([focal, K.new_ones(1)]))
    new_K[:2, 2] = (size + 1) / 2 - focal * center
    return new_K


def _zoomed(K: Tensor, factor: float, width: int, height: int) -> Tensor:
    middle = K.new_tensor([width / 2, height / 2])
    zoomed = K.clone()
    zoomed[:2, :2] *= factor
    zoomed[:2, 2] = middle + factor * (K[:2, 2] - middle)
    return zoomed


def _border(width: int, height: int) -> Tensor:
    # Points on the four sides of the rectangle of the outermost pixel centers, the same number on each; they include the
    # pixel centers on the longer sides and are denser on the shorter ones.
    count = max(width, height)
    x = torch.linspace(0.5, width - 0.5, count, dtype=torch.float64)
    y = torch.linspace(0.5, height - 0.5, count, dtype=torch.float64)
    left, right = torch.full_like(y, 0.5), torch.full_like(y, width - 0.5)
    upper, lower = torch.full_like(x, 0.5), torch.full_like(x, height - 0.5)
    sides = [torch.stack(side, -1) for side in ((left, y), (right, y), (x, upper), (x, lower))]
    return torch.cat(sides)
