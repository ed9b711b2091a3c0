"""Differentiable rasterization of triangle meshes: fragments, attributes, textures, silhouettes, shading."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

_PUBLIC = {
    "Fragments": "vision3d.render.meshes.api",
    "Lights": "vision3d.render.meshes.lights",
    "Surface": "vision3d.render.meshes.shading",
    "antialias": "vision3d.render.meshes.silhouettes",
    "base_colors": "vision3d.render.meshes.shading",
    "draw_attributes": "vision3d.render.meshes.drawing",
    "edge_neighbors": "vision3d.render.meshes.silhouettes",
    "interpolate": "vision3d.render.meshes.api",
    "irradiance": "vision3d.render.meshes.lights",
    "light": "vision3d.render.meshes.lights",
    "project_environment": "vision3d.render.meshes.lights",
    "rasterize": "vision3d.render.meshes.api",
    "mip_pyramid": "vision3d.render.meshes.textures",
    "texture": "vision3d.render.meshes.textures",
    "texture_lods": "vision3d.render.meshes.textures",
    "screen_positions": "vision3d.render.meshes.positions",
    "shade": "vision3d.render.meshes.shading",
    "surface_normals": "vision3d.render.meshes.shading",
}

__all__ = [
    "Fragments",
    "Lights",
    "Surface",
    "antialias",
    "base_colors",
    "draw_attributes",
    "edge_neighbors",
    "interpolate",
    "irradiance",
    "light",
    "mip_pyramid",
    "project_environment",
    "rasterize",
    "screen_positions",
    "shade",
    "surface_normals",
    "texture",
    "texture_lods",
]

if TYPE_CHECKING:
    from vision3d.render.meshes.api import Fragments, interpolate, rasterize
    from vision3d.render.meshes.drawing import draw_attributes
    from vision3d.render.meshes.lights import Lights, irradiance, light, project_environment
    from vision3d.render.meshes.positions import screen_positions
    from vision3d.render.meshes.shading import Surface, base_colors, shade, surface_normals
    from vision3d.render.meshes.silhouettes import antialias, edge_neighbors
    from vision3d.render.meshes.textures import mip_pyramid, texture, texture_lods


__getattr__ = lazy_names(__name__, _PUBLIC)
