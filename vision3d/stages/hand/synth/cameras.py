"""Where the hand is in the camera's frame, and the crop around it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.geometry.rotation import so3_exp

_FACING = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))
"""From the frame of the template to that of a camera that sees the palm, fingers up."""
_NEAR = math.radians(60)


def sample_rotations(count: int, generator: torch.Generator, views: str = "all") -> Float[Tensor, "count 3 3"]:
    """Rotations from the template to the camera.

    Args:
        count: Number of rotations.
        generator: Random numbers, on the CPU.
        views: `all`: 40 % uniform, the others with the palm or the back roughly towards the camera, as in most photos; `near`:
            palm or back within 60 degrees, with any rotation in the image plane.
    """
    facing = torch.tensor(_FACING)
    is_back = torch.rand(count, generator=generator) < 0.5
    turned = torch.where(is_back[:, None, None], torch.diag(torch.tensor([-1.0, 1.0, -1.0])), torch.eye(3))
    axis = torch.nn.functional.normalize(torch.randn(count, 2, generator=generator), dim=1)
    if views == "near":  # uniform on the cap
        tilt = torch.arccos(1 - torch.rand(count, generator=generator) * (1 - math.cos(_NEAR)))
    else:
        tilt = 0.6 * torch.randn(count, generator=generator).clamp(-2.5, 2.5)
    away = so3_exp(torch.cat([axis * tilt[:, None], torch.zeros(count, 1)], 1))
    roll = (torch.rand(count, generator=generator) * 2 - 1) * math.pi
    if views != "near":  # fingers up more often than down
        roll = 0.9 * torch.randn(count, generator=generator)
    rolled = so3_exp(torch.stack([torch.zeros(count), torch.zeros(count), roll], 1))
    biased = rolled @ away @ facing @ turned
    if views == "near":
        return biased
    uniform = haar_rotmats(3, count, generator=generator)
    return torch.where((torch.rand(count, generator=generator) < 0.4)[:, None, None], uniform, biased)


def place_anywhere(
    points: Float[Tensor, "b n 3"], size: int, generator: torch.Generator, *, shares: tuple[float, float] = (0.06, 1.0)
) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b 3 3"]]:
    """Translations that bring the points anywhere into whole images, and the intrinsics of these.

    Args:
        points: The joints, rotated as the camera sees them [m].
        size: Side of the images [px].
        generator: Random numbers, on the CPU.
        shares: Range of the points' box relative to the side of the image.
    """
    count = len(points)
    low, high = points.amin(1), points.amax(1)
    extent = (high - low)[:, :2].amax(1).clamp(min=0.03)
    draw = torch.rand(count, 2, generator=generator)
    share = torch.exp(math.log(shares[0]) + draw[:, 0] * (math.log(shares[1]) - math.log(shares[0])))
    focal = size * (0.8 + 1.2 * draw[:, 1])
    distance = (extent * focal / (share * size)).clamp(min=0.16)
    room = (1 - 0.9 * share)[:, None]  # a tenth may be outside
    center = (0.5 + (torch.rand(count, 2, generator=generator) - 0.5) * room) * size
    middle = (low + high) / 2
    translation = torch.cat([(center - size / 2) * (distance / focal)[:, None], distance[:, None]], 1) - middle
    Ks = torch.zeros(count, 3, 3)
    Ks[:, 0, 0] = Ks[:, 1, 1] = focal
    Ks[:, :2, 2] = size / 2
    Ks[:, 2, 2] = 1
    return translation, Ks


def place(
    points: Float[Tensor, "b n 3"], size: int, generator: torch.Generator, *, margins: tuple[float, float] = (1.05, 1.7)
) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b 3 3"]]:
    """Translations that bring the points in front of cameras, and the intrinsics of crops around them.

    Args:
        points: The joints, rotated as the camera sees them [m].
        size: Side of the crops [px].
        generator: Random numbers, on the CPU.
        margins: Range of the side of the crop over that of the points' box.
    """
    count = len(points)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    distance = torch.exp(uniform(math.log(0.22), math.log(1.1)))
    middle = (points.amin(1) + points.amax(1)) / 2
    translation = -middle
    translation[:, 2] += distance
    moved = points + translation[:, None]
    image = moved[..., :2] / moved[..., 2:].clamp(min=0.02)
    low, high = image.amin(1), image.amax(1)
    side = (high - low).amax(1).clamp(min=1e-3)
    focal = size / (side * uniform(*margins))
    center = (low + high) / 2 + uniform(-0.12, 0.12, 2) * side[:, None]
    Ks = torch.zeros(count, 3, 3)
    Ks[:, 0, 0] = Ks[:, 1, 1] = focal
    Ks[:, :2, 2] = size / 2 - focal[:, None] * center
    Ks[:, 2, 2] = 1
    return translation, Ks
