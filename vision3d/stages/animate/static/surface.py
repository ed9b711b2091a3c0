"""The mesh of the static stage: loading, checks, and its vertices without seams."""

import logging
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, MissingFileError
from vision3d.geometry import mesh as geometry
from vision3d.io.glb import in_scene_axes
from vision3d.scene import Mesh, MeshGaussians, load
from vision3d.scene.codecs import kind_of

logger = logging.getLogger("vision3d.animate")

_BESIDE = ("mesh.glb", "gaussians.safetensors")  # outputs of `vision3d mesh` and of this stage in a folder


def load_surface(path: Path | str, *, of_photos: bool = False) -> Mesh | MeshGaussians:
    """A mesh (.glb, .obj, .ply, .stl), Gaussians on a mesh (.safetensors), or a folder with mesh.glb or gaussians.safetensors.

    Args:
        path: The file or folder.
        of_photos: Rotate a .glb of `vision3d mesh`, which is y-up, back to the axes of the scene and its cameras.

    Raises:
        MissingFileError: The path does not exist.
        InputError: It contains something else, or cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(path, "a mesh (.glb, .obj, .ply, .stl) or Gaussians on a mesh (.safetensors)")
    if path.is_dir():
        found = [path / name for name in _BESIDE if (path / name).is_file()]
        if not found:
            raise InputError(f"{path}: is a folder without {' or '.join(_BESIDE)}; want a mesh (.glb, .obj, .ply, .stl)")
        path = found[0]
    value = load(path)
    if not isinstance(value, Mesh | MeshGaussians):
        raise InputError(f"{path}: holds {kind_of(value)}, want a mesh (.glb, .obj, .ply, .stl; `vision3d mesh` makes one)")
    if of_photos and isinstance(value, Mesh):
        value = in_scene_axes(path, value)
    return value


def checked_mesh(mesh: Mesh, parts: str = "all", name: str = "mesh") -> tuple[Mesh, dict[str, int]]:
    """The mesh, or its largest part; unusual properties are logged and counted.

    Args:
        mesh: The mesh.
        parts: all or largest.
        name: Name of the mesh, for messages.

    Returns:
        The mesh, and the numbers of its parts, border edges, edges of more than two faces, and faces of zero area.

    Raises:
        InputError: No faces, all have zero area, or a value is not finite.
    """
    try:
        mesh.validate()
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    faces = Seamless.of(mesh).all_faces
    count, labels = geometry.connected_faces(faces)
    if count > 1:
        areas = torch.zeros(count, dtype=torch.float64).index_add_(
            0, labels.cpu(), geometry.face_areas(mesh.vertices.detach().double(), mesh.faces).cpu()
        )
        share = float(areas.max() / areas.sum())
        logger.warning(
            "%s: has %d disconnected parts, the largest with %.0f %% of the area%s",
            name, count, 100 * share, "" if parts == "largest" else " (--parts largest keeps only this one)",
        )  # fmt: skip
        if parts == "largest":
            is_kept = labels == int(areas.argmax())
            mesh, faces = mesh.crop(is_kept), faces[is_kept]
    counts = {
        "mesh_parts": count,
        "border_edges": len(geometry.boundary_edges(faces)),
        "crowded_edges": len(geometry.crowded_edges(faces)),
        "faces_without_area": mesh.num_degenerate,
    }
    if counts["border_edges"]:
        logger.info("%s: is not closed, %d edges have only one face", name, counts["border_edges"])
    if counts["crowded_edges"]:
        logger.warning("%s: %d edges have more than two faces (not manifold)", name, counts["crowded_edges"])
    if counts["faces_without_area"]:
        logger.warning("%s: %d of %d faces have no area; their Gaussians are points", name, mesh.num_degenerate, mesh.num_faces)
    return mesh, counts


class Seamless:
    """The vertices of a mesh with those merged that are duplicated at seams of the texture or of normals.

    Args:
        vertices: One vertex per position [m].
        place: Merged index of each vertex of the mesh.
        all_faces: The faces of the mesh with merged indices.
    """

    def __init__(self, vertices: Float[Tensor, "p 3"], place: Int64[Tensor, " v"], all_faces: Int64[Tensor, "f 3"]) -> None:
        self.vertices, self.place, self.all_faces = vertices, place, all_faces
        is_whole = (all_faces != all_faces.roll(1, 1)).all(1)
        self.faces = all_faces[is_whole]
        """Without degenerate faces."""

    @classmethod
    def of(cls, mesh: Mesh) -> "Seamless":
        vertices, _, place = geometry.weld_vertices(mesh.vertices.detach(), mesh.faces)
        return cls(vertices, place, place[mesh.faces])
