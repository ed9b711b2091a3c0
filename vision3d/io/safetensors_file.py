"""Gaussians on meshes as .safetensors, with the mesh as .glb next to it.

The header's metadata has a key `vision3d`: JSON with type, version, name and SHA-256 of the mesh file, so that files of
different runs are never mixed up.
"""

import hashlib
from pathlib import Path

import torch

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.core.inside import inside
from vision3d.io import glb, triplane_file
from vision3d.io.described import described_type, read_described, write_described
from vision3d.scene.mesh_gaussians import MeshGaussians
from vision3d.scene.triplane import Triplane

_VERSION = 1
_TYPE = "mesh_gaussians"
_NAMES = ("face_ids", "barycentric", "rotations", "log_scales", "opacity_logits", "sh")


def write_mesh_gaussians(path: Path | str, value: MeshGaussians) -> None:
    """Write the mesh as .glb, then the rest; float32 values are preserved bit by bit.

    Raises:
        InputError: A value is invalid.
    """
    path = Path(path)
    mesh_path = path.with_suffix(".glb")
    value.validate()
    glb.write_mesh(mesh_path, value.mesh)
    tensors = {name: getattr(value, name) for name in _NAMES}
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    write_described(path, _TYPE, _VERSION, {"mesh": mesh_path.name, "sha256": _digest(mesh_path)}, tensors)


def read_mesh_gaussians(path: Path | str) -> MeshGaussians:
    """Read Gaussians and their mesh.

    Raises:
        MissingFileError: The file, or the mesh it refers to, does not exist.
        FileFormatError: It is damaged, contains something else, or the mesh is not the one it was written with.
    """
    path = Path(path)
    own, tensors = read_described(path, _TYPE, _VERSION, "Gaussians on a mesh", ("mesh", "sha256"))
    name, digest = str(own["mesh"]), own["sha256"]
    if missing := [name for name in _NAMES if name not in tensors]:
        raise FileFormatError(path, f"lacks {', '.join(missing)}", "header")
    mesh_path = inside(path, name)
    if not mesh_path.is_file():
        raise MissingFileError(mesh_path, f"the mesh of {path.name}")
    if _digest(mesh_path) != digest:
        raise FileFormatError(path, f"was written with a different mesh than {name} is now")
    try:
        values = {name: tensors[name].float() if tensors[name].dtype != torch.int64 else tensors[name] for name in _NAMES}
        return MeshGaussians(glb.read_mesh(mesh_path), **values).validate()
    except FileFormatError:
        raise
    except InputError as error:
        raise FileFormatError(path, str(error)) from error


def load(path: Path) -> MeshGaussians | Triplane:
    """Codec: read Gaussians on a mesh, or a triplane."""
    return triplane_file.read_triplane(path) if described_type(path) == triplane_file.KIND else read_mesh_gaussians(path)


def save(path: Path, value: MeshGaussians | Triplane) -> None:
    """Codec: write Gaussians on a mesh, or a triplane."""
    triplane_file.write_triplane(path, value) if isinstance(value, Triplane) else write_mesh_gaussians(path, value)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
