"""Surfaces of triplanes: meshes with the colors of the field."""

import torch

from vision3d.core.errors import InputError
from vision3d.geometry.isosurface import surface_nets
from vision3d.geometry.mesh import vertex_normals
from vision3d.render.triplanes.field import query
from vision3d.scene.mesh import Mesh
from vision3d.scene.triplane import Triplane

_OUTSIDE = -20.0  # logit beyond the cube, so that the surface is closed


@torch.no_grad()
def triplane_mesh(triplane: Triplane, size: int = 128) -> Mesh:
    """The surface at which a point is inside with probability 1/2, with vertex colors.

    Args:
        triplane: The field.
        size: Grid points along a side of the cube.

    Raises:
        InputError: The field is empty, or the size is not between 8 and 512.
    """
    if not 8 <= size <= 512:
        raise InputError(f"size: got {size}, want 8 to 512")
    at = (2 * torch.arange(size, dtype=torch.float32) + 1) / size - 1
    logits = query(triplane, torch.cartesian_prod(at, at, at)).logits.view(size, size, size)
    if not bool((logits > 0).any()):
        raise InputError("triplane: is empty, want a field with an inside")
    padded = torch.nn.functional.pad(logits, (1,) * 6, value=_OUTSIDE)
    vertices, faces = surface_nets(padded)
    points = (2 * vertices - 1) / size - 1
    colors = query(triplane, points.clamp(-1, 1)).colors
    world = points @ triplane.matrix[:3, :3].T + triplane.matrix[:3, 3]
    return Mesh(world, faces, normals=vertex_normals(world, faces), vertex_colors=colors)
