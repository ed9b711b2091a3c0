"""Objects as the encoder sees them: colored points in a cube with z up."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.spherical_harmonics import sh0_to_rgb
from vision3d.geometry.surface_points import sample_faces
from vision3d.render.triplanes.field import METALLIC, ROUGHNESS
from vision3d.scene.colors import linear_to_srgb
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.mesh_colors import surface_colors
from vision3d.scene.upright import Axis, turn_to_y_up

COUNT = 16_384
"""Points on a mesh."""
MARGIN = 0.95
"""Half of the longest side in the cube, whose half side is 1."""
_OUTLIERS = 0.002
"""Share of the weight of Gaussians beyond each side that the cube leaves out: floaters."""
_Y_TO_Z = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@dataclass(frozen=True, eq=False)
class ObjectPoints:
    """Points of an object in its cube."""

    points: Float[Tensor, "n 3"]
    """In [-1, 1]^3 up to outliers; z is up, and the longest side is 1.9."""
    values: Float[Tensor, "n 5"]
    """Red, green, blue (sRGB), metallic, roughness."""
    weights: Float[Tensor, " n"]
    """In the means of the encoder."""
    matrix: Float[Tensor, "4 4"]
    """The cube to the world [m]."""

    def recolored(self, colors: Float[Tensor, "n 3"]) -> "ObjectPoints":
        """The same points with other colors."""
        return replace(self, values=torch.cat([colors, self.values[:, 3:]], 1))


def cube_matrix(low: Float[Tensor, " 3"], high: Float[Tensor, " 3"], up: Axis) -> Float[Tensor, "4 4"]:
    """The cube of an object with z up to the world.

    Args:
        low: Lowest corner of the object's box in the world [m].
        high: Highest corner.
        up: Axis of the world that is up.

    Raises:
        InputError: The box has no extent, or is not finite.
    """
    size = float((high - low).max())
    if not 0 < size < torch.inf or not bool(torch.isfinite(low).all()):
        raise InputError(f"object: got a size of {size:.3g} m, want an object with a finite extent")
    matrix = torch.eye(4)
    matrix[:3, :3] = (_Y_TO_Z @ turn_to_y_up(up)).T * (size / (2 * MARGIN))
    matrix[:3, 3] = (low + high) / 2
    return matrix


def to_cube(matrix: Float[Tensor, "4 4"], points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Points of the world in the cube.

    Args:
        matrix: The cube to the world.
        points: In the world [m].
    """
    inverse = torch.linalg.inv(matrix.double())
    return (points.double() @ inverse[:3, :3].T + inverse[:3, 3]).to(points.dtype)


def points_of_mesh(mesh: Mesh, up: Axis, count: int = COUNT, seed: int = 0) -> ObjectPoints:
    """Points on a mesh, with the colors of its texture or vertices; gray if it has none.

    Args:
        mesh: A mesh.
        up: Axis of the world that is up.
        count: Number of points.
        seed: Of the points.

    Raises:
        InputError: The mesh has no faces with an area.
    """
    used = mesh.vertices[mesh.faces.flatten().unique()]
    if not len(used):
        raise InputError(f"mesh: got {mesh.num_vertices} vertices and no faces, want at least one face")
    matrix = cube_matrix(used.amin(0), used.amax(0), up)
    face_ids, barycentric = sample_faces(mesh.vertices, mesh.faces, count, torch.Generator().manual_seed(seed))
    points = (barycentric[:, :, None] * mesh.vertices.double()[mesh.faces[face_ids]]).sum(1)
    colors = linear_to_srgb(surface_colors(mesh, face_ids, barycentric.float())).clamp(0, 1)
    return ObjectPoints(to_cube(matrix, points).float(), with_material(colors), torch.ones(count), matrix)


def points_of_gaussians(scene: GaussianScene, up: Axis, selected: Bool[Tensor, " n"] | None = None) -> ObjectPoints:
    """The centers of Gaussians with their colors without view dependence, weighted by how much they show.

    Args:
        scene: Gaussians.
        up: Axis of the world that is up.
        selected: Those of the object; all when None. All are returned, also those outside of the cube, with weight 0.

    Raises:
        InputError: None is selected, or they have no extent.
    """
    selected = torch.ones(len(scene), dtype=torch.bool) if selected is None else selected
    if not bool(selected.any()):
        raise InputError(f"selection: none of the {len(scene)} Gaussians is selected, want at least one")
    scales = scene.scales.sort(dim=1, descending=True).values
    weights = scene.opacities * (scales[:, 0] * scales[:, 1]).clamp(max=float((scales[:, 0] * scales[:, 1]).quantile(0.9)))
    weights = torch.where(selected & torch.isfinite(weights), weights, 0)
    low, high = (_quantile(scene.means[selected], weights[selected], at) for at in (_OUTLIERS, 1 - _OUTLIERS))
    matrix = cube_matrix(low, high, up)
    points = to_cube(matrix, scene.means)
    colors = sh0_to_rgb(scene.sh[:, 0]).clamp(0, 1)
    weights = torch.where((points.abs() <= 1).all(1), weights, 0)
    return ObjectPoints(points, with_material(colors), weights / weights.max().clamp(min=1e-30), matrix)


def with_material(colors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 5"]:
    """Colors with the default material factors."""
    return torch.cat([colors, colors.new_tensor([METALLIC, ROUGHNESS]).expand(len(colors), 2)], 1)


def _quantile(points: Tensor, weights: Tensor, at: float) -> Float[Tensor, " 3"]:
    """Of each coordinate, weighted."""
    values, order = points.sort(dim=0)
    sums = weights[order].double().cumsum(0)
    rows = torch.searchsorted(sums.T.contiguous(), (sums[-1] * at)[:, None].contiguous())[:, 0].clamp(max=len(points) - 1)
    return values.gather(0, rows[None])[0]
