"""A single image as a data set, and its camera."""

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
"""Minimum number of object pixels."""


def reference_images(
    path: Path | str, view: ReferenceView, orbit: Orbit, scratch: Path, cameras: Cameras | None = None
) -> PosedImages:
    """An image of the object alone as a data set of one training view.

    Args:
        path: An image whose alpha channel, or plain background, masks the object.
        view: Its camera.
        orbit: Around the mesh.
        scratch: Folder for the image with an alpha channel, if it has none.
        cameras: The camera of the image, instead of `view`.

    Raises:
        InputError: It cannot be read, has no mask, no pixel is opaque, or the camera does not match it.
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
        logger.info("the mask comes from the background color %s", color)
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
    """Mask of the object in the image, at the size of its camera."""
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
