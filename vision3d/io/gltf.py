"""Codec of glTF files: Gaussians where the file has them, else a mesh."""

from pathlib import Path

from vision3d.errors import InputError
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh


def load(path: Path) -> GaussianScene | Mesh:
    """Codec: the Gaussians of a file with `KHR_gaussian_splatting`, the mesh of another."""
    from vision3d.io import glb, gltf_gaussians

    if gltf_gaussians.is_gaussian_gltf(path):
        return gltf_gaussians.read_gaussians(path)
    return glb.read_mesh(path)


def save(path: Path, value: object) -> None:
    """Codec: write Gaussians or a mesh."""
    from vision3d.io import glb, gltf_gaussians

    if isinstance(value, GaussianScene):
        gltf_gaussians.write_gaussians(path, value)
    elif isinstance(value, Mesh):
        glb.write_mesh(path, value)
    else:
        raise InputError(f"{path}: a {path.suffix} holds a GaussianScene or a Mesh, got {type(value).__name__}")
