"""Differentiable rasterization of 3D and 2D Gaussians."""

import importlib
from typing import TYPE_CHECKING

_PUBLIC = {
    "rasterize": "vision3d.render.splats.api",
    "rasterize_2dgs": "vision3d.render.splats.api_2dgs",
}

__all__ = ["rasterize", "rasterize_2dgs"]

if TYPE_CHECKING:
    from vision3d.render.splats.api import rasterize
    from vision3d.render.splats.api_2dgs import rasterize_2dgs


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'vision3d.render.splats' has no attribute {name!r}")
