"""Meshes in the formats that trimesh reads (extra `mesh`): .off, .3mf, .dae, .zae, .3dxml, .xaml, and .zip archives of meshes.

The parts are placed by the nodes of the file; textures, vertex colors and face colors are read. Units and axes are unchanged.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingDependencyError
from vision3d.core.inside import inside
from vision3d.io.guards import check_size, read_bytes
from vision3d.io.mesh_repair import with_finite_values
from vision3d.scene.mesh import Mesh
from vision3d.scene.texture_atlas import merge_textured

SUFFIXES = (".off", ".3mf", ".dae", ".zae", ".3dxml", ".xaml", ".zip")


def load(path: Path) -> Mesh:
    """Codec: read all meshes of a file as one.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, unpacks to too much, or has no faces.
        MissingDependencyError: trimesh, or a package that it needs for this format, is not installed.
    """
    data = read_bytes(path, "a mesh")
    if not data:
        raise FileFormatError(path, "is empty (0 bytes)")
    if zipfile.is_zipfile(io.BytesIO(data)):
        _check_archive(path, data)
    parts = [part for part in _parts(path, data) if len(part.faces)]
    if not parts:
        raise FileFormatError(path, "has no faces")
    try:
        return merge_textured([with_finite_values(path, part) for part in parts]).validate()
    except InputError as error:
        raise FileFormatError(path, str(error)) from error


def _parts(path: Path, data: bytes) -> list[Mesh]:
    try:
        import trimesh
        from trimesh.resolvers import FilePathResolver
    except ImportError as error:
        raise MissingDependencyError("trimesh", "mesh", f"meshes as {path.suffix}") from error

    class Beside(FilePathResolver):
        """Only files in the folder of the mesh."""

        def get(self, name: str) -> bytes:
            return inside(path, name).read_bytes()

    try:
        options: dict[str, Any] = {} if path.suffix.lower() == ".zip" else {"resolver": Beside(str(path))}
        scene = trimesh.load_scene(io.BytesIO(data), file_type=path.suffix.lower()[1:], process=False, **options)
        return [
            _part(scene.geometry[name], matrix)
            for matrix, name in (scene.graph[node] for node in scene.graph.nodes_geometry)
            if isinstance(scene.geometry[name], trimesh.Trimesh)
        ]
    except ImportError as error:
        name = getattr(error, "name", None) or "a package of trimesh"
        raise MissingDependencyError(name, "mesh", f"meshes as {path.suffix}") from error
    except Exception as error:  # trimesh raises errors of every class for damaged files
        text = f"{type(error).__name__}: {str(error)[:120]}"
        raise FileFormatError(path, f"is damaged or not a mesh of this format ({text!a})") from error


def _part(mesh: Any, matrix: np.ndarray) -> Mesh:
    """A mesh of trimesh in the world."""
    vertices = mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    faces = np.asarray(mesh.faces, np.int64)
    if np.linalg.det(matrix[:3, :3]) < 0:
        faces = faces[:, ::-1]
    colors = uvs = texture = None
    kind = mesh.visual.kind
    if kind == "texture":
        image, texture = _image(mesh.visual.material), None
        if image is not None and mesh.visual.uv is not None and len(mesh.visual.uv) == len(vertices):
            texture, uvs = _tensor(np.asarray(image.convert("RGB")) / 255), np.asarray(mesh.visual.uv, float)
            uvs = _tensor(np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1))
        else:
            color = np.asarray(mesh.visual.material.main_color, float)[:3] / 255
            colors = _tensor(np.broadcast_to(color, vertices.shape))
    elif kind == "vertex":
        colors = _tensor(np.asarray(mesh.visual.vertex_colors)[:, :3] / 255)
    elif kind == "face":
        vertices, shades = vertices[faces].reshape(-1, 3), np.asarray(mesh.visual.face_colors)[:, :3] / 255
        faces, colors = np.arange(len(vertices)).reshape(-1, 3), _tensor(shades.repeat(3, 0))
    vertices = _tensor(vertices)
    return Mesh(vertices, torch.from_numpy(faces.copy()), uvs=uvs, texture=texture, vertex_colors=colors)


def _image(material: Any) -> Any:
    found = getattr(material, "image", None)
    return getattr(material, "baseColorTexture", None) if found is None else found


def _check_archive(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_size(path, sum(entry.file_size for entry in archive.infolist()), len(data), "members")


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
