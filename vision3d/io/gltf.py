"""Codec of glTF files: Gaussians if the file has them, else a mesh; animation is read on demand."""

from pathlib import Path

from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.scene import Scene
from vision3d.scene.skin import SkinnedMesh


def load(path: Path) -> GaussianScene | Mesh:
    """Codec: read the Gaussians of a file with `KHR_gaussian_splatting`, or else its mesh."""
    from vision3d.io import glb, gltf_gaussians

    if gltf_gaussians.is_gaussian_gltf(path):
        return gltf_gaussians.read_gaussians(path)
    return glb.read_mesh(path)


def can_move(path: Path) -> bool:
    """Whether a file has joints, morph targets or clips, according to its JSON.

    Raises:
        MissingFileError, FileFormatError: As for `gltf_container.Gltf`.
    """
    from vision3d.io.gltf_container import peek_json

    content = peek_json(path)
    meshes = content.get("meshes")
    parts = [mesh.get("primitives") for mesh in meshes if isinstance(mesh, dict)] if isinstance(meshes, list) else []
    primitives = [primitive for some in parts if isinstance(some, list) for primitive in some if isinstance(primitive, dict)]
    return bool(content.get("skins") or content.get("animations") or any("targets" in primitive for primitive in primitives))


def load_skin(path: Path) -> SkinnedMesh:
    """Read the mesh of a file with its joints, morph targets and clips."""
    from vision3d.io import gltf_skin

    return gltf_skin.read_skin(path)


def save(path: Path, value: GaussianScene | Mesh | SkinnedMesh | Scene) -> None:
    """Codec: write Gaussians, a mesh, a skin or a scene."""
    from vision3d.io import glb, gltf_gaussians, gltf_scene, gltf_skin_writer

    if isinstance(value, GaussianScene):
        gltf_gaussians.write_gaussians(path, value)
    elif isinstance(value, Mesh):
        glb.write_mesh(path, value)
    elif isinstance(value, Scene):
        gltf_scene.write_scene(path, value)
    else:
        gltf_skin_writer.write_skin(path, value)
