"""Objects where fingers close around them: inside of the curve of the bent fingers, or between thumb and index finger."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.geometry.vectors import any_orthogonal, unit
from vision3d.scene.mesh import Mesh
from vision3d.stages.hand.synth.props import Part

_CURVE = tuple(range(5, 21))
"""Joints of the four fingers."""
_FLESH_M = 0.009
"""From the axis of a finger to its skin [m]."""
_RADII_M = 0.006, 0.05
"""Of what fingers close around [m]."""
_PINCH_M = 0.04
"""Distance of the tips of thumb and index finger from which they hold something between them [m]."""
_SCALES = 0.25, 4.0
"""Of the size that an object has."""
_INDEX, _LITTLE, _THUMB_TIP, _INDEX_TIP = 5, 17, 4, 8


def gripped(
    held: Part, mesh: Mesh, skeleton: Float[Tensor, "b 21 3"], chosen: Bool[Tensor, " b"], generator: torch.Generator
) -> Part:
    """The object of some images at a grip of the hand, where there is one, and of the size that it leaves.

    A grip is a circle through the joints of the fingers, in the plane across the palm, whose axis is that of a long object; or
    the room between the tips of thumb and index finger, in which the object may lie in any direction.

    Args:
        held: The object elsewhere.
        mesh: The same, with its middle anywhere [m].
        skeleton: Centers of the joints in the camera's frame [m].
        chosen: Which images.
        generator: Random numbers, on the CPU.
    """
    count = len(skeleton)
    points = mesh.vertices - (mesh.vertices.amin(0) + mesh.vertices.amax(0)) / 2
    _, _, axes = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    lying = points @ axes.mT  # the longest axis is x
    extent = (lying.amax(0) - lying.amin(0)).clamp(min=1e-4)
    across = unit(skeleton[:, _LITTLE] - skeleton[:, _INDEX])
    center, radius = circle_of(skeleton[:, _CURVE], across)
    room = radius - _FLESH_M
    tips = skeleton[:, [_THUMB_TIP, _INDEX_TIP]]
    gap = torch.linalg.vector_norm(tips[:, 0] - tips[:, 1], dim=1)
    is_pinch = (gap < _PINCH_M) & (torch.rand(count, generator=generator) < 0.6)
    closes = (room > _RADII_M[0]) & (room < _RADII_M[1]) & ~is_pinch
    # A long object in the fist may stick out on either side, and is rarely exactly across.
    along = unit(across + 0.08 * torch.randn(count, 3, generator=generator))
    first = any_orthogonal(along)
    basis = torch.stack([along, first, torch.linalg.cross(along, first)], 2)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    zero, one = torch.zeros(count), torch.ones(count)
    spun = torch.stack([one, zero, zero, zero, angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos()], 1).view(-1, 3, 3)
    slide = (torch.rand(count, generator=generator) - 0.5) * 0.6 * extent[0]
    size = torch.where(is_pinch, (gap - 1.4 * _FLESH_M).clamp(min=0.003) / extent[2], 2 * room / extent[1])
    size = size.clamp(*_SCALES)
    rotation = torch.where(is_pinch[:, None, None], haar_rotmats(3, count, generator=generator), basis @ spun)
    middle = torch.where(is_pinch[:, None], tips.mean(1), center + (slide * size)[:, None] * along)
    vertices = (size[:, None, None] * lying) @ rotation.mT + middle[:, None]
    at_grip = (chosen & (is_pinch | closes))[:, None, None]
    return Part(torch.where(at_grip, vertices, held.vertices), held.faces, held.colors)


def circle_of(points: Float[Tensor, "b n 3"], axis: Float[Tensor, "b 3"]) -> tuple[Float[Tensor, "b 3"], Float[Tensor, " b"]]:
    """Centers and radii of the circles around an axis that fit points best (Kasa 1976), in the middle of these along the axis.

    Args:
        points: At least three.
        axis: Unit vectors.
    """
    first = any_orthogonal(axis)
    basis = torch.stack([first, torch.linalg.cross(axis, first)], 2)
    mean = points.mean(1, keepdim=True)
    plane = (points - mean) @ basis
    # x^2 + y^2 = 2 a x + 2 b y + c; points in a line have no circle: a huge one.
    table = torch.cat([2 * plane, torch.ones_like(plane[..., :1])], 2)
    squares = (plane**2).sum(2, keepdim=True)
    moments = table.mT @ table + 1e-9 * torch.eye(3)
    a, b, c = torch.linalg.solve(moments, table.mT @ squares)[..., 0].unbind(1)
    center = mean[:, 0] + (basis @ torch.stack([a, b], 1)[..., None])[..., 0]
    return center, (c + a**2 + b**2).clamp(min=0).sqrt()
