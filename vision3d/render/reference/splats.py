"""The plain torch rasterizer of 3D Gaussians: what the kernels are tested against, and the fallback without them."""

from vision3d.render.reference.blending import blend
from vision3d.render.reference.projection import project, sh_colors
from vision3d.render.reference.tiles import intersect

__all__ = ["blend", "intersect", "project", "sh_colors"]
