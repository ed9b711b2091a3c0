"""Pictures of people from near, as backgrounds: hands are often in front of faces and clothes."""

import functools
import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from vision3d.geometry.rotation import so3_exp
from vision3d.geometry.vectors import unit
from vision3d.io.furniture import find_furniture
from vision3d.render.meshes import Lights, Surface
from vision3d.stages.hand.synth.backgrounds import procedural
from vision3d.stages.hand.synth.objects import TEST_MAKER, Split
from vision3d.stages.hand.synth.pictures import HEIGHT, WIDTH, picture
from vision3d.training.samples import GeneratedSamples, Sample

VERSION = 1
"""Changes with the pictures, so that older ones are not used."""
PEOPLE: dict[str, tuple[int, ...]] = {
    "Reallusion": (*range(1, 12), 15, 16, 17, 18, 19, *range(21, 26)),
    "Scopia": (348, 349),
    "KatorLegaz": (62, 64),
}
"""Name of the .sh3f -> numbers in its catalogue of people who stand or sit."""


class PeopleSource:
    """Makes pictures of people from the furniture in a folder; picklable.

    Args:
        folder: Contains .sh3f files, at any depth.
        split: train or test.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        self.folder, self.split = folder, split

    def __call__(self, index: int) -> Sample:
        return {"image": portrait(_models(self.folder, self.split), torch.Generator().manual_seed(index))}


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
    models = _models(folder, split)
    if not models:
        return torch.zeros(0, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    options = {"split": split, "models": len(models)}
    source = PeopleSource(folder, split)
    samples = GeneratedSamples(source, count, name="people", version=VERSION, options=options, shard_size=64)
    samples.prepare()
    return samples.take(range(count))["image"]


def portrait(models: tuple[Surface, ...], generator: torch.Generator) -> UInt8[Tensor, "3 192 256"]:
    """One or two people from the head to the chest or farther down, from any side, in front of anything, sRGB.

    Args:
        models: z is up, standing on z = 0, the front towards x [m].
        generator: Random numbers, on the CPU.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    parts = []
    first = models[int(torch.randint(len(models), (1,), generator=generator))]
    height = float(first.mesh.vertices[:, 2].max())
    distance, field = uniform(0.5, 1.3), uniform(0.4, 0.65)
    pitch = uniform(-0.35, 0.2)
    camera = torch.tensor([-distance, uniform(-0.15, 0.15), max(0.3, height - uniform(0.05, 0.5))])
    front = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # world (z up) to a camera that looks along x
    turn = so3_exp(torch.tensor([pitch, 0.0, 0.0])).mT @ front
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = turn, -turn @ camera
    for number in range(1 + (uniform(0, 1) < 0.4)):
        model = models[int(torch.randint(len(models), (1,), generator=generator))] if number else first
        points = model.mesh.vertices
        middle = (points.amax(0) + points.amin(0))[:2] / 2
        yaw = math.pi + uniform(-1, 1) * (math.pi if uniform(0, 1) < 0.3 else 0.9)  # most look towards the camera
        about = so3_exp(torch.tensor([0.0, 0.0, yaw]))
        shift = torch.tensor([0.6 * number, number * uniform(0.3, 0.6) * (1 if uniform(0, 1) < 0.5 else -1), 0.0])
        centered = points - torch.cat([middle, middle.new_zeros(1)])
        parts.append(
            replace(
                model,
                mesh=replace(model.mesh, vertices=centered @ about.mT + shift, normals=None),
                normals=model.normals @ about.mT,
            )
        )
    lights = Lights(
        directions=unit(torch.randn(2, 3, generator=generator) + torch.tensor([-0.8, 0.0, 0.6])),
        colors=torch.rand(2, 1, generator=generator) * (0.8 + 0.4 * torch.rand(2, 3, generator=generator)),
        ambient=uniform(0.2, 0.6), headlight=uniform(0, 0.4), specular=uniform(0, 0.15),
    )  # fmt: skip
    behind = procedural(WIDTH, generator).permute(2, 0, 1)[None]
    behind = functional.interpolate(behind, (HEIGHT, WIDTH))[0].permute(1, 2, 0)
    return picture(parts, viewmat, WIDTH / 2 / math.tan(field), lights, behind)


@functools.cache
def _models(folder: Path, split: Split) -> tuple[Surface, ...]:
    archives = find_furniture(folder)
    return tuple(
        Surface.of(archives[name].mesh(archives[name][number]))
        for name, numbers in PEOPLE.items()
        if name in archives and (name == TEST_MAKER) == (split == "test")
        for number in numbers
    )
