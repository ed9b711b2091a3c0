"""Texels of a mesh's texture: their surface points, and filling of the gaps between charts."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.render.meshes.api import interpolate, rasterize
from vision3d.scene import Mesh


@dataclass(frozen=True)
class Texels:
    """Surface points at the centers of the texels."""

    mask: Bool[Tensor, "h w"]
    """Texels whose center is in a chart."""
    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]


def texels_of(mesh: Mesh, size: int) -> Texels:
    """Rasterize the mesh into its own texture, with our mesh rasterizer."""
    assert mesh.uvs is not None and mesh.normals is not None
    flat = torch.nn.functional.pad(size * mesh.uvs, (0, 2), value=1.0)  # a plane at depth 1
    fragments = rasterize(flat[None], mesh.faces, size, size)
    mask = fragments.face_ids[0] >= 0
    values = interpolate(torch.cat([mesh.vertices, mesh.normals], 1), mesh.faces, fragments)[0][mask]
    return Texels(mask, values[:, :3], torch.nn.functional.normalize(values[:, 3:], dim=-1))


def spread(image: Float[Tensor, "h w c"], is_known: Bool[Tensor, "h w"]) -> Float[Tensor, "h w c"]:
    """The image with each unknown pixel taken from the nearest known one."""
    from scipy.ndimage import distance_transform_edt

    if bool(is_known.all()) or not bool(is_known.any()):
        return image
    nearest: Any = distance_transform_edt(~is_known.numpy(), return_distances=False, return_indices=True)
    rows, columns = torch.from_numpy(nearest).long()
    return image[rows, columns]
