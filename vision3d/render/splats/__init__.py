"""Differentiable rasterization of 3D and 2D Gaussians."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

_PUBLIC = {
    "rasterize": "vision3d.render.splats.api",
    "rasterize_2dgs": "vision3d.render.splats.api_2dgs",
}

__all__ = ["rasterize", "rasterize_2dgs"]

if TYPE_CHECKING:
    from vision3d.render.splats.api import rasterize
    from vision3d.render.splats.api_2dgs import rasterize_2dgs


__getattr__ = lazy_names(__name__, _PUBLIC)
