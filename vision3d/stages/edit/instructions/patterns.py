"""Patterns in the object's frame, as smooth functions of the position: shares in [0, 1] of the second color.

Positions are (..., n, 3), z up, the longest side from -1 to 1. A plane with 64 texels over [-1, 1] has texels of 0.031; edges
are about two of them wide, and no period is below 9, in variations 6. Waves are aligned with the bounding box, so that the flat
sides of a box lie in the middle of a stripe or check and never at an edge.
"""

import math

import torch
from torch import Tensor

from vision3d.stages.edit.instructions.variation import USUAL, Variation

STRIPE = 0.2  # width of a stripe
CHECK = 0.25
DOT_PERIOD, DOT_RADIUS = 0.5, 0.19
RING = 0.36
_SHARP = 6.0  # slope of the edges of waves
_EDGE = 0.014  # width of the edge of a dot, as the scale of a sigmoid
_FLAT = 0.6  # objects flatter than this have bands along their longest axis


def stripes(positions: Tensor, by: Variation = USUAL) -> Tensor:
    """Bands perpendicular to the up axis; on flat objects to the longest axis."""
    along, extent = _axis(positions)
    low = along.amin(-1, keepdim=True)
    bands = (extent / (STRIPE * by.period)).round().clamp(min=2)
    return torch.sigmoid(-_SHARP * (math.pi * bands * (along - low) / extent + 2 * math.pi * by.phase[2]).cos())


def checks(positions: Tensor, by: Variation = USUAL) -> Tensor:
    """Cubes in two alternating colors."""
    low, extent = _box(positions)
    count = (extent / (CHECK * by.period)).round()
    shift = torch.where(count > 0, 2 * math.pi * positions.new_tensor(by.phase), 0)  # an axis without a period is ignored
    waves = (math.pi * count * (positions - low) / extent.clamp(min=1e-6) + shift).cos()
    return 0.5 + 0.5 * torch.tanh(_SHARP / 2 * waves).prod(-1)


def dots(positions: Tensor, by: Variation = USUAL) -> Tensor:
    """Balls on a body-centered cubic lattice."""
    low, extent = _box(positions)
    count = (extent / (DOT_PERIOD * by.period)).round()
    cell = torch.where(count > 0, extent / count.clamp(min=1), 0)  # an axis without a whole period is ignored
    places = (positions - low) / extent.clamp(min=1e-6) * count + positions.new_tensor(by.phase)
    distances = [torch.linalg.vector_norm((places - shift - (places - shift).round()) * cell, dim=-1) for shift in (0.0, 0.5)]
    radius = torch.full_like(cell[..., 0], DOT_RADIUS)
    if by.period != 1:  # on thin objects, wider cells would still be as narrow as the object
        radius = radius * (cell.masked_fill(count == 0, math.inf).amin(-1) / DOT_PERIOD).clamp(max=by.period)
    return torch.sigmoid((radius - torch.minimum(*distances)) / _EDGE)


def gradient(positions: Tensor, is_inside: Tensor, by: Variation = USUAL) -> Tensor:
    """From 0 at the lower end of the points inside to 1 at the upper end; on flat objects along the longest axis."""
    along, _ = _axis(positions)
    low = along.masked_fill(~is_inside, math.inf).amin(-1, keepdim=True)
    high = along.masked_fill(~is_inside, -math.inf).amax(-1, keepdim=True)
    share = ((along - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    share = share if by.strength == 1 else share**by.strength
    return share.square() * (3 - 2 * share)


def rings(positions: Tensor, by: Variation = USUAL) -> Tensor:
    """Annual rings of wood around a tilted axis beside the center, 0.36 apart."""
    x, y, z = by.moved(positions, RING).unbind(-1)
    across_x, across_y = x + 0.22 * z + 0.37 + 0.05 * (3 * z).sin(), y - 0.12 * z - 0.23 + 0.05 * (2.5 * z + 1).sin()
    radius = (across_x.square() + across_y.square() + 1e-6).sqrt() + 0.04 * (3 * x + 2 * y + 1.5 * z).sin()
    return torch.sigmoid(2.5 * (2 * math.pi * radius / RING).sin() - 0.8)


def marble(positions: Tensor, by: Variation = USUAL) -> Tensor:
    """Veins of marble: a strongly warped sine, about 0.4 apart, which fade in places."""
    x, y, z = by.moved(positions, 0.8).unbind(-1)
    warp = 0.9 * (2.1 * y + 1.3 * z).sin() + 0.8 * (2.7 * x - 2.2 * z + 1).sin() + 0.3 * (4.5 * z - 3.1 * y + 2 * x).sin()
    wave = (2 * math.pi * (x + 0.6 * y + 0.8 * z) / 1.2 + 2.0 * warp).sin()
    strength = 0.3 + 0.7 * torch.sigmoid(4 * (1.7 * x - 2.3 * y + 1.9 * z + 2).sin() + 1)
    return strength * torch.exp(-(wave / 0.35).square())


def horizon(positions: Tensor, by: Variation = USUAL) -> Tensor:
    """A reflected horizon, from -1 to 1: bands with a period of 0.8 that wave a little."""
    x, y, z = by.moved(positions, 0.8).unbind(-1)
    return (2 * math.pi * (z + 0.35 * x + 0.25 * y) / 0.8 + 0.5 * (math.pi * x).sin()).sin()


def spot(positions: Tensor, by: Variation = USUAL) -> Tensor:
    """Highlights of two lamps: 1 where the direction from the center is close to one of them."""
    direction = torch.nn.functional.normalize(positions, dim=-1, eps=1e-6)
    lamps = torch.nn.functional.normalize(positions.new_tensor([[0.5, -0.6, 0.65], [-0.6, 0.55, 0.5]]), dim=-1)
    if any(by.phase):  # other lamps
        cosine, sine = math.cos(2 * math.pi * by.phase[0]), math.sin(2 * math.pi * by.phase[0])
        lamps = lamps @ lamps.new_tensor([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    return torch.sigmoid(((direction @ lamps.T).amax(-1) - 0.9) / 0.02)


def _box(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Lower corner and extents of the bounding box (..., 1, 3)."""
    low = positions.amin(-2, keepdim=True)
    return low, positions.amax(-2, keepdim=True) - low


def _axis(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinate along the axis of the bands (..., n), and the extent along it (..., 1)."""
    extents = _box(positions)[1][..., 0, :]
    axis = torch.where(extents[..., 2] < _FLAT, extents.argmax(-1), 2)[..., None]
    along = torch.gather(positions, -1, axis[..., None, :].expand(*positions.shape[:-1], 1))[..., 0]
    return along, torch.gather(extents, -1, axis).clamp(min=1e-6)
