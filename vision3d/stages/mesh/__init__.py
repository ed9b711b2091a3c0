"""From a scene of Gaussians to a triangle mesh with a texture: depth maps are fused, cleaned, unwrapped and colored.

Papers: truncated signed distances, Curless and Levoy 1996; blocks of voxels in a hash map, Niessner et al. 2013 (as in
Open3D); screened Poisson reconstruction, Kazhdan and Hoppe 2013; quadric decimation, Garland and Heckbert 1997; median
depth of 2D Gaussians, Huang et al. 2024 (arXiv 2403.17888).

Differences from them: distances are those from the tangent planes that a view shows, weighted by the cosine; every view is
fused into all visible blocks, not only into those at its own surface, so that floaters in the free space of other views are
carved away; the depth of a ray is where it has reached 20 % of the opacity instead of half; the depth of ellipsoids is that
of the 2D Gaussians perpendicular to their shortest axis.
"""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.mesh.config import MeshConfig
    from vision3d.stages.mesh.run import MeshResult, run as mesh_scene

__all__ = ["MeshConfig", "MeshResult", "mesh_scene"]

_load = lazy_names(__name__, {"MeshConfig": ".config", "MeshResult": ".run"})


def __getattr__(name: str) -> object:
    if name == "mesh_scene":
        from vision3d.stages.mesh.run import run

        return run
    return _load(name)
