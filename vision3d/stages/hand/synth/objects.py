"""Models of the Debian package sweethome3d-furniture: things that hands hold, and furniture of rooms.

They are read from its .sh3f files, never bundled. The models of one maker are kept apart for tests.
"""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from vision3d.core.errors import MissingFileError
from vision3d.io.furniture import FurnitureItem, find_furniture
from vision3d.render.meshes import Surface, texture
from vision3d.scene.mesh import Mesh

Split = Literal["train", "test"]

HELD: dict[str, tuple[int, ...]] = {
    "BlendSwap-CC-0": (9, 11, 53, 54, 70, 78, 90, 147),
    "BlendSwap-CC-BY": (21, 27, 35, 42, 55, 69, 71, 84, 90, 104, 105, 134),
    "KatorLegaz": (23, 28, 30, 31, 33, 34, 37, 87, 90),
    "Scopia": (22, 49, 106, 107, 116, 117, 118, 127, 146, 215, 263, 264, 265, 282, 302, 303),
}
"""Name of the .sh3f -> numbers in its catalogue of what fits into a hand and has fewer than 10,000 triangles."""
TEST_MAKER = "KatorLegaz"
"""The models of this maker are in tests only, those of all others in training only."""
_LARGER = {("BlendSwap-CC-0", 9): 1.4}  # smaller in the catalogue than in life
_INDOORS = ("Living room", "Kitchen", "Bedroom", "Bathroom", "Office", "Miscellaneous", "Characters")
_FURNITURE = 120
_MOST_BYTES = 400_000  # of an .obj: about 10,000 triangles


def load_objects(folder: Path, split: Split) -> tuple[Mesh, ...]:
    """The models of a split that a hand can hold, with vertex colors [m].

    Args:
        folder: Contains .sh3f files, at any depth.
        split: train or test.

    Raises:
        MissingFileError: The folder does not exist, or has no .sh3f file with models of this split.
        FileFormatError: An archive is damaged or lacks a model.
    """
    archives = find_furniture(folder)
    found = []
    for name, numbers in HELD.items():
        if name in archives and (name == TEST_MAKER) == (split == "test"):
            for number in numbers:
                mesh = archives[name].mesh(archives[name][number])
                size = _LARGER.get((name, number), 1.0)
                found.append(with_vertex_colors(replace(mesh, vertices=size * mesh.vertices)))
    if not found:
        wanted = [name for name in HELD if (name == TEST_MAKER) == (split == "test")]
        raise MissingFileError(folder, f"a folder with {' or '.join(f'{name}.sh3f' for name in wanted)}, unpacked")
    return tuple(found)


@functools.cache
def furniture(folder: Path, split: Split) -> tuple[Surface, ...]:
    """Up to 120 models of furniture, vessels and people, as in rooms [m]; z is up.

    Raises:
        MissingFileError: The folder does not exist, or has no .sh3f file of this split.
        FileFormatError: An archive is damaged.
    """
    archives = find_furniture(folder)
    models: list[tuple[str, FurnitureItem]] = []
    for name, archive in archives.items():
        if (name == TEST_MAKER) == (split == "test"):
            sizes = archive.file_sizes()
            models += [
                (name, item)
                for item in archive.items.values()
                if item.category in _INDOORS and max(item.size) < 3 and sizes.get(item.path, 0) < _MOST_BYTES
            ]
    if not models:
        raise MissingFileError(folder, f"a folder with .sh3f files {'of' if split == 'test' else 'besides'} {TEST_MAKER}.sh3f")
    order = torch.randperm(len(models), generator=torch.Generator().manual_seed(0)).tolist()
    return tuple(Surface.of(archives[name].mesh(item)) for name, item in (models[row] for row in order[:_FURNITURE]))


def with_vertex_colors(mesh: Mesh) -> Mesh:
    """The mesh with the colors of its texture at the vertices, in place of the texture."""
    if mesh.texture is None:
        return replace(mesh, uvs=None)
    mesh = mesh.split_seams()
    assert mesh.texture is not None and mesh.uvs is not None
    colors = texture(mesh.texture[None, ..., :3].to(mesh.vertices), mesh.uvs.view(1, 1, -1, 2))[0, 0]
    if mesh.vertex_colors is not None:
        colors = colors * mesh.vertex_colors[:, :3]
    return replace(mesh, vertex_colors=colors, uvs=None, texture=None)
