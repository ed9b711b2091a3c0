"""Gaussians bound to the faces of a mesh."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import DeviceError, InputError, ShapeError
from vision3d.geometry.mesh import face_normals
from vision3d.geometry.quaternion import multiply
from vision3d.geometry.skinning import blend_rotations
from vision3d.geometry.spherical_harmonics import rgb_to_sh0
from vision3d.geometry.triangles import edges_svd, edges_to_gaussians
from vision3d.geometry.vectors import unit
from vision3d.scene import codecs, similarity
from vision3d.scene.checks import check_device, check_finite, check_shape, html_table, moved
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.mesh_colors import mean_colors
from vision3d.scene.selection import Rows, rows_of

# Positions of 1, 3, 4 and 6 Gaussians on a face, and their size relative to the shortest edge.
_PLACES = {
    1: [(1 / 3, 1 / 3, 1 / 3)],
    3: [(1 / 2, 1 / 4, 1 / 4), (1 / 4, 1 / 2, 1 / 4), (1 / 4, 1 / 4, 1 / 2)],
}
_OUTER = [(2 / 3, 1 / 6, 1 / 6), (1 / 6, 2 / 3, 1 / 6), (1 / 6, 1 / 6, 2 / 3)]
_PLACES[4] = [(1 / 3, 1 / 3, 1 / 3), *_OUTER]
_PLACES[6] = [*_OUTER, (1 / 6, 5 / 12, 5 / 12), (5 / 12, 1 / 6, 5 / 12), (5 / 12, 5 / 12, 1 / 6)]
_RADII = {1: 0.5 / 3**0.5, 3: 0.5 / (3**0.5 + 1), 4: 0.25 / 3**0.5, 6: 1 / (4 + 2 * 3**0.5)}
_OVERLAP = 1.3
_MIN_SCALE = 1e-7  # meters


@dataclass(frozen=True, eq=False)
class MeshGaussians:
    """N flat Gaussians in the planes of a mesh's faces (SuGaR, Guedon and Lepetit 2024; DreamMesh4D, Li et al. 2024).

    The axes on a face are e1 = unit(v0 - v1), n = its normal, and e2 = n x e1. The first axis of a Gaussian is
    a e1 + b e2 with (a, b) its complex number, normalized; the second -b e1 + a e2, the third n.

    Example:
        >>> mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
        >>> bound = MeshGaussians.from_mesh(mesh, per_face=6)
        >>> bound.to_gaussians()
        GaussianScene(6 flat, SH degree 0, cpu)
    """

    mesh: Mesh
    """At rest."""
    face_ids: Int64[Tensor, " n"]
    """The face of each Gaussian."""
    barycentric: Float[Tensor, "n 3"]
    """Barycentric coordinates of the center; they sum to 1."""
    rotations: Float[Tensor, "n 2"]
    """Complex numbers a + ib of any length > 0: the rotation in the plane."""
    log_scales: Float[Tensor, "n 2"]
    """Natural logarithm of the in-plane standard deviations in the rest pose [log m]."""
    opacity_logits: Float[Tensor, " n"]
    """Opacity before the sigmoid."""
    sh: Float[Tensor, "n k 3"]
    """Spherical harmonics of the color minus 0.5 in world axes of the rest pose, degree 0 to 4."""

    def __post_init__(self) -> None:
        if not isinstance(self.mesh, Mesh):
            raise InputError(f"MeshGaussians.mesh: got {type(self.mesh).__name__}, want a Mesh")
        check_shape("MeshGaussians.face_ids", self.face_ids, ("N",), kind="int64")
        count = len(self.face_ids)
        shapes = {"barycentric": (count, 3), "rotations": (count, 2), "log_scales": (count, 2), "opacity_logits": (count,)}
        for name, shape in {**shapes, "sh": (count, "K", 3)}.items():
            check_shape(f"MeshGaussians.{name}", getattr(self, name), shape)
        if self.sh.shape[1] not in (1, 4, 9, 16, 25):
            raise ShapeError("MeshGaussians.sh", tuple(self.sh.shape), "K = 1, 4, 9, 16 or 25 (degree 0 to 4)")
        check_device("MeshGaussians", self._tensors())
        if self.mesh.device != self.device:
            raise DeviceError(f"MeshGaussians: mesh on {self.mesh.device}, Gaussians on {self.device}; want one device")

    @classmethod
    def from_mesh(
        cls,
        mesh: Mesh,
        per_face: Literal[1, 3, 4, 6] = 6,
        *,
        opacity: float = 0.9,
        shape: Literal["round", "stretched"] = "round",
    ) -> "MeshGaussians":
        """The same number of Gaussians on each face.

        Round Gaussians are as large as the shortest edge permits (SuGaR, DreamMesh4D). Stretched ones are round on an
        equilateral triangle and follow the affine map from it to the face, so long faces have no holes, but more of them
        extends over silhouettes. On equilateral faces both are the same.

        Args:
            mesh: Each Gaussian gets the mean texture and vertex color around it; gray for a mesh without colors.
            per_face: 1, 3, 4 or 6.
            opacity: In (0, 1), the same for all.
            shape: round or stretched.
        """
        if per_face not in _PLACES or not 0 < opacity < 1:
            raise InputError(f"from_mesh: got per_face {per_face}, opacity {opacity}; want 1, 3, 4 or 6, and (0, 1)")
        if shape not in ("stretched", "round"):
            raise InputError(f"from_mesh: got shape {shape!r}, want 'round' or 'stretched'")
        vertices = mesh.validate().vertices
        sizes, rotations = (_stretched if shape == "stretched" else _round)(vertices, mesh.faces)
        scales = (sizes * (_RADII[per_face] * _OVERLAP)).clamp(min=_MIN_SCALE)
        face_ids = torch.arange(mesh.num_faces, device=mesh.device).repeat_interleave(per_face)
        places = vertices.new_tensor(_PLACES[per_face])
        colors = mean_colors(mesh, places).flatten(0, 1)
        return cls(
            mesh=mesh,
            face_ids=face_ids,
            barycentric=places.repeat(mesh.num_faces, 1),
            rotations=rotations[face_ids],
            log_scales=scales.log()[face_ids],
            opacity_logits=vertices.new_full((len(face_ids),), math.log(opacity / (1 - opacity))),
            sh=rgb_to_sh0(colors)[:, None],
        )

    @classmethod
    def load(cls, path: Path | str) -> "MeshGaussians":
        """Load the Gaussians of a .safetensors file and the mesh it refers to.

        Raises:
            InputError: The file contains something else, or cannot be read.
        """
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a .safetensors file and, first, the mesh as a .glb of the same name next to it."""
        codecs.save(path, self)

    def validate(self) -> "MeshGaussians":
        """Check the values and the mesh.

        Raises:
            InputError: No Gaussians, a value is not finite, a face index is out of range, barycentric coordinates do
                not sum to 1 (within 1e-3), or a complex number is zero.
        """
        self.mesh.validate()
        if not self.num_gaussians:
            raise InputError("MeshGaussians: got 0 Gaussians, want at least one")
        for name, value in self._tensors().items():
            if value is not None and value.is_floating_point():
                check_finite("MeshGaussians", name, value)
        low, high = int(self.face_ids.min()), int(self.face_ids.max())
        if low < 0 or high >= self.mesh.num_faces:
            raise InputError(f"MeshGaussians: face_ids go from {low} to {high}, but there are {self.mesh.num_faces} faces")
        if bool((is_off := (self.barycentric.sum(1) - 1).abs() > 1e-3).any()):
            raise InputError(f"MeshGaussians: barycentric does not sum to 1 in {int(is_off.sum())} of {len(is_off)} rows")
        if bool((is_zero := (self.rotations == 0).all(1)).any()):
            raise InputError(f"MeshGaussians: rotations have length zero in {int(is_zero.sum())} of {len(is_zero)} rows")
        return self

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "MeshGaussians":
        """The mesh and its Gaussians transformed by a similarity x' = s R x + t.

        Raises:
            InputError: The matrix shears, reflects or is singular.
        """
        return similarity.transform_mesh_gaussians(self, matrix)

    def crop(self, which: Rows) -> "MeshGaussians":
        """The Gaussians whose centers are selected, on the entire mesh.

        Args, errors: as for `selection.rows_of`.
        """
        rows = rows_of(which, self.to_gaussians().means.detach())
        return replace(self, **{name: None if value is None else value[rows] for name, value in self._tensors().items()})

    def merge(self, *others: "MeshGaussians") -> "MeshGaussians":
        """These Gaussians and others on one merged mesh; harmonics are padded to the highest degree.

        Raises:
            InputError: The textures of the meshes differ.
        """
        parts = (self, *others)
        offsets = torch.tensor([0, *(part.mesh.num_faces for part in parts)]).cumsum(0).tolist()
        highest = max(part.sh.shape[1] for part in parts)
        return MeshGaussians(
            mesh=self.mesh.merge(*(part.mesh for part in others)),
            face_ids=torch.cat([part.face_ids + offset for part, offset in zip(parts, offsets)]),
            barycentric=torch.cat([part.barycentric for part in parts]),
            rotations=torch.cat([part.rotations for part in parts]),
            log_scales=torch.cat([part.log_scales for part in parts]),
            opacity_logits=torch.cat([part.opacity_logits for part in parts]),
            sh=torch.cat([torch.nn.functional.pad(part.sh, (0, 0, 0, highest - part.sh.shape[1])) for part in parts]),
        )

    def to_gaussians(
        self, vertices: Float[Tensor, "v 3"] | None = None, turns: Float[Tensor, "v 4"] | None = None
    ) -> GaussianScene:
        """The Gaussians in the world, mode flat; differentiable.

        Args:
            vertices: Current positions of the mesh vertices [m]; rest pose when None. Each Gaussian follows the affine map of
                its face exactly: Sigma' = J Sigma J^T. Harmonics above degree 0 stay as in the rest pose.
            turns: Rotations of the vertices relative to the rest pose (wxyz). Gaussians then keep their sizes and rotate by the
                blended rotations of their corners, as published for DreamMesh4D; they can leave the planes of strained faces.

        Raises:
            InputError: Turns are given without vertices.
        """
        rest = self.mesh.vertices
        corners = rest[self.mesh.faces[self.face_ids]]
        e1 = unit(corners[:, 0] - corners[:, 1])
        normals = face_normals(rest, self.mesh.faces)[self.face_ids]
        e2 = torch.linalg.cross(normals, e1)
        a, b = unit(self.rotations)[:, :, None].unbind(1)
        edges = torch.stack([a * e1 + b * e2, a * e2 - b * e1], -1) * self.log_scales.exp()[:, None, :]
        moved_corners = corners
        if turns is not None and vertices is None:
            raise InputError("to_gaussians: got turns without vertices; want both, or only vertices")
        if vertices is not None:
            check_shape("vertices", vertices, (self.mesh.num_vertices, 3))
            moved_corners = vertices[self.mesh.faces[self.face_ids]]
            if turns is None:
                before, after = ((c[:, :2] - c[:, 2:]).mT for c in (corners, moved_corners))
                edges = after @ (torch.linalg.pinv(before) @ edges)
        is_strained = vertices is not None and turns is None
        quats, scales = edges_to_gaussians(edges, method="exact" if is_strained else "gram_schmidt")
        if turns is not None:
            check_shape("turns", turns, (self.mesh.num_vertices, 4))
            quats = multiply(blend_rotations(turns[self.mesh.faces[self.face_ids]], self.barycentric), quats)
        return GaussianScene(
            means=(self.barycentric[:, :, None] * moved_corners).sum(1),
            quats=quats,
            log_scales=scales.log(),
            opacity_logits=self.opacity_logits,
            sh=self.sh,
            mode="flat",
        )

    @property
    def num_gaussians(self) -> int:
        return len(self.face_ids)

    @property
    def device(self) -> torch.device:
        return self.face_ids.device

    def to(self, device: torch.device | str) -> "MeshGaussians":
        """The same mesh and Gaussians on another device."""
        tensors = {name: moved(value, device) for name, value in self._tensors().items()}
        return replace(self, mesh=self.mesh.to(device), **tensors)  # pyright: ignore[reportArgumentType]

    def __len__(self) -> int:
        return self.num_gaussians

    def __repr__(self) -> str:
        return f"MeshGaussians({self.num_gaussians} Gaussians on {self.mesh!r})"

    def _repr_html_(self) -> str:
        rows = [("Gaussians", self.num_gaussians), ("mesh", self.mesh), ("SH degree", math.isqrt(self.sh.shape[1]) - 1)]
        return html_table("MeshGaussians", [*rows, ("device", self.device)], codecs.preview(self))

    def _tensors(self) -> dict[str, Tensor | None]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "mesh"}


def _round(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest edge of each face along both axes, and no rotation."""
    corners = vertices[faces]
    shortest = torch.linalg.vector_norm(corners - corners.roll(1, 1), dim=-1).amin(1, keepdim=True)
    return shortest.expand(-1, 2), vertices.new_tensor([1.0, 0.0]).expand(len(faces), 2)


def _stretched(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Axes and rotations of the image of a circle of diameter 1 in an equilateral triangle of side 1 on each face."""
    v0, v1, v2 = vertices[faces].unbind(1)
    axes, lengths, _ = edges_svd(torch.stack([v1 - v0, (2 * v2 - v0 - v1) / 3**0.5], -1))
    e1 = unit(v0 - v1)
    e2 = torch.linalg.cross(face_normals(vertices, faces), e1)
    turns = torch.stack([(axes[..., 0] * e1).sum(-1), (axes[..., 0] * e2).sum(-1)], -1)
    is_flat = (turns == 0).all(1, keepdim=True)  # faces of zero area have no plane to rotate in
    return lengths, torch.where(is_flat, turns.new_tensor([1.0, 0.0]), turns)
