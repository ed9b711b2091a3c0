"""The object of TripoSR's planes: its surface, and what is known of it for planes of ours."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.isosurface import surface_nets
from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.surface_points import sample_faces
from vision3d.scene.mesh import Mesh
from vision3d.stages.edit.fitting import Observed
from vision3d.stages.edit.lrm.triposr import LEVEL, TripoSR
from vision3d.stages.edit.objects.points import ObjectPoints, cube_matrix, to_cube, with_material

_FRONT = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
"""Axes of TripoSR, whose front is +x, to ours: z up, the front is -y, so that a glTF file has it at +z."""
_SPREAD = 0.05  # of the queries around the surface [half side of the cube]
_QUERIES = 32_768


@dataclass(frozen=True, eq=False)
class LrmObject:
    """A field of TripoSR; the world has z up, and the object is seen from -y."""

    network: TripoSR
    planes: Float[Tensor, "3 c h w"]

    def query(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Density relative to that of the surface, and sRGB color, at points of the world; nothing beyond the cube."""
        places = points @ _FRONT
        density, colors = self.network.query(self.planes, places)
        inside = (places.abs() <= self.network.sizes.radius).all(1)
        return torch.where(inside, density / LEVEL, 0), colors

    @torch.no_grad()
    def surface(self, grid: int) -> Mesh:
        """Where the density is that of a surface.

        Args:
            grid: Points along a side of the cube.

        Raises:
            InputError: The density is below it everywhere, or above it everywhere.
        """
        radius = self.network.sizes.radius
        at = ((2 * torch.arange(grid) + 1) / grid - 1) * radius
        density = self.query(torch.cartesian_prod(at, at, at))[0].view(grid, grid, grid)
        if not bool(torch.isfinite(density).all()) or not bool((density > 1).any()):
            raise InputError("image: the network finds no object in it, want one object on a plain background")
        # The logarithm is nearly linear across the surface, unlike the density.
        vertices, faces = surface_nets(torch.nn.functional.pad(density.clamp(min=1e-3).log(), (1,) * 6, value=-5.0))
        points = ((2 * vertices - 1) / grid - 1) * radius
        return Mesh(points, faces, normals=vertex_normals(points, faces))

    def points(self, surface: Mesh, count: int, seed: int = 0) -> ObjectPoints:
        """Points on the surface with the colors of the field, in the cube of the object."""
        matrix = cube_matrix(surface.vertices.amin(0), surface.vertices.amax(0), "z")
        face_ids, barycentric = sample_faces(surface.vertices, surface.faces, count, torch.Generator().manual_seed(seed))
        points = (barycentric[:, :, None].float() * surface.vertices[surface.faces[face_ids]]).sum(1)
        return ObjectPoints(to_cube(matrix, points), with_material(self.query(points)[1]), torch.ones(count), matrix)

    def observed(self, found: ObjectPoints, seed: int = 0) -> Observed:
        """The points, and others around the surface and in the cube that are inside or not."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(found.points), (_QUERIES * 3 // 4,), generator=generator)
        near = found.points[rows] + _SPREAD * torch.randn(len(rows), 3, generator=generator)
        uniform = 2 * torch.rand(_QUERIES - len(near), 3, generator=generator) - 1
        queries = torch.cat([near, uniform]).clamp(-1, 1)
        density, _ = self.query(queries @ found.matrix[:3, :3].T + found.matrix[:3, 3])
        return Observed(found.points, found.values, queries, density > 1)
