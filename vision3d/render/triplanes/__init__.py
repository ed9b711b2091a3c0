"""Fields of triplanes: values at points, images by volume rendering, surfaces."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.render.triplanes.baking import BakedTriplane, bake_triplane
    from vision3d.render.triplanes.field import FieldValues, query, sample_planes
    from vision3d.render.triplanes.surface import triplane_mesh
    from vision3d.render.triplanes.volume import render_triplane, triplane_views

_PUBLIC = {
    "BakedTriplane": ".baking",
    "FieldValues": ".field",
    "bake_triplane": ".baking",
    "query": ".field",
    "render_triplane": ".volume",
    "sample_planes": ".field",
    "triplane_mesh": ".surface",
    "triplane_views": ".volume",
}

__all__ = [
    "BakedTriplane",
    "FieldValues",
    "bake_triplane",
    "query",
    "render_triplane",
    "sample_planes",
    "triplane_mesh",
    "triplane_views",
]

__getattr__ = lazy_names(__name__, _PUBLIC)
