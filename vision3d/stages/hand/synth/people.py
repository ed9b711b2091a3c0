"""Pictures of people from near, as backgrounds: hands are often in front of faces and clothes."""

import functools
import math
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from vision3d.io.furniture import find_furniture
from vision3d.render.meshes import Surface
from vision3d.stages.hand.synth.backgrounds import procedural
from vision3d.stages.hand.synth.objects import TEST_MAKER, Split
from vision3d.stages.hand.synth.pictures import HEIGHT, WIDTH, PictureSource, lamps, picture, placed, uniform, view

PEOPLE: dict[str, tuple[int, ...]] = {
    "Reallusion": (*range(1, 12), 15, 16, 17, 18, 19, *range(21, 26)),
    "Scopia": (348, 349),
    "KatorLegaz": (62, 64),
}
"""Name of the .sh3f -> numbers in its catalogue of people who stand or sit."""


def people(folder: Path, split: Split, count: int = 160) -> UInt8[Tensor, "count 3 192 256"]:
    """Pictures of people, made once and kept in the cache; none if the folder has no people of this split.

    Args:
        folder: Contains .sh3f files, at any depth.
        split: train or test: of other models.
        count: Number of pictures.

    Raises:
        MissingFileError: The folder does not exist, or has no .sh3f file.
        FileFormatError: An archive is damaged.
    """
    return PictureSource(folder, split, _models, portrait).kept("people", count)


def portrait(models: tuple[Surface, ...], generator: torch.Generator) -> UInt8[Tensor, "3 192 256"]:
    """One or two people from the head to the chest or farther down, from any side, in front of anything, sRGB.

    Args:
        models: z is up, standing on z = 0, the front towards x [m].
        generator: Random numbers, on the CPU.
    """

    def number(low: float, high: float) -> float:
        return uniform(low, high, generator)

    def some() -> Surface:
        return models[int(torch.randint(len(models), (1,), generator=generator))]

    first = some()
    height = float(first.mesh.vertices[:, 2].max())
    distance, field, pitch = number(0.5, 1.3), number(0.4, 0.65), number(-0.35, 0.2)
    camera = torch.tensor([-distance, number(-0.15, 0.15), max(0.3, height - number(0.05, 0.5))])
    parts = []
    for row in range(1 + (number(0, 1) < 0.4)):
        model = some() if row else first
        points = model.mesh.vertices
        middle = (points.amax(0) + points.amin(0)) / 2 * torch.tensor([1.0, 1.0, 0.0])
        yaw = math.pi + number(-1, 1) * (math.pi if number(0, 1) < 0.3 else 0.9)  # most look towards the camera
        shift = torch.tensor([0.6 * row, row * number(0.3, 0.6) * (1 if number(0, 1) < 0.5 else -1), 0.0])
        parts.append(placed(model, yaw, shift, middle))
    lights = lamps((-0.8, 0.0, 0.6), generator, ambient=(0.2, 0.6), headlight=0.4, specular=0.15)
    behind = procedural(WIDTH, generator).permute(2, 0, 1)[None]
    behind = functional.interpolate(behind, (HEIGHT, WIDTH))[0].permute(1, 2, 0)
    return picture(parts, view(camera, pitch), WIDTH / 2 / math.tan(field), lights, behind)


@functools.cache
def _models(folder: Path, split: Split) -> tuple[Surface, ...]:
    archives = find_furniture(folder)
    return tuple(
        Surface.of(archives[name].mesh(archives[name][number]))
        for name, numbers in PEOPLE.items()
        if name in archives and (name == TEST_MAKER) == (split == "test")
        for number in numbers
    )
