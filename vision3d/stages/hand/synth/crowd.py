"""Other hands behind a hand: those of other images of the batch."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

_NEAREST = 0.3
"""Smallest shift of another hand against the one in front [image sides]."""


def crowded(
    images: Float[Tensor, "b s s 3"],
    drawn: Float[Tensor, "b s s 4"],
    chosen: Bool[Tensor, " b"],
    generator: torch.Generator,
) -> Float[Tensor, "b s s 3"]:
    """Backgrounds with the hand of another image in front of them, turned, mirrored, scaled and moved off the middle.

    Args:
        images: Backgrounds, sRGB.
        drawn: Hands with what they wear and hold, sRGB and opacity, zero elsewhere.
        chosen: Images that get another hand.
        generator: Random numbers, on the CPU.
    """
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, toward = uniform(-math.pi, math.pi), uniform(-math.pi, math.pi)
    zoom, distance = uniform(-0.4, 0.4).exp(), uniform(_NEAREST, 0.75)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    turn = torch.stack([torch.stack([mirror * cos, -mirror * sin], -1), torch.stack([sin, cos], -1)], 1)
    shift = 2 * distance[:, None] * torch.stack([toward.cos(), toward.sin()], -1)
    matrix = torch.cat([turn, -(turn @ shift[..., None])], -1)
    layer = drawn.roll(1, 0).permute(0, 3, 1, 2)
    grid = functional.affine_grid(matrix, list(layer.shape), align_corners=False)
    layer = functional.grid_sample(layer, grid, align_corners=False).permute(0, 2, 3, 1)
    color, opacity = layer.split([3, 1], -1)
    return torch.where(chosen[:, None, None, None], images * (1 - opacity) + color, images)
