"""Objects to evaluate edits on: generated samples, or meshes in files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.scene.mesh import Mesh
from vision3d.scene.upright import up_by_convention
from vision3d.stages.edit.data.batches import whole_batch
from vision3d.stages.edit.objects.points import points_of_mesh
from vision3d.training.samples import GeneratedSamples

_PLACES = 2048
_MESHES = (".glb", ".gltf", ".obj", ".ply")


@dataclass(frozen=True, eq=False)
class EvalObject:
    """What the encoder sees of an object, and other points on its surface at which colors are compared."""

    name: str
    points: Float[Tensor, "n 3"]
    values: Float[Tensor, "n 5"]
    places: Float[Tensor, "m 3"]
    place_values: Float[Tensor, "m 5"]

    @property
    def box(self) -> Float[Tensor, "2 3"]:
        """Lowest and highest corner in the cube."""
        return torch.stack([self.points.amin(0), self.points.amax(0)])


def objects_of_samples(samples: GeneratedSamples, count: int) -> list[EvalObject]:
    """Objects on disk; the encoder sees the first `count` points."""
    found = []
    for index in range(len(samples)):
        batch = whole_batch(samples.take([index]), count)
        found.append(
            EvalObject(
                f"{samples.name} {index}", batch.points[0], batch.values[0], batch.places[0, :_PLACES],
                batch.place_values[0, :_PLACES],
            )
        )  # fmt: skip
    return found


def mesh_files(path: Path) -> list[Path]:
    """A file, or the meshes in a folder and in those within it.

    Raises:
        InputError: The folder has none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in _MESHES)
    if not found:
        raise InputError(f"{path}: has no {', '.join(_MESHES)}, want a folder of meshes")
    return found


def objects_of_files(paths: Sequence[Path], count: int) -> list[EvalObject]:
    """Meshes in files, with the up axis of their format.

    Raises:
        InputError: A file cannot be read, or its mesh has no area.
    """
    found = []
    for path in paths:
        mesh = Mesh.load(path).validate()
        points = points_of_mesh(mesh, up_by_convention(mesh, path.suffix), count + _PLACES)
        found.append(
            EvalObject(path.stem, points.points[:count], points.values[:count], points.points[count:], points.values[count:])
        )
    return found
