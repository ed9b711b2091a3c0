"""The native operations: an implementation of `Kernels`."""

from vision3d.render.splats.native_2dgs import blend_2dgs, project_2dgs
from vision3d.render.splats.native_3dgs import blend, project, sh_colors
from vision3d.render.splats.native_tiles import intersect

__all__ = ["blend", "blend_2dgs", "intersect", "project", "project_2dgs", "sh_colors"]
