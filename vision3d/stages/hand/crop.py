"""Crops of hands: a second camera that looks at the hand, or a plain square; maps of pixels and points to and fro.

Pixel centers are at +0.5. The identity `project(crop.Ks, G X) = H project(K, X)` holds exactly for both kinds of crop.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.rotation import hat
from vision3d.geometry.vectors import unit
from vision3d.stages.hand.intrinsics import check_intrinsics

_MOST = 16384  # pixels along a crop
_FAR = 1 << 24  # beyond every image [pixels]


@dataclass(frozen=True)
class Crop:
    """Square crops of an image, as seen by cameras of their own at the same place."""

    homographies: Float[Tensor, "n 3 3"]
    """H: homogeneous pixels of the image to those of the crop."""
    camera_maps: Float[Tensor, "n 3 3"]
    """G: points in the axes of the image's camera to those of the crop's; a rotation, times a reflection if mirrored."""
    Ks: Float[Tensor, "n 3 3"]
    """K': intrinsics of the crops [pixels]."""
    size: int
    """Width and height [pixels]."""

    def mirrored(self) -> "Crop":
        """The crops with left and right exchanged: of a left hand, crops of a right one."""
        flip = torch.diag(self.Ks.new_tensor([-1.0, 1.0, 1.0]))
        pixels = flip.clone()
        pixels[0, 2] = self.size
        return replace(
            self,
            homographies=pixels @ self.homographies,
            camera_maps=flip @ self.camera_maps,
            Ks=pixels @ self.Ks @ flip,
        )

    def to_crop(self, pixels: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p 2"]:
        """Pixels of the crop of pixels of the image."""
        return apply_homography(self.homographies, pixels)

    def to_image(self, pixels: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p 2"]:
        """Pixels of the image of pixels of the crop; the inverse of `to_crop`."""
        return apply_homography(torch.linalg.inv(self.homographies), pixels)

    def to_crop_camera(self, points: Float[Tensor, "n p 3"]) -> Float[Tensor, "n p 3"]:
        """Points in the axes of the crop's camera, of points in those of the image's camera: G X."""
        return points @ self.camera_maps.mT

    def to_image_camera(self, points: Float[Tensor, "n p 3"]) -> Float[Tensor, "n p 3"]:
        """Points in the axes of the image's camera: G^-1 X, the inverse of `to_crop_camera`."""
        return points @ self.camera_maps  # orthogonal


def perspective_crop(
    centers: Float[Tensor, "n 2"],
    sides: Float[Tensor, " n"],
    Ks: Float[Tensor, "n 3 3"],
    size: int,
    angles: Float[Tensor, " n"] | None = None,
) -> Crop:
    """Crops by cameras turned towards the boxes, so that a hand looks the same wherever it is in the image.

    The camera is turned by the shortest rotation from the ray through the center to its axis, then about that axis; its focal
    length makes the box as large as the crop. H = K' G K^-1.

    Args:
        centers: Centers of the boxes [pixels].
        sides: Sides of the boxes [pixels].
        Ks: Intrinsics of the image [pixels].
        size: Width and height of the crops [pixels].
        angles: Rotation in the crop [rad], from right to down; none when None.

    Raises:
        InputError: A box is empty, a number is not finite, the intrinsics are singular, or a box is wider than the camera sees.
        ShapeError: The numbers of centers, sides, intrinsics and angles differ.
    """
    angles = _checked(centers, sides, size, angles)
    if Ks.shape != (len(centers), 3, 3):
        raise ShapeError("Ks", Ks.shape, f"({len(centers)}, 3, 3), one for each box")
    check_intrinsics(Ks)
    inverse = torch.linalg.inv(Ks)
    rays = unit(_homogeneous(centers[:, None]) @ inverse.mT)[:, 0]
    # a x e_z; 1 / (1 + cos) is (1 - cos) / sin^2 where a is parallel to e_z, too.
    across = hat(torch.stack([rays[:, 1], -rays[:, 0], torch.zeros_like(rays[:, 0])], -1))
    turn = torch.eye(3).to(across) + across + across @ across / (1 + rays[:, 2, None, None])
    corners = centers.new_tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * sides[:, None, None] + centers[:, None]
    seen = _homogeneous(corners) @ (turn @ inverse).mT
    if bool((seen[..., 2] <= 0).any()):
        raise InputError(
            "sides: a box is wider than a half space as the camera sees it; want smaller boxes, or other intrinsics"
        )
    plane = seen[..., :2] / seen[..., 2:]
    focal = size / (plane.amax(1) - plane.amin(1)).amax(1)
    middle = torch.full_like(focal, size / 2)
    own = _matrix([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    maps = _rotations(angles) @ turn
    return Crop(own @ maps @ inverse, maps, own, size)


def square_crop(
    centers: Float[Tensor, "n 2"],
    sides: Float[Tensor, " n"],
    Ks: Float[Tensor, "n 3 3"],
    size: int,
    angles: Float[Tensor, " n"] | None = None,
) -> Crop:
    """Crops without perspective: shifted, scaled and rotated squares of the image. The pixels do not depend on `Ks`.

    Args:
        centers: Centers of the boxes [pixels].
        sides: Sides of the boxes [pixels].
        Ks: Intrinsics of the image [pixels]; of an image with unknown ones, `field_of_view_Ks`.
        size: Width and height of the crops [pixels].
        angles: As for `perspective_crop`.

    Raises:
        InputError: A box is empty, a number is not finite, or the intrinsics are singular.
        ShapeError: As for `perspective_crop`.
    """
    angles = _checked(centers, sides, size, angles)
    if Ks.shape != (len(centers), 3, 3):
        raise ShapeError("Ks", Ks.shape, f"({len(centers)}, 3, 3), one for each box")
    check_intrinsics(Ks)
    scale = size / sides
    x, y = centers.unbind(1)
    to_middle = _matrix([[scale, 0, -scale * x], [0, scale, -scale * y], [0, 0, 1]])
    rotations = _rotations(angles)
    middle = torch.full_like(scale, size / 2)
    shift = _matrix([[1, 0, middle], [0, 1, middle], [0, 0, 1]])
    homographies = shift @ rotations @ to_middle
    # Triangular only without rotation or for square pixels; the identity needs no more than a matrix.
    return Crop(homographies, rotations, homographies @ Ks @ rotations.mT, size)


def apply_homography(homographies: Float[Tensor, "n 3 3"], pixels: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p 2"]:
    """Pixels after a homography; infinite or meaningless for those that it maps to or beyond infinity."""
    mapped = _homogeneous(pixels) @ homographies.mT
    return mapped[..., :2] / mapped[..., 2:]


def warp(
    image: UInt8[Tensor, "h w 3"] | Float[Tensor, "h w 3"], crop: Crop, fill: float = 0.0
) -> Float[Tensor, "n 3 size size"]:
    """The crops of an image, bilinear; a crop with fewer pixels than its box is taken from a smaller image of means.

    Args:
        image: Red, green and blue, in [0, 255] if uint8, else in [0, 1].
        crop: The crops.
        fill: Value outside the image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 1:
        raise ShapeError("image", image.shape, "(H, W, 3)")
    inverse = torch.linalg.inv(crop.homographies.double().cpu())
    return torch.stack([_warped(image, to_image, crop.size, fill) for to_image in inverse])


def _warped(image: Tensor, to_image: Float[Tensor, "3 3"], size: int, fill: float) -> Float[Tensor, "3 s s"]:
    height, width = image.shape[:2]
    middle, ends = size / 2, [[0, 0], [size, 0], [0, size], [size, size]]
    seen = _homogeneous(to_image.new_tensor([*ends, [middle - 0.5, middle - 0.5], [middle + 0.5, middle + 0.5]])) @ to_image.mT
    if not bool((seen[:, 2] > 0).all()):  # also if NaN
        raise InputError("crop: a homography maps pixels to infinity; want boxes in front of the camera")
    places = seen[:, :2] / seen[:, 2:]
    # Pixels of the image between neighbors of the crop, in the middle, where the hand is.
    factor = max(1, int(torch.linalg.vector_norm(places[5] - places[4]) / math.sqrt(2) + 1e-6))
    low, high = places[:4].amin(0) - 2 * factor, places[:4].amax(0) + 2 * factor
    # Of large blocks about 4x4 pixels count.
    skip = max(1, factor // 4)
    block = factor // skip
    factor = skip * block
    # Only the part that is seen, in whole blocks.
    left, top = (int(value.clamp(0, _FAR)) // factor * factor for value in low)
    right, bottom = (math.ceil(int(value.clamp(0, _FAR)) / factor) * factor for value in high)
    part = image[top + skip // 2 : min(bottom, height) : skip, left + skip // 2 : min(right, width) : skip]
    if min(part.shape[:2]) < 1:
        return torch.full((3, size, size), fill, device=image.device)
    part = _block_means(part, block).permute(2, 0, 1) - fill
    # To [-1, 1] in the part. The middle of the pixels that count is beside that of the block if `skip` is even.
    shift = [value + skip // 2 + 0.5 - skip / 2 for value in (left, top)]
    (a, b), (c, d) = ((2 / factor / part.shape[axis], start) for axis, start in zip((2, 1), shift))
    to_part = to_image.new_tensor([[a, 0, -a * b - 1], [0, c, -c * d - 1], [0, 0, 1]]) @ to_image
    centers = torch.arange(size, dtype=torch.float64) + 0.5
    x, y, w = ((row[0] * centers + row[2]).float() + (row[1] * centers).float()[:, None] for row in to_part)
    grid = torch.stack([x / w, y / w], -1)[None].to(image.device)
    # The fill is 0 for grid_sample.
    return functional.grid_sample(part[None], grid, padding_mode="zeros", align_corners=False)[0] + fill


def _block_means(image: Tensor, block: int) -> Float[Tensor, "u v 3"]:
    """Means of square blocks, in [0, 1]; of blocks beyond the border, the outermost pixels are repeated."""
    scale = 1 / block**2 / (255 if image.dtype == torch.uint8 else 1)
    for axis in (0, 1) if block > 1 else ():
        rest = -image.shape[axis] % block
        if rest:
            last = image.narrow(axis, image.shape[axis] - 1, 1)
            image = torch.cat([image, *[last] * rest], axis)
        parts = [image[start::block] if axis == 0 else image[:, start::block] for start in range(block)]
        total = parts[0].int() if image.dtype in (torch.uint8, torch.int32) else parts[0].clone()
        for part in parts[1:]:
            total += part
        image = total
    return image.float() * scale


def flip_uv(uv: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """Points (across, down) in crop sides, of the crop with left and right exchanged."""
    return torch.stack([1 - uv[..., 0], uv[..., 1]], -1)


def flip_points(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Points in the axes of a camera, with left and right exchanged."""
    return points * points.new_tensor([-1.0, 1.0, 1.0])


def _checked(centers: Tensor, sides: Tensor, size: int, angles: Tensor | None) -> Tensor:
    if centers.ndim != 2 or centers.shape[1] != 2:
        raise ShapeError("centers", centers.shape, "(N, 2)")
    angles = torch.zeros_like(sides) if angles is None else angles
    for name, values in (("sides", sides), ("angles", angles)):
        if values.shape != centers.shape[:1]:
            raise ShapeError(name, values.shape, f"({len(centers)},), one for each center")
    if not 1 <= size <= _MOST:
        raise InputError(f"size: got {size} pixels, want 1 to {_MOST}")
    for name, values in (("centers", centers), ("sides", sides), ("angles", angles)):
        if not bool(values.isfinite().all()):
            raise InputError(f"{name}: got a number that is not finite, want finite pixels and radians")
    if bool((sides <= 0).any()):
        raise InputError(f"sides: got an empty box ({float(sides.min()):g} pixels), want more than 0")
    return angles


def _homogeneous(pixels: Tensor) -> Tensor:
    return functional.pad(pixels, (0, 1), value=1.0)


def _rotations(angles: Tensor) -> Tensor:
    cos, sin = angles.cos(), angles.sin()
    return _matrix([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _matrix(rows: list[list[Tensor | float]]) -> Float[Tensor, "n 3 3"]:
    like = next(value for row in rows for value in row if isinstance(value, Tensor))
    values = [value if isinstance(value, Tensor) else torch.full_like(like, value) for row in rows for value in row]
    return torch.stack(values, -1).unflatten(-1, (3, 3))
