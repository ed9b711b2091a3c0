"""Objects to learn planes and edits from: procedural ones and models of sweethome3d-furniture, as points on disk."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError, Vision3DError
from vision3d.geometry.surface_points import sample_faces
from vision3d.io.furniture import FurnitureItem, find_furniture
from vision3d.render.lidar.casting import Shape as CastShape
from vision3d.stages.edit.config import Split
from vision3d.stages.edit.data.shapes import random_shape
from vision3d.stages.edit.objects.points import cube_matrix, points_of_mesh, to_cube, with_material
from vision3d.training.samples import GeneratedSamples, Sample

TEST_MAKER = "KatorLegaz"
"""The models of this maker are in tests only, with a tenth of those of the others."""
QUERIES = 8192
POINTS = 16_384
_NEAR = (0.015, 0.08)
"""Standard deviations of the queries around the surface [half side of the cube]."""
_SHELL = 0.015
"""Half of what thin sheets are thick."""
_VERSION = 1


@dataclass(frozen=True)
class ObjectSource:
    """Which objects."""

    furniture: Path | None = None
    """Folder with the .sh3f files of sweethome3d-furniture; None: procedural ones only."""
    split: Split = "train"
    """The furniture is split by object."""
    share: float = 0.5
    """Share of objects that are furniture."""
    seed: int = 0

    def make(self, index: int) -> Sample:
        """Points with colors on an object, and queries inside and outside.

        Returns:
            points (P, 3) float16, values (P, 5) uint8, queries (Q, 3) float16, inside (Q,) bool.
        """
        generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
        models = () if self.furniture is None else furniture_models(self.furniture, self.split)
        if models and (self.share >= 1 or float(torch.rand(1, generator=generator)) < self.share):
            archive, item = models[index % len(models)]
            try:
                return _of_furniture(archive, item, generator)
            except Vision3DError:  # a model without faces of any area
                pass
        return _of_shape(generator)

    @property
    def options(self) -> dict[str, Any]:
        """What the objects depend on, besides the seed."""
        folder = None if self.furniture is None else str(self.furniture)
        return {"furniture": folder, "split": self.split, "share": self.share}

    def samples(self, count: int, folder: Path | None = None, workers: int = 0) -> GeneratedSamples:
        """That many objects on disk."""
        return GeneratedSamples(
            self.make, count, name="edit_objects", version=_VERSION, seed=self.seed, options=self.options,
            folder=folder, workers=workers, shard_size=32,
        )  # fmt: skip


@functools.cache
def furniture_models(folder: Path, split: Split) -> tuple[tuple[Any, FurnitureItem], ...]:
    """The models of a split, with their archive: a tenth is for validation, another and one maker for tests."""
    found = []
    for name, archive in find_furniture(folder).items():
        for number, item in archive.items.items():
            of = "test" if name == TEST_MAKER or number % 10 == 5 else "val" if number % 10 == 0 else "train"
            if of == split:
                found.append((archive, item))
    if not found:
        raise InputError(f"{folder}: has no models of the split {split}")
    return tuple(found)


def _of_furniture(archive: Any, item: FurnitureItem, generator: torch.Generator) -> Sample:
    mesh = archive.mesh(item)
    found = points_of_mesh(mesh, "z", POINTS, int(torch.randint(2**31, (1,), generator=generator)))
    return _sample(to_cube(found.matrix, mesh.vertices), mesh.faces, found.points, found.values, generator)


def _of_shape(generator: torch.Generator) -> Sample:
    shape = random_shape(generator)
    matrix = cube_matrix(shape.vertices.amin(0), shape.vertices.amax(0), "z")
    vertices = to_cube(matrix, shape.vertices)
    face_ids, barycentric = sample_faces(vertices, shape.faces, POINTS, generator)
    points = (barycentric[:, :, None].float() * vertices[shape.faces[face_ids]]).sum(1)
    parts, colors = shape.parts[face_ids], torch.zeros(POINTS, 3)
    for number, paint in enumerate(shape.colors):
        colors[parts == number] = paint(points[parts == number])
    return _sample(vertices, shape.faces, points, with_material(colors.clamp(0, 1)), generator)


def _sample(vertices: Tensor, faces: Tensor, points: Tensor, values: Tensor, generator: torch.Generator) -> Sample:
    """The points, with queries around them and in the cube."""
    near = points[torch.randint(len(points), (QUERIES * 3 // 4,), generator=generator)]
    spread = torch.tensor(_NEAR).repeat_interleave(math.ceil(len(near) / 2))[: len(near), None]
    near = near + spread * torch.randn(near.shape, generator=generator)
    uniform = 2 * torch.rand(QUERIES - len(near), 3, generator=generator) - 1
    queries = torch.cat([near, uniform]).clamp(-1, 1).half()
    return {
        "points": points.half(),
        "values": (255 * values).round().to(torch.uint8),
        "queries": queries,
        "inside": is_inside(vertices, faces, queries.float()),
    }


def is_inside(vertices: Float[Tensor, "v 3"], faces: Tensor, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    """Which points no ray from outside reaches along 26 directions, or lie within the shell of a sheet.

    Unlike winding numbers, this holds for models of open sheets and loose parts.

    Raises:
        MissingDependencyError: embreex is not installed.
    """
    steps = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if i or j or k], np.float32)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    scene = CastShape.of(vertices.numpy(), faces.numpy()).embree()
    starts = np.repeat(points.numpy(), len(steps), 0)
    distances = scene.run(starts, np.tile(steps, (len(points), 1)), query="DISTANCE").reshape(len(points), -1)
    # Embree gives a huge distance where nothing is hit.
    return torch.from_numpy((distances.max(1) < 1e6) | (distances.min(1) < _SHELL))
