"""The canonical position of an image by its moments, in which an affine warp becomes a rotation.

With weights f(p): center c = sum f p / sum f and second moment C = sum f (p - c)(p - c)^T / sum f. If an image is warped by
A, c moves accordingly and C becomes A C A^T, so u -> f(c + C^{1/2} u) changes only by the rotation C'^{-1/2} A C^{1/2}. Thin
strokes and noise at the border disturb the moments, so the lengths of the axes are bounded.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

MIN_VARIANCE = 0.5
"""Minimum second moment along an axis [px^2], which limits the enlargement of thin strokes."""
MAX_ANISOTROPY = 6.0
"""Maximum ratio of the lengths of the two axes."""
REACH = 2.6
"""Radius of the cropped region of an image, in units of its standard deviation."""


def moments(images: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2 2"]]:
    """Centers (x, y) relative to the middle of the image [px], and second moments [px^2]; 0 and 1 for a black image."""
    height, width = images.shape[-2:]
    x = torch.arange(width, dtype=images.dtype, device=images.device) + 0.5 - width / 2
    y = torch.arange(height, dtype=images.dtype, device=images.device) + 0.5 - height / 2
    columns, rows = images.sum(-2), images.sum(-1)
    mass = rows.sum(-1)
    is_empty = mass <= 0
    mass = torch.where(is_empty, 1, mass)
    cx, cy = (columns @ x) / mass, (rows @ y) / mass
    cxx = (columns @ x.square()) / mass - cx.square()
    cyy = (rows @ y.square()) / mass - cy.square()
    cxy = ((images @ x) * y).sum(-1) / mass - cx * cy
    second = torch.stack([cxx, cxy, cxy, cyy], -1).unflatten(-1, (2, 2))
    return torch.stack([cx, cy], -1), torch.where(is_empty[:, None, None], torch.eye(2).to(images), second)


def bounded_root(second: Float[Tensor, "n 2 2"]) -> Float[Tensor, "n 2 2"]:
    """C^{1/2} in closed form, with axes of at least sqrt(MIN_VARIANCE) and a ratio of at most MAX_ANISOTROPY."""
    mean, a, b = (second[:, 0, 0] + second[:, 1, 1]) / 2, (second[:, 0, 0] - second[:, 1, 1]) / 2, second[:, 0, 1]
    half = torch.hypot(a, b)
    large = (mean + half).clamp(min=MIN_VARIANCE).sqrt()
    small = torch.maximum((mean - half).clamp(min=MIN_VARIANCE).sqrt(), large / MAX_ANISOTROPY)
    slope = (large - small) / 2 / half.clamp(min=torch.finfo(half.dtype).tiny)
    middle = (large + small) / 2
    return torch.stack([middle + slope * a, slope * b, slope * b, middle - slope * a], -1).unflatten(-1, (2, 2))


def canonical_images(images: Float[Tensor, "n h w"], size: int = 28, reach: float = REACH) -> Float[Tensor, "n s s"]:
    """Images in canonical position, on a square grid of +-`reach` standard deviations."""
    along = ((2 * torch.arange(size, dtype=images.dtype, device=images.device) + 1) / size - 1) * reach
    y, x = torch.meshgrid(along, along, indexing="ij")
    return _sampled(images, torch.stack([x, y], -1))


def canonical_polar(
    images: Float[Tensor, "n h w"], radii: int = 16, angles: int = 64, reach: float = REACH
) -> Float[Tensor, "n r t"]:
    """Images in canonical position, on `radii` circles of `angles` points: a rotation is a shift along the last axis."""
    radius = (torch.arange(radii, dtype=images.dtype, device=images.device) + 0.5) / radii * reach
    turn = torch.arange(angles, dtype=images.dtype, device=images.device) * (2 * math.pi / angles)
    return _sampled(images, radius[:, None, None] * torch.stack([turn.cos(), turn.sin()], -1))


def _sampled(images: Tensor, u: Tensor) -> Tensor:
    """f(c + C^{1/2} u) at the points u (a, b, 2), bilinear, 0 outside."""
    centers, second = moments(images)
    points = torch.einsum("nij,abj->nabi", bounded_root(second), u) + centers[:, None, None]
    scale = points.new_tensor([2 / images.shape[-1], 2 / images.shape[-2]])
    return torch.nn.functional.grid_sample(images[:, None], points * scale, padding_mode="zeros", align_corners=False)[:, 0]
