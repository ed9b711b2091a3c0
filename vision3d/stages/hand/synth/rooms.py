"""Pictures of furnished rooms, as backgrounds."""

import math
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from vision3d.render.meshes import Surface
from vision3d.scene.mesh import Mesh
from vision3d.stages.hand.synth.backgrounds import procedural
from vision3d.stages.hand.synth.objects import Split, furniture
from vision3d.stages.hand.synth.pictures import WIDTH, PictureSource, lamps, picture, placed, uniform, view


def rooms(folder: Path, split: Split, count: int = 160) -> UInt8[Tensor, "count 3 192 256"]:
    """Pictures of rooms, made once and kept in the cache.

    Args:
        folder: Contains .sh3f files, at any depth.
        split: train or test: of other models.
        count: Number of pictures.

    Raises:
        MissingFileError: The folder has no furniture of this split.
        FileFormatError: An archive is damaged.
    """
    return PictureSource(folder, split, furniture, room).kept("rooms", count)


def room(models: tuple[Surface, ...], generator: torch.Generator) -> UInt8[Tensor, "3 192 256"]:
    """A picture of a room with some of the models in it, sRGB.

    Args:
        models: z is up, standing on z = 0 [m].
        generator: Random numbers, on the CPU.
    """

    def number(low: float, high: float) -> float:
        return uniform(low, high, generator)

    length, width, height = number(3, 7), number(2.5, 5), number(2.3, 3)
    camera = torch.tensor([number(0.1, 0.35) * length, number(-0.35, 0.35) * width, number(0.6, 1.7)])
    yaw, pitch = number(-0.6, 0.6), number(-0.7, 0.1)
    focal = WIDTH / 2 / math.tan(number(0.45, 0.7))
    parts = [Surface.of(wall) for wall in _walls(length, width, height, generator)]
    for _ in range(int(number(12, 32))):
        model = models[int(torch.randint(len(models), (1,), generator=generator))]
        size = float((model.mesh.vertices.amax(0) - model.mesh.vertices.amin(0)).max())
        far = number(0.35, 1) * length if size > 0.5 else camera[0] + number(0.4, 2.0)
        lift = 0.0 if size > 0.5 else number(0.3, 1.1)
        shift = torch.tensor([float(far), number(-0.45, 0.45) * width, lift])
        parts.append(placed(model, number(-math.pi, math.pi), shift))
    lights = lamps((-0.5, 0.0, 1.0), generator, ambient=(0.15, 0.6), headlight=0.3, specular=0.2)
    return picture(parts, view(camera, pitch, yaw), focal, lights)


def _walls(length: float, width: float, height: float, generator: torch.Generator) -> list[Mesh]:
    """Floor, ceiling and three walls."""
    x, y = (0.0, length), (-width / 2, width / 2)
    sides = (
        [(x[0], y[0], 0), (x[1], y[0], 0), (x[1], y[1], 0), (x[0], y[1], 0)],
        [(x[0], y[0], height), (x[1], y[0], height), (x[1], y[1], height), (x[0], y[1], height)],
        [(x[1], y[0], 0), (x[1], y[1], 0), (x[1], y[1], height), (x[1], y[0], height)],
        [(x[0], y[0], 0), (x[1], y[0], 0), (x[1], y[0], height), (x[0], y[0], height)],
        [(x[0], y[1], 0), (x[1], y[1], 0), (x[1], y[1], height), (x[0], y[1], height)],
    )
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    corners = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    paint = _paint(generator)
    parts = []
    for number, side in enumerate(sides):
        if number < 2:
            surface = _paint(generator)
            if number == 0 and float(torch.rand(1, generator=generator)) < 0.5:  # boards or tiles
                surface = surface * _lines(64, generator)
        else:
            surface = paint
        pale = 0.35 + 0.65 * surface if number else surface
        parts.append(Mesh(torch.tensor(side, dtype=torch.float32), faces, uvs=corners, texture=pale))
    return parts


def _paint(generator: torch.Generator) -> Tensor:
    """A pale color with faint spots; now and then a loud pattern."""
    pattern = procedural(64, generator)
    if float(torch.rand(1, generator=generator)) < 0.15:
        return pattern
    color = 0.25 + 0.75 * torch.rand(1, generator=generator) + 0.12 * torch.randn(3, generator=generator)
    return (color * (0.85 + 0.3 * pattern.mean(-1, keepdim=True))).clamp(0, 1)


def _lines(size: int, generator: torch.Generator) -> Tensor:
    """Dark joints between boards or tiles."""
    step = int(torch.randint(4, 17, (1,), generator=generator))
    at = torch.arange(size)
    lines = torch.where(at % step == 0, 0.55, 1.0)
    if float(torch.rand(1, generator=generator)) < 0.5:
        return lines[:, None, None].expand(size, size, 1)
    return (lines[:, None] * lines)[..., None]
