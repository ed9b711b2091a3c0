"""Batches of objects, changed at random: turned, mirrored, recolored, with fewer and noisier points."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.stages.edit.data.shapes import random_colors
from vision3d.stages.edit.instructions.families import all_edits
from vision3d.stages.edit.instructions.targets import apply_edit
from vision3d.training.samples import Sample

_LEAST = 0.25
"""Smallest share of the points."""
_NOISE = 0.012
"""Largest standard deviation of the points [half side of the cube]."""
_OFF_SURFACE = 0.01
"""Standard deviation of the places at which colors are compared."""


@dataclass(frozen=True, eq=False)
class ObjectBatch:
    """B objects: what the encoder sees, and what the field should be."""

    points: Float[Tensor, "b n 3"]
    values: Float[Tensor, "b n 5"]
    places: Float[Tensor, "b m 3"]
    """On the surface, or close to it."""
    place_values: Float[Tensor, "b m 5"]
    queries: Float[Tensor, "b q 3"]
    inside: Bool[Tensor, "b q"]

    def to(self, device: torch.device) -> "ObjectBatch":
        return ObjectBatch(**{name: value.to(device) for name, value in vars(self).items()})


def training_batch(sample: Sample, count: int, queries: int, generator: torch.Generator) -> ObjectBatch:
    """Objects changed at random.

    Args:
        sample: Of `ObjectSource`.
        count: Maximum number of points that the encoder sees.
        queries: Number of places, and of queries.
        generator: Random numbers.
    """
    points, values = sample["points"].float(), sample["values"].float() / 255
    all_queries, inside = sample["queries"].float(), sample["inside"]
    values = torch.stack([_recolored(p, v, generator) for p, v in zip(points, values)])
    turn = torch.stack([_turn(generator) for _ in range(len(points))])
    points, all_queries = points @ turn, all_queries @ turn
    count = int(count * _LEAST ** _uniform(generator))
    rows = torch.randperm(points.shape[1], generator=generator)
    seen, compared = rows[:count], rows[-queries:]  # what is compared is mostly not what is seen
    noise = _NOISE * _uniform(generator) ** 2 * torch.randn(len(points), len(seen), 3, generator=generator)
    places = points[:, compared]
    places = places + _OFF_SURFACE * torch.randn(places.shape, generator=generator)
    asked = torch.randperm(all_queries.shape[1], generator=generator)[:queries]
    return ObjectBatch(
        (points[:, seen] + noise).clamp(-1, 1), values[:, seen], places.clamp(-1, 1), values[:, compared],
        all_queries[:, asked], inside[:, asked],
    )  # fmt: skip


def source_batch(sample: Sample, count: int, queries: int, generator: torch.Generator) -> ObjectBatch:
    """Objects to edit, changed at random: turned, mirrored, in other hues; without queries.

    Args:
        sample: Of `ObjectSource`.
        count: Maximum number of points that the encoder sees.
        queries: Number of places.
        generator: Random numbers.
    """
    points, values = sample["points"].float(), sample["values"].float() / 255
    colors = [other_hues(v[:, :3], generator) if _uniform(generator) < 0.6 else v[:, :3] for v in values]
    values = torch.cat([torch.stack(colors), values[..., 3:]], 2)
    points = points @ torch.stack([_turn(generator) for _ in range(len(points))])
    rows = torch.randperm(points.shape[1], generator=generator)
    seen, compared = rows[: int(count * _LEAST ** _uniform(generator))], rows[-queries:]
    return ObjectBatch(
        points[:, seen].clamp(-1, 1), values[:, seen], points[:, compared].clamp(-1, 1), values[:, compared],
        points[:, :0], sample["inside"][:, :0],
    )  # fmt: skip


def whole_batch(sample: Sample, count: int) -> ObjectBatch:
    """Objects as they are: the encoder sees the first points, and colors are compared at the others."""
    points, values = sample["points"].float(), sample["values"].float() / 255
    return ObjectBatch(
        points[:, :count], values[:, :count], points[:, count:], values[:, count:], sample["queries"].float(), sample["inside"]
    )


def _turn(generator: torch.Generator) -> Float[Tensor, "3 3"]:
    """A quarter turn about z, maybe mirrored, and a size."""
    quarter = int(torch.randint(4, (1,), generator=generator))
    cos, sin = round(math.cos(quarter * math.pi / 2)), round(math.sin(quarter * math.pi / 2))
    matrix = torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    if _uniform(generator) < 0.5:
        matrix[:, 0] *= -1
    return matrix * (0.8 + 0.2 * _uniform(generator))


def _recolored(points: Tensor, values: Tensor, generator: torch.Generator) -> Tensor:
    """The values as they are, with other hues, of a random pattern or after an edit; and a random material."""
    colors = values[:, :3]
    choice = _uniform(generator)
    if choice < 0.2:
        colors = random_colors(generator)(points).clamp(0, 1)
    elif choice < 0.6:
        colors = other_hues(colors, generator)
    if _uniform(generator) < 0.4:
        edits = all_edits()
        edit = edits[int(torch.randint(len(edits), (1,), generator=generator))]
        target = apply_edit(edit, points, colors)
        return torch.cat([target.colors, target.metallic[:, None], target.roughness[:, None]], 1)
    material = values[:, 3:]
    if _uniform(generator) < 0.4:
        material = torch.tensor([float(_uniform(generator) < 0.5), _uniform(generator)]).expand(len(values), 2)
    return torch.cat([colors, material], 1)


def other_hues(colors: Float[Tensor, "n 3"], generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """The colors after a random rotation of the color cube, and a random gamma."""
    mix = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
    return ((colors - 0.5) @ mix + 0.5).clamp(0, 1) ** (0.5 + 1.5 * _uniform(generator))


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))
