"""Differentiable rasterization of triangle meshes: fragments, attributes, textures, silhouettes."""

import importlib
from typing import TYPE_CHECKING

_PUBLIC = {
    "Fragments": "vision3d.render.meshes.api",
    "interpolate": "vision3d.render.meshes.api",
    "rasterize": "vision3d.render.meshes.api",
    "screen_positions": "vision3d.render.meshes.positions",
}

__all__ = ["Fragments", "interpolate", "rasterize", "screen_positions"]

if TYPE_CHECKING:
    from vision3d.render.meshes.api import Fragments, interpolate, rasterize
    from vision3d.render.meshes.positions import screen_positions


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'vision3d.render.meshes' has no attribute {name!r}")
