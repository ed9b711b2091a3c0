"""The mesh operations in plain torch, in one module: the reference of the kernel tests."""

from vision3d.render.reference.antialias import antialias
from vision3d.render.reference.fragments import interpolate, rasterize
from vision3d.render.reference.textures import texture

__all__ = ["antialias", "interpolate", "rasterize", "texture"]
