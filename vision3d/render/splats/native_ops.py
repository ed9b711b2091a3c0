"""All native operations under the names that `ops` looks up."""

from vision3d.render.splats.native_2dgs import blend_2dgs, project_2dgs
from vision3d.render.splats.native_3dgs import blend, project, project_pairs, sh_colors
from vision3d.render.splats.native_tiles import intersect

__all__ = ["blend", "blend_2dgs", "intersect", "project", "project_2dgs", "project_pairs", "sh_colors"]
