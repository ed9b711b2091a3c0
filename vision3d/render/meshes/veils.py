"""Faces that are not opaque: cut-outs and glass, blended over what is behind them.

Each connected piece is a layer, and layers are blended from far to near in every pixel. Within a piece only the nearest
face is visible.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.geometry.cameras import CameraModel
from vision3d.geometry.mesh import connected_faces
from vision3d.render.meshes import shading as shades
from vision3d.render.meshes.api import interpolate, rasterize
from vision3d.render.meshes.positions import screen_positions
from vision3d.render.meshes.textures import mip_pyramid, texture, texture_lods
from vision3d.scene.mesh import Mesh
from vision3d.scene.mesh_colors import surface_alphas

_MAX_LAYERS = 32
_OPAQUE = 1 - 0.5 / 255


def split_opaque(meshes: Sequence[Mesh]) -> tuple[list[Mesh], list["Veil"]]:
    """The fully opaque faces of each mesh, and layers of the others, at most 32 for all meshes together."""
    opaque, pieces = [], []
    for mesh in meshes:
        is_clear = None if not _has_alpha(mesh) else _clear_faces(mesh)
        if is_clear is None or not bool(is_clear.any()):
            opaque.append(mesh)
            continue
        if not bool(is_clear.all()):
            opaque.append(mesh.crop(~is_clear))
        part = mesh.crop(is_clear)
        places = torch.unique(part.vertices.detach(), dim=0, return_inverse=True)[1]
        count, labels = connected_faces(places[part.faces])
        room = max(1, _MAX_LAYERS // max(1, len(meshes)))
        labels = labels if count <= room else labels % room
        pieces += [part.crop(labels == label) for label in range(min(count, room))]
    return opaque, [Veil.of(piece) for piece in pieces]


def _has_alpha(mesh: Mesh) -> bool:
    values = (mesh.texture, mesh.vertex_colors)
    return any(value is not None and value.shape[-1] == 4 and bool((value[..., 3] < _OPAQUE).any()) for value in values)


@torch.no_grad()
def _clear_faces(mesh: Mesh) -> Bool[Tensor, " f"]:
    return surface_alphas(mesh) < _OPAQUE


@dataclass(frozen=True, eq=False)
class Veil:
    """One layer."""

    surface: shades.Surface
    alphas: list[Float[Tensor, "1 _ _ 1"]] | None
    """Alpha of the texture, and its mipmap levels."""

    @classmethod
    def of(cls, mesh: Mesh) -> "Veil":
        """The layer of a mesh."""
        image = None
        if mesh.texture is not None and mesh.texture.shape[2] == 4:
            image = mip_pyramid(mesh.texture[None, ..., 3:].to(mesh.vertices))
        return cls(shades.Surface.of(mesh), image)

    def draw(
        self, viewmats: Tensor, Ks: Tensor, size: tuple[int, int], model: CameraModel, near_plane: float, **style: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Color, normal (1, h, w, 3), alpha and depth (1, h, w); alpha is 0 where the layer is not visible."""
        mesh, backend = self.surface.mesh, style["backend"]
        positions = screen_positions(mesh.vertices, viewmats, Ks, model)
        fragments = rasterize(positions, mesh.faces, *size, near_plane=near_plane, backend=backend)
        color, normal = shades.shade(self.surface, positions, fragments, viewmats, camera_model=model, **style)
        seen = fragments.face_ids >= 0
        alpha = seen.to(color.dtype)
        if self.alphas is not None:
            uvs, uv_faces = shades.uv_rows(mesh)
            texels = (self.alphas[0].shape[1], self.alphas[0].shape[2])
            lods = texture_lods(positions, mesh.faces, fragments, uvs, uv_faces, texels)
            places = interpolate(uvs, uv_faces, fragments, backend=backend)
            alpha = alpha * texture(self.alphas, places, lods=lods, masks=seen, backend=backend)[..., 0]
        if mesh.vertex_colors is not None and mesh.vertex_colors.shape[1] == 4:
            values = mesh.vertex_colors[:, 3:].to(mesh.vertices)
            alpha = alpha * interpolate(values, mesh.faces, fragments, backend=backend)[..., 0]
        return color, normal, alpha.clamp(0, 1), fragments.depths


@dataclass(frozen=True, eq=False)
class Layers:
    """The image so far: colors including the background, and weighted normals, alphas and depths."""

    color: Float[Tensor, "1 h w 3"]
    normal: Float[Tensor, "1 h w 3"]
    alpha: Float[Tensor, "1 h w"]
    depth: Float[Tensor, "1 h w"]

    def under(self, veils: Sequence[Veil], hit: Bool[Tensor, "1 h w"], *camera: Any, **style: Any) -> "Layers":
        """Blend the layers over the image; they are hidden behind opaque surfaces (`hit`)."""
        if not veils:
            return self
        colors, normals, alphas, depths = map(torch.stack, zip(*(veil.draw(*camera, **style) for veil in veils)))
        alphas = torch.where((alphas > 0) & (~hit | (depths < self.depth)), alphas, 0)
        order = depths.argsort(0, descending=True)
        below = self
        for places in order:
            index = places[None]
            alpha, depth = alphas.gather(0, index)[0], depths.gather(0, index)[0]
            wide = index[..., None].expand(*index.shape, 3)
            share = alpha[..., None]
            below = replace(
                below,
                color=torch.lerp(below.color, colors.gather(0, wide)[0], share),
                normal=torch.lerp(below.normal, normals.gather(0, wide)[0], share),
                alpha=below.alpha + (1 - below.alpha) * alpha,
                depth=torch.lerp(below.depth, depth, alpha),
            )
        return below
