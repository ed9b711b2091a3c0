"""Renders one image of layers without a window; needs neither Open3D nor a display."""

import math
from dataclasses import replace
from pathlib import Path

import torch

from vision3d.core.errors import InputError
from vision3d.geometry.cameras import look_at
from vision3d.geometry.vectors import any_orthogonal, orthogonal_part, unit
from vision3d.io.images import write_image
from vision3d.viewer.content import Content
from vision3d.viewer.drawing import Color, draw
from vision3d.viewer.layers import Layers
from vision3d.viewer.navigation import FreeCamera
from vision3d.viewer.viewpoint import Viewpoint, start_viewpoint

_DEFAULT_ELEVATION, _STEEPEST = 20.0, 89.99  # degrees


def write_view(
    layers: Layers,
    out: Path,
    *,
    size: tuple[int, int],
    start: FreeCamera | None = None,
    background: Color = (0.0, 0.0, 0.0),
    time: float | None = None,
) -> None:
    """Writes the image that a window of this size would show first. Cameras are drawn only if the scene is empty otherwise.

    Args:
        layers: The layers.
        out: .png, .jpg or .webp; written atomically.
        size: Width and height [px].
        start: The view; that of the layers when None.
        background: Background color.
        time: Time of the animation [s]; its start when None.

    Raises:
        InputError: Nothing to draw yet.
    """
    if not len(layers):
        raise InputError(f"there is nothing to draw yet ({layers.note()})")
    content = Content(layers)
    if start is None:
        up = layers.up
        first = next(iter(content.camera_layers), None)
        if first is not None and first.cameras is not None and any(layer.kind != "cameras" for layer in layers):
            camera = first.cameras[0].to("cpu")
            start = FreeCamera.of_camera(camera, up, content.radius, size)
        elif first is not None:
            start = FreeCamera.of(Viewpoint.framing(content.bounds, up), up)
        else:
            start = FreeCamera.of(start_viewpoint(layers, content.bounds, up), up)
    if time is None:
        time = float(layers.times[0]) if len(layers.times) else 0.0
    only_cameras = all(layer.kind == "cameras" for layer in layers)
    models = content.models(time, with_cameras=only_cameras)
    write_image(out, draw(models, start.camera(*size), background).image.clamp(0, 1))


def placed_view(layers: Layers, azimuth_deg: float | None, elevation_deg: float | None) -> FreeCamera:
    """A view of everything from a given direction.

    Args:
        layers: Content in view.
        azimuth_deg: Rotation from the default view, counter-clockwise from above [degrees].
        elevation_deg: Elevation of the camera above the center [degrees]; 20 when None.
    """
    bounds, up = layers.bounds, unit(layers.up.double())
    standing = [layer for layer in layers if layer.kind != "cameras"]
    own = start_viewpoint(standing or [], bounds, layers.up) if standing else Viewpoint.framing(bounds, layers.up)
    view = FreeCamera.of(own, layers.up)
    across = orthogonal_part(-view.camtoworld[:3, 2], up) if standing else any_orthogonal(up)
    side = torch.linalg.cross(up, across)
    elevation = _DEFAULT_ELEVATION if elevation_deg is None else elevation_deg
    # Straight from above, the up direction of the image would be undefined.
    height = math.radians(max(-_STEEPEST, min(_STEEPEST, elevation)))
    turn = math.radians(azimuth_deg or 0.0)
    direction = math.cos(height) * (math.cos(turn) * across + math.sin(turn) * side) + math.sin(height) * up
    eye = bounds.center.double() + view.distance * direction
    return replace(view, camtoworld=look_at(eye, bounds.center.double(), up))
