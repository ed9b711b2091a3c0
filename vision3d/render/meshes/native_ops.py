"""The native mesh operations in one module, with the names of `render.reference.meshes`."""

from vision3d.render.meshes.native_antialias import antialias
from vision3d.render.meshes.native_fragments import interpolate, rasterize
from vision3d.render.meshes.native_textures import texture

__all__ = ["antialias", "interpolate", "rasterize", "texture"]
