"""Codec of glTF files: Gaussians where the file has them, else the mesh of a .glb."""

from pathlib import Path

from vision3d.errors import InputError
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh


def load(path: Path) -> GaussianScene | Mesh:
    """Codec: the Gaussians of a file with `KHR_gaussian_splatting`, the mesh of another."""
    from vision3d.io import glb, gltf_gaussians

    if path.suffix.lower() == ".gltf" or gltf_gaussians.is_gaussian_gltf(path):
        return gltf_gaussians.read_gaussians(path)
    return glb.read_mesh(path)


def save(path: Path, value: object) -> None:
    """Codec: write Gaussians, or a mesh as .glb."""
    from vision3d.io import glb, gltf_gaussians

    if isinstance(value, GaussianScene):
        gltf_gaussians.write_gaussians(path, value)
    elif isinstance(value, Mesh) and path.suffix.lower() == ".glb":
        glb.write_mesh(path, value)
    else:
        raise InputError(f"{path}: a .glb holds a GaussianScene or a Mesh, a .gltf a GaussianScene, got {type(value).__name__}")
