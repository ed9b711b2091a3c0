"""One picture in the place of a data set, and its camera."""

import logging
import math
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError, MissingFileError
from vision3d.scene import Cameras, PosedImages
from vision3d.scene.resample import resize_area
from vision3d.stages.animate.masks import mask_of_background
from vision3d.stages.animate.orbits import Orbit
from vision3d.stages.animate.static.config import ReferenceView

logger = logging.getLogger("vision3d.animate")

MIN_OPAQUE = 16
"""Least number of pixels that show the object."""


def reference_images(
    path: Path | str, view: ReferenceView, orbit: Orbit, scratch: Path, cameras: Cameras | None = None
) -> PosedImages:
    """A picture of the object alone as a data set of one view, none of which is held out.

    Args:
        path: A picture whose alpha channel, or plain background, tells where the object is.
        view: Its camera.
        orbit: About the mesh.
        scratch: Folder that takes the picture with an alpha channel where it has none.
        cameras: The one camera that took it, in place of `view`.

    Raises:
        InputError: It cannot be read, nothing tells where the object is, no pixel is opaque, or the camera does not fit it.
    """
    from vision3d.io.images import read_image, write_image

    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "an image with an alpha channel (.png, .webp)")
    image, file = read_image(path), path
    if image.shape[2] != 4 or bool((image[..., 3] == 1).all()):
        masks, color = mask_of_background([image[..., :3]])
        if masks is None:
            text = f"has neither an alpha channel nor a plain background ({color})"
            raise InputError(f"{path}: {text}; want RGBA with a transparent background")
        logger.info("the mask comes from the background colour %s", color)
        image, file = torch.cat([image[..., :3], masks[0]], -1), scratch / f"{path.stem}.png"
        write_image(file, image)
    if int((image[..., 3] > 0.5).sum()) < MIN_OPAQUE:
        raise InputError(f"{path}: its mask is empty; want an object with alpha above 0.5")
    height, width = image.shape[:2]
    if cameras is None:
        elevation, azimuth = (torch.tensor([math.radians(value)]) for value in (view.elevation_deg, view.azimuth_deg))
        camera = orbit.cameras(elevation, azimuth, view.distance, math.radians(view.fov_deg), width, height)
    else:
        camera = _fitting(cameras, path, width, height)
    return PosedImages(camera.to("cpu"), (file,), torch.zeros(1, dtype=torch.bool), source=path)


def opaque_pixels(images: PosedImages) -> Bool[Tensor, "h w"]:
    """Where the picture shows the object, at the size of its camera."""
    from vision3d.io.images import read_image

    camera = images.cameras[0]
    return resize_area(read_image(images.image_paths[0])[..., 3:], int(camera.width), int(camera.height))[..., 0] > 0.5


def _fitting(cameras: Cameras, path: Path, width: int, height: int) -> Cameras:
    if len(cameras) != 1:
        raise ConfigError("--camera", f"has {len(cameras)} cameras, want the one of {path.name}")
    shape = (int(cameras.width), int(cameras.height))
    if shape != (width, height):
        raise InputError(f"{path}: has {width}x{height} px, its camera {shape[0]}x{shape[1]}; want the same size")
    return cameras
