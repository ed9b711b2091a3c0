"""Colors of Gaussians on a mesh as a texture or as vertex colors, for programs that render meshes."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.spherical_harmonics import eval_sh
from vision3d.render.meshes.texels import spread, texels_of
from vision3d.scene import Mesh, MeshGaussians

_NEAREST = 16
"""Number of Gaussians that are mixed at a point."""
_ROWS = 1 << 16
_OFF_PLANE = 1e-2
"""Minimum thickness of a Gaussian relative to its larger axis, so that nearby surfaces facing elsewhere have little weight."""


def bake_texture(bound: MeshGaussians, size: int = 1024) -> Mesh:
    """The mesh in its rest pose with a texture of the Gaussians' colors in its own uvs; gaps get the nearest texel's color.

    Args:
        bound: Its mesh has non-overlapping uvs from 0 to 1 (`vision3d.render.baking.atlas.unwrap` makes them).
        size: Side length of the texture [texels].

    Raises:
        InputError: The mesh has no uvs, or no texel is in a chart.
    """
    mesh = bound.mesh
    if mesh.uvs is None or size < 1:
        raise InputError(
            f"bake_texture: got a mesh {'with' if mesh.uvs is not None else 'without'} uvs, size {size}; want both"
        )
    normals = vertex_normals(mesh.vertices, mesh.faces)
    texels = texels_of(replace(mesh, normals=normals).split_seams(), size)
    if not bool(texels.mask.any()):
        raise InputError(f"bake_texture: no texel of {size}x{size} lies in a chart; want uvs from 0 to 1, and a larger size")
    image = torch.zeros(size, size, 3)
    image[texels.mask] = gaussian_colors(bound, texels.points, texels.normals)
    return replace(mesh, texture=spread(image, texels.mask), vertex_colors=None)


def bake_vertex_colors(bound: MeshGaussians) -> Mesh:
    """The mesh in its rest pose with the Gaussians' colors at its vertices."""
    mesh = bound.mesh
    colors = gaussian_colors(bound, mesh.vertices, vertex_normals(mesh.vertices, mesh.faces))
    return replace(mesh, vertex_colors=colors, texture=None)


def gaussian_colors(bound: MeshGaussians, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Colors in [0, 1] of points on the surface, viewed along the normal.

    The mean of the nearest Gaussians, weighted by opacity exp(-d^2 / 2) with d their Mahalanobis distance.
    """
    from scipy.spatial import KDTree

    scene = bound.to_gaussians().to("cpu")
    scales = scene.scales.clone()
    scales[:, 2] = _OFF_PLANE * scales[:, :2].amax(1)
    to_axes = quat_to_rotmat(scene.quats).mT / scales[..., None]
    tree = KDTree(scene.means.detach().double().numpy())
    found = torch.empty(len(points), 3)
    for rows in torch.arange(len(points)).split(_ROWS):
        place, normal = points[rows].cpu(), normals[rows].cpu()
        _, nearest = tree.query(place.detach().double().numpy(), min(_NEAREST, len(scene)))
        indices = torch.from_numpy(np.asarray(nearest)).long().view(len(rows), -1)
        offsets = place[:, None] - scene.means[indices]
        squares = (to_axes[indices] @ offsets[..., None])[..., 0].square().sum(-1)
        weights = torch.softmax(scene.opacities[indices].clamp(min=1e-12).log() - squares / 2, 1)
        colors = (eval_sh(scene.sh[indices], -normal[:, None].expand(-1, indices.shape[1], -1)) + 0.5).clamp(min=0)
        found[rows] = (weights[..., None] * colors).sum(1).float()
    return found.clamp(0, 1)
