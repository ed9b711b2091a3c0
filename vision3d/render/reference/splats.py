"""The plain torch rasterizer, an implementation of `Kernels`: the reference of the tests and the fallback."""

from vision3d.render.reference.blending import blend
from vision3d.render.reference.projection import project, sh_colors
from vision3d.render.reference.splats_2dgs import blend_2dgs, project_2dgs
from vision3d.render.reference.tiles import intersect

__all__ = ["blend", "blend_2dgs", "intersect", "project", "project_2dgs", "sh_colors"]
