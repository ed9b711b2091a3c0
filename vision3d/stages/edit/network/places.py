"""Where texels of planes lie in an object: coordinates, and waves with the periods and phases of the patterns."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.scene.triplane import AXES
from vision3d.stages.edit.instructions.patterns import CHECK, DOT_PERIOD, STRIPE

_TURNS = (0.5, 1.0, 1.5, 2.0, 2.5, 4.0, 5.5)
"""Periods of the cube along an axis: wood and marble do not depend on the size of the object."""
_TILTED = (((0.35, 0.25, 1.0), 0.8), ((1.0, 0.6, 0.8), 0.8))
"""Directions and periods of waves across the axes."""
_FLAT = 0.6
_SOFT = 0.06
_OF_AXIS = 19 + 2 * len(_TURNS)
_CHECK = 7  # number of the feature
PLACES = 2 * _OF_AXIS + 1 + 2 * len(_TILTED)
"""Number of features."""


def axis_features(box: Float[Tensor, "b 2 3"], size: int) -> Float[Tensor, "b 3 size k"]:
    """Features of the coordinate of each texel along each axis, relative to the object's box and to the cube.

    A pattern of one axis is a function of one of them, which a network would have to find among waves of many periods else.

    Args:
        box: Lowest and highest corner of each object.
        size: Texels along a side.
    """
    at = centers(size, box)
    low, extent = box[:, 0, :, None], (box[:, 1] - box[:, 0]).clamp(min=1e-3)[..., None]
    share = ((at - low) / extent).clamp(-0.1, 1.1)  # (b, 3, size)
    cube, inside = at.expand_as(share), share.clamp(0, 1)
    bands = math.pi * (extent / STRIPE).round().clamp(min=2) * share
    checks = math.pi * (extent / CHECK).round() * share
    stripe, check = torch.tanh(3 * bands.cos()), torch.tanh(3 * checks.cos())
    count = (extent / DOT_PERIOD).round()
    cell = torch.where(count > 0, extent / count.clamp(min=1), 0)
    lattice = [((count * share - shift) - (count * share - shift).round()) * cell / DOT_PERIOD for shift in (0.0, 0.5)]
    axis = torch.where(extent[:, 2, 0] < _FLAT, extent[..., 0].argmax(1), 2)
    is_band = torch.nn.functional.one_hot(axis, 3).to(box)[..., None]
    is_up = box.new_tensor([0.0, 0.0, 1.0])[:, None]
    soft = (extent / 12).clamp(max=_SOFT)
    top, bottom = ((share - 2 / 3) * extent / soft).clamp(0, 1), ((1 / 3 - share) * extent / soft).clamp(0, 1)
    parts = [
        share, cube, bands.cos(), bands.sin(), stripe, checks.cos(), checks.sin(), check,
        lattice[0], lattice[1], 16 * lattice[0].square(), 16 * lattice[1].square(), (2 * math.pi * count * share).cos(),
        is_band * stripe, is_band * inside, is_band * inside.square() * (3 - 2 * inside), is_band.expand_as(share),
        is_up * top, is_up * bottom,
    ]  # fmt: skip
    waves = cube[..., None] * (box.new_tensor(_TURNS) * math.pi)
    return torch.cat([torch.stack(parts, -1), waves.cos(), waves.sin()], -1)


def texels_at(
    rows: Int64[Tensor, " h"], columns: Int64[Tensor, " w"], count: int
) -> tuple[Int64[Tensor, "b 3 m"], Int64[Tensor, "b 3 m"]]:
    """Columns and rows of a grid of texels, row by row, for each plane of so many objects."""
    grid = torch.meshgrid(rows, columns, indexing="ij")
    down, across = (one.flatten().expand(count, 3, -1) for one in grid)
    return across, down


def place_features(
    along: Float[Tensor, "b 3 size k"], columns: Int64[Tensor, "b 3 m"], rows: Int64[Tensor, "b 3 m"]
) -> Float[Tensor, "b 3 m p"]:
    """Features of the places of texels: those along the two axes of their plane, and products and waves across them.

    Args:
        along: Of `axis_features`.
        columns: Of m texels of each plane.
        rows: The same.
    """
    size, batch = along.shape[2], torch.arange(len(along), device=along.device)[:, None]
    at = centers(size, along)
    planes = []
    for plane, (across, down) in enumerate(AXES):
        first, second = along[batch, across, columns[:, plane]], along[batch, down, rows[:, plane]]
        u, v = at[columns[:, plane]], at[rows[:, plane]]
        both = [first, second, first[..., _CHECK : _CHECK + 1] * second[..., _CHECK : _CHECK + 1]]
        for direction, period in _TILTED:
            wave = (2 * math.pi / period * (direction[across] * u + direction[down] * v))[..., None]
            both += [wave.cos(), wave.sin()]
        planes.append(torch.cat(both, -1))
    return torch.stack(planes, 1)


def centers(size: int, like: Tensor) -> Float[Tensor, " size"]:
    """Coordinates of the centers of texels."""
    return (2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1
