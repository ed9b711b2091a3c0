"""The native operations of meshes in one module, named like those of `render.reference.meshes`."""

from vision3d.render.meshes.native_fragments import interpolate, rasterize
from vision3d.render.meshes.native_textures import texture

__all__ = ["interpolate", "rasterize", "texture"]
