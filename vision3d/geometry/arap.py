"""As-rigid-as-possible energy of deformed meshes (Sorkine and Alexa 2007)."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.mesh import Faces, Vertices, check_mesh, unique_edges
from vision3d.geometry.rotation import nearest_rotation


def cotangent_weights(vertices: Vertices, faces: Faces) -> tuple[Int64[Tensor, "e 2"], Float[Tensor, " e"]]:
    """Edges as sorted pairs, and half the sum of the cotangents of the angles opposite to each edge.

    Negative at edges whose opposite angles sum to more than 180 degrees; faces of zero area contribute nothing.
    """
    check_mesh(vertices, faces)
    edges, face_edges = unique_edges(faces)
    weights = vertices.new_zeros(len(edges))
    for corner in range(3):
        a, b, c = (vertices[faces[:, (corner + i) % 3]] for i in range(3))
        dots = ((a - c) * (b - c)).sum(-1)
        areas = torch.linalg.vector_norm(torch.linalg.cross(a - c, b - c), dim=-1)
        cotangents = torch.where(areas > 0, dots / torch.where(areas > 0, areas, 1), 0)
        weights = weights.index_add(0, face_edges[:, corner], cotangents / 2)
    return edges, weights


@dataclass(frozen=True, eq=False)
class Arap:
    """E = sum_ij w_ij |(v'_i - v'_j) - R_i (v_i - v_j)|^2 / sum_ij w_ij |v_i - v_j|^2, over each vertex i and neighbor j.

    Zero for rigid motions. A mesh scaled by s has (s - 1)^2, independent of resolution and size. Negative cotangents count as
    zero, so the energy is never negative.
    """

    starts: Int64[Tensor, " d"]
    """Vertex i of each edge: one direction in the first half, the other in the second."""
    ends: Int64[Tensor, " d"]
    """Vertex j."""
    weights: Float[Tensor, " d"]
    """w_ij, divided by the sum in the denominator."""
    rest: Float[Tensor, "d 3"]
    """v_i - v_j [m]."""
    num_vertices: int

    @classmethod
    def of(cls, vertices: Vertices, faces: Faces) -> "Arap":
        """The energy of a mesh in its rest pose; coincident vertices must be merged (`mesh.weld_vertices`).

        Raises:
            ShapeError: A tensor has the wrong shape or dtype.
            InputError: All faces have zero area.
        """
        edges, weights = cotangent_weights(vertices.detach(), faces)
        both, weights = torch.cat([edges, edges.flip(-1)]), weights.clamp(min=0).repeat(2)
        rest = vertices.detach()[both[:, 0]] - vertices.detach()[both[:, 1]]
        total = (weights * rest.square().sum(-1)).sum()
        if not float(total) > 0:
            raise InputError(f"faces: all {len(faces)} have zero area; want a rest pose with non-zero areas")
        return cls(both[:, 0], both[:, 1], weights / total, rest, len(vertices))

    def rotations(self, vertices: Float[Tensor, "*batch v 3"]) -> Float[Tensor, "*batch v 3 3"]:
        """The rotation of each vertex that minimizes the energy, nearest to sum_j w_ij e'_ij e_ij^T; without gradient."""
        with torch.no_grad():
            moved = vertices[..., self.starts, :] - vertices[..., self.ends, :]
            outer = (self.weights[:, None] * moved)[..., :, None] * self.rest[:, None, :]
            sums = outer.new_zeros(*vertices.shape[:-1], 3, 3).index_add(-3, self.starts, outer)
            return nearest_rotation(sums)

    def energy(
        self, vertices: Float[Tensor, "*batch v 3"], rotations: Float[Tensor, "*batch v 3 3"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """The energy of each pose, differentiable.

        Args:
            vertices: Deformed [m].
            rotations: Rotation of each vertex, with gradients; None uses the optimal ones. Since these are a minimum, the
                gradient with respect to the vertices is exact although they are constant.

        Raises:
            ShapeError: A shape is wrong.
        """
        return (self.weights * self._gaps(vertices, rotations).square().sum(-1)).sum(-1)

    @torch.no_grad()
    def strains(self, vertices: Float[Tensor, "*batch v 3"]) -> Float[Tensor, "*batch d"]:
        """Squared difference of each edge to the rest edge rotated with its vertex i, relative to the squared rest length.

        Raises:
            ShapeError: A shape is wrong.
        """
        squares = self._gaps(vertices, None).square().sum(-1)
        lengths = self.rest.square().sum(-1)
        return torch.where(lengths > 0, squares / torch.where(lengths > 0, lengths, 1), 0)

    def yielding(self, strains: Float[Tensor, " d"], limit: float) -> "Arap":
        """The energy with less weight on edges of large strain: their weight is multiplied by (limit / (limit + strain))^2.

        Deformation then concentrates in a few places, as at joints: the weights of one step of iteratively reweighted least
        squares for the norm of Geman and McClure (1985). Both directions of an edge get the mean of their strains.

        Args:
            strains: Strain of each edge, such as the mean of `strains` over many poses.
            limit: Strain at which a quarter of the weight remains, above 0.

        Raises:
            ShapeError: Not one strain per edge.
        """
        check_trailing("strains", strains, len(self.weights))
        strains = strains.view(2, -1).mean(0).repeat(2)
        return replace(self, weights=self.weights * (limit / (limit + strains)).square())

    def _gaps(self, vertices: Tensor, rotations: Tensor | None) -> Tensor:
        """(v'_i - v'_j) - R_i (v_i - v_j) of each edge."""
        check_trailing("vertices", vertices, self.num_vertices, 3)
        if rotations is None:
            rotations = self.rotations(vertices)
        check_trailing("rotations", rotations, self.num_vertices, 3, 3)
        moved = vertices[..., self.starts, :] - vertices[..., self.ends, :]
        return moved - (rotations[..., self.starts, :, :] @ self.rest[:, :, None])[..., 0]
