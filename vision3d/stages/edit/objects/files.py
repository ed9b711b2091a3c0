"""Objects that can be edited: their files, and the surface and the selected points that edits see of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError
from vision3d.io import glb, gltf, gltf_gaussians, gltf_skin_writer
from vision3d.io.gltf_container import Gltf
from vision3d.io.gltf_factors import read_factors
from vision3d.io.gltf_material import MATTE, Material, read_material
from vision3d.render.meshes.texels import spread
from vision3d.render.triplanes.baking import bake_triplane
from vision3d.scene.codecs import kind_of, load
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.selecting import Selector
from vision3d.scene.selection import Selection
from vision3d.scene.skin import SkinnedMesh
from vision3d.scene.triplane import Triplane
from vision3d.scene.upright import Axis, up_by_convention

logger = logging.getLogger(__name__)

Editable = GaussianScene | Mesh | SkinnedMesh | Triplane
SUFFIXES = {GaussianScene: ".ply", Mesh: ".glb", SkinnedMesh: ".glb", Triplane: ".safetensors"}
"""Of the files that edited objects are written to."""
TEXTURE = 1024
"""Side of a new texture [texels]."""
_SAME = 2 / 255  # difference of material factors, as bytes hold them
_GLTF = (".glb", ".gltf")
_SOLID = 0.3  # opacity of Gaussians that connect others


@dataclass(frozen=True, eq=False)
class Opened:
    """An object and what its file says about its axes."""

    value: Editable
    up: Axis
    """By the file, or by the convention of its format."""
    scene_up: Axis | None = None
    """Up axis of the scene that a mesh was made from; the mesh has the axes of the scene."""
    material: Material | Mesh = MATTE
    """Of a mesh; a mesh of the same faces if parts of it differ (`gltf_factors.read_factors`)."""

    @classmethod
    def of(cls, inputs: Editable | Path | str) -> "Opened":
        """An object, or what a file holds: a skinned mesh if anything in a glTF file moves.

        Raises:
            InputError: The file cannot be read, or contains something else.
        """
        if isinstance(inputs, Editable):
            inputs.validate()
            return cls(inputs, up_by_convention(inputs))
        path = Path(inputs)
        value = _skin(path) if path.is_file() and path.suffix.lower() in _GLTF else None
        value = load(path) if value is None else value
        if not isinstance(value, Editable):
            raise InputError(f"{path}: holds {kind_of(value)}, want a mesh, Gaussians or a triplane")
        try:
            value.validate()
        except InputError as error:
            raise FileFormatError(path, str(error)) from error
        if not isinstance(value, Mesh | SkinnedMesh) or path.suffix.lower() not in _GLTF:
            return cls(value, up_by_convention(value, path.suffix))
        material = material_of(path, value)
        up = glb.scene_up(path)
        if isinstance(value, Mesh) and up is not None:
            return cls(glb.in_scene_axes(path, value), up, up, material)
        return cls(value, up_by_convention(value, path.suffix), material=material)

    def write(self, path: Path, value: Editable, material: Material = MATTE, texture_size: int = TEXTURE) -> None:
        """Write the object after an edit; arguments as for `write_object`."""
        write_object(path, value, material, self.scene_up, texture_size)


def material_of(path: Path | str, value: Mesh | SkinnedMesh | None = None) -> Material | Mesh:
    """The material of a file; matte if its format is not glTF.

    Args:
        path: The file.
        value: What was read from it. If its materials differ, they are the colors of a mesh of the same faces; without it, or
            if it has other faces, the result is matte then.

    Raises:
        MissingFileError, FileFormatError: It cannot be read.
    """
    found = read_material(Gltf(path)) if Path(path).suffix.lower() in _GLTF else MATTE
    if found is not None:
        return found
    if value is not None:
        mesh = read_factors(path, moving=isinstance(value, SkinnedMesh))
        if torch.equal(mesh.faces, surface_of(value).faces.cpu()):
            return mesh
    logger.warning("%s: its materials have different metallic and roughness factors; edited as matte", path)
    return MATTE


def write_object(
    path: Path | str,
    value: Editable,
    material: Material = MATTE,
    scene_up: Axis | None = None,
    texture_size: int = TEXTURE,
) -> None:
    """Write an object; a mesh as glTF has its material, and a triplane becomes a mesh with a texture there.

    Args:
        path: In a format that holds the object.
        value: The object.
        material: Of a mesh.
        scene_up: As for `io.glb.write_mesh`.
        texture_size: Side of the texture of a triplane [texels].

    Raises:
        InputError: The object is empty, or has invalid values.
    """
    is_gltf = Path(path).suffix.lower() in _GLTF
    if isinstance(value, Triplane) and is_gltf:
        baked = bake_triplane(value.to("cpu"), texture_size)
        up = up_by_convention(value)
        material = material_of_texels(baked.factors, baked.mask)
        glb.write_mesh(path, baked.mesh, None if up == "y" else up, material)
        return
    if isinstance(value, SkinnedMesh) and is_gltf:
        gltf_skin_writer.write_skin(path, value, material)
    elif isinstance(value, Mesh) and is_gltf:
        glb.write_mesh(path, value, scene_up, material)
    else:
        value.save(path)


def material_of_texels(image: Float[Tensor, "h w 2"], mask: Bool[Tensor, "h w"]) -> Material:
    """Two factors if all texels have the same, else a texture.

    Args:
        image: Metallic and roughness factor of the texels.
        mask: Texels on the surface.
    """
    factors = image[mask]
    low, high = factors.amin(0), factors.amax(0)
    if bool((high - low <= _SAME).all()):
        metallic, roughness = (round(value, 4) for value in ((low + high) / 2).tolist())
        return metallic, roughness
    return spread(image, mask)


def _skin(path: Path) -> SkinnedMesh | None:
    """The mesh of a glTF file with what moves it; None if nothing does, or if that cannot be read."""
    if not gltf.can_move(path) or gltf_gaussians.is_gaussian_gltf(path):
        return None
    try:
        return gltf.load_skin(path)
    except FileFormatError as error:
        logger.warning("%s; edited in its rest pose, without joints, morphs and clips", error)
        return None


def still(value: Editable) -> GaussianScene | Mesh | Triplane:
    """An object as images show it: a moving mesh in its rest pose."""
    return surface_of(value) if isinstance(value, SkinnedMesh) else value


def surface_of(value: Mesh | SkinnedMesh) -> Mesh:
    """A mesh as viewers show it without a clip."""
    return value.at_rest() if isinstance(value, SkinnedMesh) else value


def selected_points(value: Editable, select: Selection | Sequence[str] | None) -> Bool[Tensor, " n"] | None:
    """Mask of the Gaussians or vertices to change; None: all.

    Raises:
        ConfigError: A text is not a selection.
        InputError: Nothing is selected, a selection is of other points, or a triplane is to be selected from.
    """
    if select is None or (not isinstance(select, Selection) and not list(select)):
        return None
    if isinstance(value, Triplane):
        raise InputError("select: a triplane has no parts to select, want a mesh or Gaussians")
    is_gaussians = isinstance(value, GaussianScene)
    points = value.means if is_gaussians else surface_of(value).vertices
    noun = "Gaussians" if is_gaussians else "vertices"
    if isinstance(select, Selection):
        found = select.mask(points)
        if not bool(found.any()):
            raise InputError(f"select: holds none of {len(found)} {noun}, want at least one")
        return found
    solid = value.opacities > _SOLID if is_gaussians else torch.ones(len(points), dtype=torch.bool)
    return Selector(points, value.labels if is_gaussians else None, solid, noun).mask(list(select), "select")
