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
from vision3d.geometry.cameras import pixel_grid
from vision3d.geometry.rotation import hat
from vision3d.geometry.vectors import unit
from vision3d.stages.hand.intrinsics import check_intrinsics

_MOST = 16384  # pixels along a crop


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
    grid = pixel_grid(crop.size, crop.size, torch.float64).flatten(0, 1).expand(len(crop.Ks), -1, -1)
    places = apply_homography(torch.linalg.inv(crop.homographies.double().cpu()), grid)
    places = places.unflatten(1, (crop.size, crop.size))
    return torch.stack([_warped(image, place, fill) for place in places])


def _warped(image: Tensor, places: Float[Tensor, "s s 2"], fill: float) -> Float[Tensor, "3 s s"]:
    height, width = image.shape[:2]
    # Pixels of the image between neighbors of the crop, in the middle, where the hand is.
    middle = places.shape[0] // 2
    step = places[middle, middle] - places[max(middle - 1, 0), max(middle - 1, 0)]
    factor = max(1, int(torch.linalg.vector_norm(step) / math.sqrt(2) + 1e-6))
    low, high = places.amin((0, 1)) - 2 * factor, places.amax((0, 1)) + 2 * factor
    if not bool(torch.isfinite(torch.cat([low, high])).all()):
        raise InputError("crop: a homography maps pixels to infinity; want boxes in front of the camera")
    limit = low.new_tensor([width, height])
    left, top = (int(value) // factor * factor for value in torch.minimum(low.clamp(min=0), limit))
    right, bottom = (math.ceil(int(value) / factor) * factor for value in torch.maximum(torch.minimum(high, limit), low * 0))
    # To whole blocks: beyond the border the outermost pixels are repeated.
    part = image[top:bottom, left:right].permute(2, 0, 1)
    if min(part.shape[1:]) < 1:
        return torch.full((3, *places.shape[:2]), fill, device=image.device)
    part = part.float() / 255 if image.dtype == torch.uint8 else part.float()
    rest = (-part.shape[2] % factor, -part.shape[1] % factor)
    if factor > 1:
        if any(rest):
            part = functional.pad(part[None], (0, rest[0], 0, rest[1]), mode="replicate")[0]
        part = functional.avg_pool2d(part[None], factor)[0]
    size = places.new_tensor([part.shape[2], part.shape[1]])
    local = (places - places.new_tensor([left, top])) / factor
    local = (2 * local / size - 1).float().to(image.device)
    # The fill is 0 for grid_sample.
    return functional.grid_sample((part - fill)[None], local[None], padding_mode="zeros", align_corners=False)[0] + fill


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
