"""A thumbnail of a scene for notebooks."""

import torch

from vision3d.core.errors import Vision3DError
from vision3d.render import path_cameras, render_views
from vision3d.scene import GaussianScene
from vision3d.scene.checks import html_image

SIZE = (240, 180)
MAX = 3_000_000  # Gaussians; more would block a notebook


def preview(scene: GaussianScene) -> str:
    """One view of a scene as an HTML element; empty if it has no Gaussians, too many, or non-finite values."""
    if scene.num_gaussians > MAX:
        return ""
    try:
        with torch.no_grad():
            scene.validate()
            cameras = path_cameras(scene, "orbit", num=1, size=SIZE).to(scene.device)
            view = next(render_views(scene, cameras, backgrounds=(1.0, 1.0, 1.0)))
    except Vision3DError:
        return ""
    return "" if view.image is None else html_image(view.image)
