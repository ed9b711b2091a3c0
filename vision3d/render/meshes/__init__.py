"""Differentiable rasterization of triangle meshes: fragments, attributes, textures, silhouettes."""

from typing import TYPE_CHECKING

from vision3d.lazy import lazy_names

_PUBLIC = {
    "Fragments": "vision3d.render.meshes.api",
    "antialias": "vision3d.render.meshes.silhouettes",
    "edge_neighbors": "vision3d.render.meshes.silhouettes",
    "interpolate": "vision3d.render.meshes.api",
    "rasterize": "vision3d.render.meshes.api",
    "mip_pyramid": "vision3d.render.meshes.textures",
    "texture": "vision3d.render.meshes.textures",
    "texture_lods": "vision3d.render.meshes.textures",
    "screen_positions": "vision3d.render.meshes.positions",
}

__all__ = [
    "Fragments",
    "antialias",
    "edge_neighbors",
    "interpolate",
    "mip_pyramid",
    "rasterize",
    "screen_positions",
    "texture",
    "texture_lods",
]

if TYPE_CHECKING:
    from vision3d.render.meshes.api import Fragments, interpolate, rasterize
    from vision3d.render.meshes.positions import screen_positions
    from vision3d.render.meshes.silhouettes import antialias, edge_neighbors
    from vision3d.render.meshes.textures import mip_pyramid, texture, texture_lods


__getattr__ = lazy_names(__name__, _PUBLIC)
