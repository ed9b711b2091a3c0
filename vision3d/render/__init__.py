"""Rendering: Gaussians to images, differentiable, and scenes from many cameras."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

_PUBLIC = {
    "View": "vision3d.render.views",
    "blending_weights": "vision3d.render.views",
    "render_scene": "vision3d.render.composite",
    "render_views": "vision3d.render.views",
    "rasterize": "vision3d.render.splats.api",
    "rasterize_2dgs": "vision3d.render.splats.api_2dgs",
    "depth_to_normals": "vision3d.render.maps",
    "depth_to_rgb": "vision3d.render.maps",
    "normals_to_rgb": "vision3d.render.maps",
    "path_cameras": "vision3d.render.camera_paths",
    "refit_cameras": "vision3d.render.camera_paths",
    "surrounding_cameras": "vision3d.render.camera_paths",
}

__all__ = [
    "View",
    "blending_weights",
    "depth_to_normals",
    "depth_to_rgb",
    "normals_to_rgb",
    "path_cameras",
    "rasterize",
    "rasterize_2dgs",
    "refit_cameras",
    "render_scene",
    "render_views",
    "surrounding_cameras",
]

if TYPE_CHECKING:
    from vision3d.render.camera_paths import path_cameras, refit_cameras, surrounding_cameras
    from vision3d.render.composite import render_scene
    from vision3d.render.maps import depth_to_normals, depth_to_rgb, normals_to_rgb
    from vision3d.render.splats.api import rasterize
    from vision3d.render.splats.api_2dgs import rasterize_2dgs
    from vision3d.render.views import View, blending_weights, render_views


__getattr__ = lazy_names(__name__, _PUBLIC)
