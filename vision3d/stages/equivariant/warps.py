"""Sets of warped digits with a published recipe: random numbers from a seed, the same on every machine.

Maps act on points (x, y) relative to the image center, x right, y down, in pixels; bilinear, background 0. The recipe of
affNIST is T. Tieleman's as far as it is known (28 x 28 digits in a frame of 40 x 40; rotation, shear, two scales and a
translation that keeps the digit in the frame); the order of its factors is unknown and is fixed here to translation, rotation,
shear, scales. So sets made here are affNIST-like, and results on them are not results on affNIST."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from vision3d.core.errors import InputError, MissingDependencyError
from vision3d.io.digits import Digits

FRAME = 40
"""Image size of affNIST [px]."""
SEEDS = {"affnist-like": 20_231, "homnist-like": 20_232}
"""The seeds of the sets used for reported results."""

# Standard deviations of the eight coordinates of sl(3): E11 - I/3, E12, E13, E21, E22 - I/3, E23, E31, E32.
_HOMNIST_STD = 0.5 * np.array([0.15, 0.35, 0.17, 0.35, 0.15, 0.17, 0.15, 0.15])


@dataclass(frozen=True)
class WarpedDigits:
    """Warped copies of digits, computed on demand."""

    padded: Float32[Tensor, "d side side"]
    """The digits in their frame."""
    labels: Int64[Tensor, " d"]
    """Labels of the digits."""
    sources: Int64[Tensor, " n"]
    """Index of the source digit of each copy."""
    matrices: Float64[Tensor, "n 3 3"]
    """From points of the padded digit to points of the copy, homogeneous, relative to the center [px]."""
    description: str
    """States that the set is generated, how, and from what."""

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, rows: slice) -> tuple[Float32[Tensor, "m side side"], Int64[Tensor, " m"]]:
        """Images and labels of some copies."""
        index = self.sources[rows]
        return warp(self.padded[index], self.matrices[rows]).clamp(0, 1), self.labels[index]


def pad_to_frame(images: Float32[Tensor, "n h w"], side: int = FRAME) -> Float32[Tensor, "n side side"]:
    """Images centered in a black frame.

    Raises:
        InputError: They are larger, or the border is not a whole number of pixels.
    """
    border, odd = divmod(side - images.shape[-1], 2)
    if border < 0 or odd or images.shape[-1] != images.shape[-2]:
        raise InputError(f"images: got {images.shape[-2]} x {images.shape[-1]}, want squares of an even side up to {side}")
    return torch.nn.functional.pad(images, (border, border, border, border))


def affnist_like(digits: Digits, copies: int = 32, seed: int = SEEDS["affnist-like"]) -> WarpedDigits:
    """`copies` random affine warps of every digit: rotation within 20 degrees, shear within 0.2, each scale 0.8 to 1.2, and a
    translation that is uniform over those that keep every pixel of the digit in the frame."""
    images = pad_to_frame(digits.images)
    rng = np.random.default_rng(seed)
    count = len(digits) * copies
    angles = np.deg2rad(rng.uniform(-20, 20, count))
    shears, scales = rng.uniform(-0.2, 0.2, count), rng.uniform(0.8, 1.2, (count, 2))
    places = rng.uniform(0, 1, (count, 2))
    linear = linear_parts(angles, shears, scales)
    sources = np.arange(len(digits)).repeat(copies)
    matrices = np.tile(np.eye(3), (count, 1, 1))
    matrices[:, :2, :2] = linear
    points, weights = _support_points(images)
    for i in range(len(digits)):
        rows = slice(i * copies, (i + 1) * copies)
        moved = linear[rows] @ points[weights[i]].T  # (copies, 2, k)
        low, high = moved.min(-1) - 1, moved.max(-1) + 1  # a bilinear pixel reaches one pixel around its center
        half = FRAME / 2
        least, most = -half - low, half - high
        middle = (least + most) / 2
        matrices[rows, :2, 2] = np.where(least <= most, least + places[rows] * (most - least), middle)
    return _warped(digits, images, sources, matrices, seed, "affNIST-like")


def homnist_like(digits: Digits, copies: int = 32, seed: int = SEEDS["homnist-like"]) -> WarpedDigits:
    """`copies` random homographies of every digit, exp of a Gaussian element of sl(3) in a frame of [-1, 1]^2.

    The standard deviations are those of homNIST by MacDonald et al. 2022, without its random walk towards the Haar measure, so
    the tails are lighter.
    """
    from scipy.linalg import expm

    images = pad_to_frame(digits.images)
    rng = np.random.default_rng(seed)
    count = len(digits) * copies
    v = rng.standard_normal((count, 8)) * _HOMNIST_STD
    algebra = np.zeros((count, 9))
    algebra[:, [0, 1, 2, 3, 4, 5, 6, 7]] = v
    algebra = algebra.reshape(count, 3, 3) - ((v[:, 0] + v[:, 4]) / 3)[:, None, None] * np.eye(3)
    to_pixels = np.diag([FRAME / 2, FRAME / 2, 1.0])
    matrices = to_pixels @ expm(algebra) @ np.linalg.inv(to_pixels)
    return _warped(digits, images, np.arange(len(digits)).repeat(copies), matrices, seed, "homNIST-like")


def linear_parts(
    angles: Float64[np.ndarray, " n"], shears: Float64[np.ndarray, " n"], scales: Float64[np.ndarray, "n 2"]
) -> Float64[np.ndarray, "n 2 2"]:
    """Rotation times shear times scales; angles [rad] rotate x towards y."""
    c, s = np.cos(angles), np.sin(angles)
    rotation = np.stack([c, -s, s, c], -1).reshape(-1, 2, 2)
    one, zero = np.ones_like(shears), np.zeros_like(shears)
    shear = np.stack([one, shears, zero, one], -1).reshape(-1, 2, 2)
    return rotation @ shear * scales[:, None, :]


def warp(images: Float32[Tensor, "n h w"], matrices: Float64[Tensor, "n 3 3"]) -> Float32[Tensor, "n h w"]:
    """Images warped by homogeneous maps of points about their centers, with kornia; bilinear, 0 outside.

    Raises:
        MissingDependencyError: kornia is not installed.
    """
    try:
        from kornia.geometry.transform import warp_perspective
    except ImportError as error:
        raise MissingDependencyError("kornia", "interop", "warping images") from error
    shift = torch.eye(3, dtype=torch.float64, device=images.device)
    shift[0, 2], shift[1, 2] = (images.shape[-1] - 1) / 2, (images.shape[-2] - 1) / 2  # kornia measures from pixel centers
    maps = (shift @ matrices @ shift.inverse()).to(images.dtype)
    size = (images.shape[-2], images.shape[-1])
    return warp_perspective(images[:, None], maps, size, "bilinear", "zeros", align_corners=True)[:, 0]


def _support_points(images: Float32[Tensor, "n h w"]) -> tuple[Float64[np.ndarray, "p 2"], np.ndarray]:
    """The centers of all pixels relative to the middle, and a mask of those used by each image."""
    side = images.shape[-1]
    along = np.arange(side) + 0.5 - side / 2
    y, x = np.meshgrid(along, along, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], -1), (images > 0).flatten(1).numpy()


def _warped(
    digits: Digits, padded: Float32[Tensor, "d side side"], sources: np.ndarray, matrices: np.ndarray, seed: int, kind: str
) -> WarpedDigits:
    copies = len(sources) // max(len(digits), 1)
    text = f"generated {kind}: {copies} warps of each of {len(digits)} digits, seed {seed}, of {digits.source}"
    return WarpedDigits(padded, digits.labels, torch.from_numpy(sources), torch.from_numpy(matrices), text)
