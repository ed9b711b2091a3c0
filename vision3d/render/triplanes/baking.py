"""Triplanes as meshes with a texture of the colors that images of the field show."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.render.baking.atlas import unwrap_growing
from vision3d.render.meshes.texels import spread, texels_of
from vision3d.render.triplanes.field import query
from vision3d.render.triplanes.surface import triplane_mesh
from vision3d.scene.mesh import Mesh
from vision3d.scene.triplane import Triplane

_PADDING = 2
_OUTSIDE, _INSIDE, _STEPS = 0.06, 0.1, 12
"""How far from the surface the rays of the texels begin and end [half side of the cube], and their steps."""
_CHUNK = 1 << 15


@dataclass(frozen=True, eq=False)
class BakedTriplane:
    """A mesh of a triplane."""

    mesh: Mesh
    """With normals, and a texture of sRGB colors."""
    factors: Float[Tensor, "h w 2"]
    """Metallic and roughness factor of the texels."""
    mask: Bool[Tensor, "h w"]
    """Texels on the surface; the others continue them."""


@torch.no_grad()
def bake_triplane(triplane: Triplane, texture_size: int = 1024, grid: int = 128) -> BakedTriplane:
    """The surface of a field, as `triplane_mesh` finds it, with a texture.

    A texel has the color that a ray of `render_triplane` onto it along the normal would show, without the background: the
    field is soft, so that images mix what is a little above the surface with what is below.

    Args:
        triplane: The field.
        texture_size: Side of the texture [texels]; it is doubled until all charts fit.
        grid: Points along a side of the grid that the surface is made from.

    Raises:
        InputError: The field is empty, the charts do not fit, or a size is out of range.
    """
    inverse = torch.linalg.inv(triplane.matrix.double()).float()

    def values(points: Tensor, normals: Tensor) -> Tensor:
        directions = torch.nn.functional.normalize(normals @ inverse[:3, :3].T, dim=1)
        return _seen(triplane, points @ inverse[:3, :3].T + inverse[:3, 3], directions)

    mesh, image, mask = bake_surface(triplane_mesh(triplane, grid), texture_size, values)
    return BakedTriplane(replace(mesh, texture=image[..., :3].contiguous()), image[..., 3:].contiguous(), mask)


@torch.no_grad()
def bake_surface(
    surface: Mesh, texture_size: int, values: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Mesh, Float[Tensor, "h w k"], Bool[Tensor, "h w"]]:
    """A mesh with uvs, values at the texels, and which of these are on the surface; the others continue them.

    Args:
        surface: With normals.
        texture_size: Side of the texture [texels]; it is doubled until all charts fit.
        values: From points (N, 3) and unit normals (N, 3) to values (N, K).

    Raises:
        InputError: The charts do not fit, or the size is out of range.
    """
    if texture_size < 16:
        raise InputError(f"texture_size: got {texture_size}, want at least 16")
    unwrapped = unwrap_growing(replace(surface, vertex_colors=None), texture_size, _PADDING)
    if unwrapped is None:
        raise InputError(f"mesh: the charts of {surface.num_faces} faces do not fit on a texture; want fewer faces")
    mesh, size = unwrapped
    texels = texels_of(mesh, size)
    found = torch.cat([values(*parts) for parts in zip(texels.points.split(_CHUNK), texels.normals.split(_CHUNK))])
    image = torch.zeros(size, size, found.shape[1])
    image[texels.mask] = found
    return mesh, spread(image, texels.mask), texels.mask


def _seen(triplane: Triplane, points: Tensor, normals: Tensor) -> Float[Tensor, "n 5"]:
    """Colors and material factors along rays against the normals, weighted as volume rendering does."""
    step = (_OUTSIDE + _INSIDE) / _STEPS
    depths = _OUTSIDE - step * (torch.arange(_STEPS) + 0.5)
    places = points[:, None] + depths[:, None] * normals[:, None]
    found = query(triplane, places.flatten(0, 1))
    passed = torch.exp(-step * found.density.view(len(points), _STEPS).cumsum(1))
    weights = torch.nn.functional.pad(passed, (1, 0), value=1.0)[:, :-1] - passed
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
    values = torch.cat([found.colors, found.metallic[:, None], found.roughness[:, None]], 1)
    return (weights[..., None] * values.view(len(points), _STEPS, 5)).sum(1)
