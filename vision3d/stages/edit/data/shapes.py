"""Procedural objects: a few solids put together, each with a color or a pattern."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.shapes import box, cylinder, icosphere, torus

Colors = Callable[[Tensor], Tensor]
"""Points (N, 3) -> colors (N, 3), sRGB."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A mesh of parts, z up."""

    vertices: Float[Tensor, "v 3"]
    faces: Int64[Tensor, "f 3"]
    parts: Int64[Tensor, " f"]
    """Number of the part of each face."""
    colors: tuple[Colors, ...]
    """Of each part."""


def random_shape(generator: torch.Generator) -> Shape:
    """An object of one to five parts: most stand on each other, as vases, lamps, furniture and toys do.

    Args:
        generator: Random numbers.
    """
    count = 1 + int(torch.randint(5, (1,), generator=generator))
    palette = torch.rand(3, 3, generator=generator)
    meshes, colors, top = [], [], 0.0
    stacked = _uniform(generator) < 0.6
    for _ in range(count):
        vertices, faces = _SOLIDS[int(torch.randint(len(_SOLIDS), (1,), generator=generator))](generator)
        vertices = vertices * (0.25 + 0.75 * torch.rand(3, generator=generator))
        if _uniform(generator) < 0.4:
            turn = torch.randn(4, generator=generator)
            vertices = vertices @ quat_to_rotmat(turn / turn.norm()).T
        if stacked:
            vertices = vertices + torch.tensor([0.0, 0.0, top - float(vertices[:, 2].min()) - 0.02])
            top = float(vertices[:, 2].max())
        else:
            vertices = vertices + 1.2 * (torch.rand(3, generator=generator) - 0.5)
        meshes.append((vertices, faces))
        base = palette[int(torch.randint(3, (1,), generator=generator))] if _uniform(generator) < 0.6 else None
        colors.append(random_colors(generator, base))
    starts = torch.tensor([0, *(len(vertices) for vertices, _ in meshes)]).cumsum(0)
    parts = torch.cat([torch.full((len(faces),), index) for index, (_, faces) in enumerate(meshes)])
    faces = torch.cat([faces + start for (_, faces), start in zip(meshes, starts)])
    return Shape(torch.cat([vertices for vertices, _ in meshes]), faces, parts, tuple(colors))


def random_colors(generator: torch.Generator, base: Float[Tensor, " 3"] | None = None) -> Colors:
    """A color, or a pattern of two: gradient, stripes, checks, blotches, fine grain.

    Args:
        generator: Random numbers.
        base: The first color; random when None.
    """
    first = torch.rand(3, generator=generator) if base is None else base
    second = torch.rand(3, generator=generator) if _uniform(generator) < 0.7 else (first * (0.4 + 0.4 * _uniform(generator)))
    kind = int(torch.randint(8, (1,), generator=generator))
    direction = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
    frequency = math.pi * (1.5 + 6 * _uniform(generator))
    waves = torch.randn(8, 3, generator=generator) * (2 + 8 * _uniform(generator))
    phases = 2 * math.pi * torch.rand(8, generator=generator)

    def share(points: Tensor) -> Tensor:
        along = points @ direction
        if kind == 3:
            return (0.5 + 0.5 * along).clamp(0, 1)
        if kind == 4:
            return _step(torch.sin(frequency * along))
        if kind == 5:
            return _step(torch.sin(frequency * points).prod(1) * 3)
        noise = torch.sin(points @ waves.T + phases).mean(1) * 2
        return _step(noise) if kind == 6 else 0.5 + 0.5 * noise.clamp(-1, 1)

    if kind < 3:  # plain
        return lambda points: first.expand(len(points), 3)
    return lambda points: torch.lerp(first, second, share(points)[:, None])


def _step(values: Tensor) -> Tensor:
    return (0.5 + 4 * values).clamp(0, 1)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))


def _sphere(_: torch.Generator) -> tuple[Tensor, Tensor]:
    return icosphere(3)


def _box(_: torch.Generator) -> tuple[Tensor, Tensor]:
    return box((1.6, 1.6, 1.6), 2)


def _cylinder(_: torch.Generator) -> tuple[Tensor, Tensor]:
    return cylinder(0.8, 1.6)


def _torus(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torus(0.8, 0.15 + 0.2 * _uniform(generator))


def _superellipsoid(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Between box, sphere and octahedron."""
    vertices, faces = icosphere(3)
    power = 0.4 + 1.2 * _uniform(generator)
    return vertices.sign() * vertices.abs() ** power, faces


def _turned(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A solid of revolution with a smooth random profile: vases, bottles, bells."""
    vertices, faces = icosphere(4)
    heights = vertices[:, 2]
    waves = torch.randn(3, generator=generator) * 0.25
    steps = torch.arange(1, 4)
    swell = 1 + (torch.sin(math.pi * steps * (heights[:, None] + 1) * 0.5 + steps) * waves).sum(1)
    square = (1 - heights**2).clamp(min=0)
    radius = swell.clamp(min=0.15) * square ** (0.15 * _uniform(generator))
    return torch.cat([vertices[:, :2] * radius[:, None], heights[:, None]], 1), faces


_SOLIDS = (_sphere, _box, _cylinder, _torus, _superellipsoid, _turned, _turned, _box)
