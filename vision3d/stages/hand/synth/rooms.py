"""Pictures of furnished rooms, as backgrounds."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from vision3d.geometry.rotation import so3_exp
from vision3d.geometry.vectors import unit
from vision3d.render.meshes import Lights, Surface
from vision3d.scene.mesh import Mesh
from vision3d.stages.hand.synth.backgrounds import procedural
from vision3d.stages.hand.synth.objects import Split, furniture
from vision3d.stages.hand.synth.pictures import WIDTH, picture
from vision3d.training.samples import GeneratedSamples, Sample

VERSION = 1
"""Changes with the pictures, so that older ones are not used."""
_FRONT = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # world (z up) to a camera that looks along x


class RoomSource:
    """Makes pictures of rooms from the furniture in a folder; picklable.

    Args:
        folder: Contains .sh3f files, at any depth.
        split: train or test.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        self.folder, self.split = folder, split

    def __call__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        return {"image": room(furniture(self.folder, self.split), generator)}


def rooms(folder: Path, split: Split, count: int = 160, workers: int = 0) -> UInt8[Tensor, "count 3 192 256"]:
    """Pictures of rooms, made once and kept in the cache.

    Args:
        folder: Contains .sh3f files, at any depth.
        split: train or test: of other models.
        count: Number of pictures.
        workers: Processes that make them.

    Raises:
        MissingFileError: The folder has no furniture of this split.
    """
    source = RoomSource(folder, split)
    options = {"split": split, "models": len(furniture(folder, split))}
    samples = GeneratedSamples(source, count, name="rooms", version=VERSION, options=options, shard_size=64, workers=workers)
    samples.prepare()
    return samples.take(range(count))["image"]


def room(models: tuple[Surface, ...], generator: torch.Generator) -> UInt8[Tensor, "3 192 256"]:
    """A picture of a room with some of the models in it, sRGB.

    Args:
        models: z is up, standing on z = 0 [m].
        generator: Random numbers, on the CPU.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    length, width, height = uniform(3, 7), uniform(2.5, 5), uniform(2.3, 3)
    camera = torch.tensor([uniform(0.1, 0.35) * length, uniform(-0.35, 0.35) * width, uniform(0.6, 1.7)])
    yaw, pitch = uniform(-0.6, 0.6), uniform(-0.7, 0.1)
    turn = so3_exp(torch.tensor([pitch, 0.0, 0.0])).mT @ _FRONT @ so3_exp(torch.tensor([0.0, 0.0, yaw])).mT
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = turn, -turn @ camera
    focal = WIDTH / 2 / math.tan(uniform(0.45, 0.7))
    parts = [Surface.of(wall) for wall in _walls(length, width, height, generator)]
    for _ in range(int(uniform(12, 32))):
        model = models[int(torch.randint(len(models), (1,), generator=generator))]
        points = model.mesh.vertices
        size = float((points.amax(0) - points.amin(0)).max())
        far = uniform(0.35, 1) * length if size > 0.5 else camera[0] + uniform(0.4, 2.0)
        lift = 0.0 if size > 0.5 else uniform(0.3, 1.1)
        shift = torch.tensor([float(far), uniform(-0.45, 0.45) * width, lift])
        about = so3_exp(torch.tensor([0.0, 0.0, uniform(-math.pi, math.pi)]))
        placed = replace(model.mesh, vertices=points @ about.mT + shift, normals=None)
        parts.append(replace(model, mesh=placed, normals=model.normals @ about.mT))
    lights = Lights(
        directions=unit(torch.randn(2, 3, generator=generator) + torch.tensor([-0.5, 0.0, 1.0])),
        colors=torch.rand(2, 1, generator=generator) * (0.8 + 0.4 * torch.rand(2, 3, generator=generator)),
        ambient=uniform(0.15, 0.6), headlight=uniform(0, 0.3), specular=uniform(0, 0.2),
    )  # fmt: skip
    return picture(parts, viewmat, focal, lights)


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
