"""Triangle meshes with a texture or vertex colors."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import mesh as geometry
from vision3d.scene import codecs
from vision3d.scene.checks import check_device, check_finite, check_shape, html_image, html_table, moved, span
from vision3d.scene.selection import Rows, rows_of
from vision3d.scene.similarity import Similarity


@dataclass(frozen=True, eq=False)
class Mesh:
    """V vertices and F triangles, counter-clockwise seen from outside.

    The color is that of the texture, or the interpolated vertex colors; if both are given, their product (in linear light, as
    in glTF). A mesh with neither is gray.

    Example:
        >>> mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
        >>> mesh.save("triangle.glb")
        >>> Mesh.load("triangle.glb")
        Mesh(3 vertices, 1 faces, cpu)
    """

    vertices: Float[Tensor, "v 3"]
    """Positions in the world [m]."""
    faces: Int64[Tensor, "f 3"]
    """Indices of the vertices of each triangle."""
    uvs: Float[Tensor, "v 2"] | Float[Tensor, "f 3 2"] | None = None
    """Texture coordinates, one per vertex or one per corner of each face (seams without duplicated vertices): (0, 0) is the
    outer corner of the first pixel, u is right and v down, (1, 1) is the opposite corner. Beyond 0..1 the texture repeats."""
    normals: Float[Tensor, "v 3"] | None = None
    """Unit normals; those of the faces are used when None."""
    texture: Float[Tensor, "h w c"] | None = None
    """Image of 3 or 4 channels (alpha) in [0, 1], sRGB."""
    vertex_colors: Float[Tensor, "v c"] | None = None
    """Colors of 3 or 4 channels in [0, 1], sRGB."""

    def __post_init__(self) -> None:
        check_shape("Mesh.vertices", self.vertices, ("V", 3))
        check_shape("Mesh.faces", self.faces, ("F", 3), kind="int64")
        num_vertices, num_faces = len(self.vertices), len(self.faces)
        if self.uvs is not None:
            is_by_corner = isinstance(self.uvs, Tensor) and self.uvs.ndim == 3
            check_shape("Mesh.uvs", self.uvs, (num_faces, 3, 2) if is_by_corner else (num_vertices, 2))
        if self.normals is not None:
            check_shape("Mesh.normals", self.normals, (num_vertices, 3))
        if self.texture is not None:
            check_shape("Mesh.texture", self.texture, ("H", "W", "C"))
            if self.texture.shape[2] not in (3, 4) or not self.texture.numel():
                raise ShapeError("Mesh.texture", tuple(self.texture.shape), "shape (H, W, 3) or (H, W, 4), not empty")
            if self.uvs is None:
                raise InputError("Mesh: has a texture but no uvs")
        if self.vertex_colors is not None:
            check_shape("Mesh.vertex_colors", self.vertex_colors, (num_vertices, "C"))
            if self.vertex_colors.shape[1] not in (3, 4):
                raise ShapeError("Mesh.vertex_colors", tuple(self.vertex_colors.shape), f"shape ({num_vertices}, 3) or (.., 4)")
        check_device("Mesh", self._tensors())

    @classmethod
    def load(cls, path: Path | str) -> "Mesh":
        """Load the mesh of a .glb, .gltf, .obj, .ply or .stl file; .off, .3mf, .dae and others need trimesh (extra `mesh`).

        Raises:
            InputError: The file contains something else, or cannot be read.
            MissingDependencyError: trimesh is required and not installed.
        """
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a file in the format of its suffix, atomically; one warning lists what the format cannot store."""
        codecs.save(path, self)

    def validate(self) -> "Mesh":
        """Check the values (shapes and dtypes are checked at construction).

        Some faces of zero area, open borders and edges of more than two faces are allowed: see `geometry.mesh`.

        Raises:
            InputError: No faces, all have zero area, one has an invalid vertex index, or a value is not
                finite.
        """
        if not len(self.faces):
            raise InputError(f"Mesh: got {len(self.vertices)} vertices and 0 faces, want at least one face")
        geometry.check_mesh(self.vertices, self.faces)
        for name, value in self._tensors().items():
            if value is not None and value.is_floating_point():
                check_finite("Mesh", name, value)
        if self.num_degenerate == len(self.faces):
            raise InputError(f"Mesh: all {len(self.faces)} faces have zero area")
        return self

    @property
    def num_vertices(self) -> int:
        return len(self.vertices)

    @property
    def num_faces(self) -> int:
        return len(self.faces)

    @property
    def num_degenerate(self) -> int:
        """Number of faces of zero area."""
        vertices = self.vertices.detach().double()
        return int((geometry.face_areas(vertices, self.faces) == 0).sum())

    @property
    def corner_uvs(self) -> Float[Tensor, "f 3 2"] | None:
        """The uvs of the corners of each face, for either way of storing them."""
        return self.uvs if self.uvs is None or self.uvs.ndim == 3 else self.uvs[self.faces]

    @property
    def device(self) -> torch.device:
        return self.vertices.device

    def to(self, device: torch.device | str) -> "Mesh":
        """The same mesh on another device."""
        return replace(self, **{name: moved(value, device) for name, value in self._tensors().items()})

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "Mesh":
        """The mesh transformed by a similarity x' = s R x + t.

        Args:
            matrix: World to new world.

        Raises:
            InputError: The matrix shears, reflects or is singular.
        """
        by = Similarity(matrix, self.vertices)
        normals = None if self.normals is None else by.directions(self.normals)
        return replace(self, vertices=by.points(self.vertices), normals=normals)

    def split_seams(self) -> "Mesh":
        """The same surface with one uv per vertex, as GLB requires: vertices with several uvs are duplicated.

        Faces keep their order. Unused vertices are dropped if uvs are given by corner.
        """
        return self.split_seams_with_rows()[0]

    def split_seams_with_rows(self) -> tuple["Mesh", Int64[Tensor, " w"]]:
        """Like `split_seams`, with the vertex of this mesh that each new vertex is a copy of."""
        if self.uvs is None or self.uvs.ndim == 2:
            return self, torch.arange(self.num_vertices, device=self.device)
        corners = self.faces.flatten()
        # Compare bits, not values: equal bits share a vertex, and -0 or NaN need no special rule.
        bits = (
            self.uvs.detach().reshape(-1, 2).contiguous().view(torch.int32 if self.uvs.dtype == torch.float32 else torch.int64)
        )
        keys = torch.cat([corners[:, None], bits.long()], 1)
        rows, inverse = torch.unique(keys, dim=0, return_inverse=True)
        source = rows[:, 0]
        first = torch.full((len(rows),), len(corners), device=self.device)
        first.scatter_reduce_(0, inverse, torch.arange(len(corners), device=self.device), "amin")

        def picked(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[source]

        mesh = Mesh(
            vertices=self.vertices[source],
            faces=inverse.view(-1, 3),
            uvs=self.uvs.reshape(-1, 2)[first],
            normals=picked(self.normals),
            texture=self.texture,
            vertex_colors=picked(self.vertex_colors),
        )
        return mesh, source

    def crop(self, which: Rows) -> "Mesh":
        """The selected faces, and the vertices that they use.

        Args:
            which: A mask of the faces (F,), or a selection of vertices: a `Selection`, or lower and upper corner of an
                axis-aligned box [m], inclusive. With vertices, the faces whose three vertices are all selected remain.

        Raises:
            InputError: The mask is for a different number of faces.
        """
        if not isinstance(which, Tensor) or which.is_floating_point():
            mask = rows_of(which, self.vertices)[self.faces].all(-1)
        else:
            check_shape("mask", mask := which, (self.num_faces,), kind="bool")
        used, faces = torch.unique(self.faces[mask], return_inverse=True)
        uvs = self.uvs
        if uvs is not None:
            uvs = uvs[mask] if uvs.ndim == 3 else uvs[used]
        return replace(
            self,
            vertices=self.vertices[used],
            faces=faces,
            uvs=uvs,
            normals=None if self.normals is None else self.normals[used],
            vertex_colors=None if self.vertex_colors is None else self.vertex_colors[used],
        )

    def merge(self, *others: "Mesh") -> "Mesh":
        """This mesh and others as one; normals and uvs are kept if all have them, missing colors become white.

        Raises:
            InputError: Their textures differ: a mesh has only one.
        """
        parts = (self, *others)
        textures = [part.texture for part in parts]
        if any(not _is_same(texture, textures[0]) for texture in textures):
            raise InputError("merge: the textures of the meshes differ; want one texture, or none")
        offsets = torch.tensor([0, *(part.num_vertices for part in parts)]).cumsum(0).tolist()
        colors = None
        if any(part.vertex_colors is not None for part in parts):
            colors = [_colors_or_white(part) for part in parts]
            width = max(color.shape[1] for color in colors)
            colors = torch.cat([torch.nn.functional.pad(c, (0, width - c.shape[1]), value=1.0) for c in colors])
        uvs = [part.uvs for part in parts]
        if any(uv is not None and uv.ndim == 3 for uv in uvs):
            uvs = [part.corner_uvs for part in parts]
        return Mesh(
            vertices=torch.cat([part.vertices for part in parts]),
            faces=torch.cat([part.faces + offset for part, offset in zip(parts, offsets)]),
            uvs=_joined(uvs),
            normals=_joined([part.normals for part in parts]),
            texture=self.texture,
            vertex_colors=colors,
        )

    def __repr__(self) -> str:
        texture = "" if self.texture is None else f", texture {self.texture.shape[1]}x{self.texture.shape[0]}"
        colors = "" if self.vertex_colors is None else ", colored"
        return f"Mesh({self.num_vertices} vertices, {self.num_faces} faces{texture}{colors}, {self.device})"

    def _repr_html_(self) -> str:
        rows = [
            ("vertices", self.num_vertices),
            ("faces", self.num_faces),
            *((f"{axis} [m]", span(self.vertices[:, i])) for i, axis in enumerate("xyz")),
            ("normals", "no" if self.normals is None else "yes"),
            ("uvs", "no" if self.uvs is None else "by corner" if self.uvs.ndim == 3 else "by vertex"),
            ("texture", "no" if self.texture is None else f"{self.texture.shape[1]}x{self.texture.shape[0]}"),
            ("vertex colors", "no" if self.vertex_colors is None else "yes"),
            ("device", self.device),
        ]
        texture = "" if self.texture is None else html_image(_thumbnail(self.texture))
        return html_table("Mesh", rows, codecs.preview(self) + texture)

    def _tensors(self) -> dict[str, Tensor | None]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _thumbnail(texture: Tensor, size: int = 96) -> Tensor:
    step = max(1, -(-max(texture.shape[:2]) // size))
    return texture[::step, ::step, :3]


def _is_same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if len(found) == len(parts) else None


def _colors_or_white(mesh: Mesh) -> Tensor:
    return mesh.vertices.new_ones(mesh.num_vertices, 3) if mesh.vertex_colors is None else mesh.vertex_colors
