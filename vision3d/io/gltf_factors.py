"""Metallic and roughness factors of glTF files whose materials differ: as the colors of a mesh of the same faces."""

from pathlib import Path
from typing import Any

import numpy as np

from vision3d.io import glb
from vision3d.io.gltf_material import MATTE
from vision3d.io.gltf_skin import skin_of
from vision3d.scene.mesh import Mesh


def read_factors(path: Path | str, *, moving: bool = False) -> Mesh:
    """A mesh of the faces of a file, whose colors are 0, roughness and metallic factor (each in [0, 1], not linear light).

    A factor and a texture are multiplied in linear light, which changes their product by up to 0.02.

    Args:
        path: A .glb or .gltf.
        moving: Faces in the order of `gltf_skin.read_skin` instead of `glb.read_mesh`.

    Raises:
        MissingFileError: The file, or a file that it refers to, does not exist.
        FileFormatError: It is damaged, or has no triangles.
        MissingDependencyError: It is compressed with Draco or meshopt, and DracoPy or meshopt is not installed.
    """
    gltf = glb.opened(path)
    materials = gltf.items("materials")
    bare = len(materials)
    materials[:] = [*map(_as_colors, materials), _colors(*MATTE)]
    for i in range(len(gltf.items("meshes"))):
        for primitive in gltf.primitives(i):
            primitive.setdefault("material", bare)
            if isinstance(primitive.get("attributes"), dict):
                primitive["attributes"].pop("COLOR_0", None)
    return skin_of(gltf).mesh if moving else glb.mesh_in(gltf)


def _as_colors(material: dict[str, Any]) -> dict[str, Any]:
    """A material whose base color is what another one has as factors."""
    rough = material.get("pbrMetallicRoughness")
    if not isinstance(rough, dict):
        return _colors(*MATTE)
    return _colors(rough.get("metallicFactor", 1.0), rough.get("roughnessFactor", 1.0), rough.get("metallicRoughnessTexture"))


def _colors(metallic: float, roughness: float, texture: Any = None) -> dict[str, Any]:
    factor = [*glb.srgb_to_linear(np.array([0.0, roughness, metallic])).tolist(), 1.0]
    return {"pbrMetallicRoughness": {"baseColorFactor": factor, "baseColorTexture": texture}}
