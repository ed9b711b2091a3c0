"""Objects that move by skinning, after DreamMesh4D (Li et al. 2024, arXiv 2410.06756)."""

from typing import TYPE_CHECKING

from vision3d.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.animation.static.config import StaticConfig
    from vision3d.stages.animation.static.run import StaticResult, bind_gaussians

__all__ = ["StaticConfig", "StaticResult", "bind_gaussians"]

__getattr__ = lazy_names(
    __name__,
    {
        "StaticConfig": ".static.config",
        "StaticResult": ".static.run",
        "bind_gaussians": ".static.run",
    },
)
