"""One picture in the place of a data set, and its camera."""

import math
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from vision3d.errors import ConfigError, InputError, MissingFileError
from vision3d.scene import Cameras, PosedImages
from vision3d.scene.resample import resize_area
from vision3d.stages.animation.orbits import Orbit
from vision3d.stages.animation.static.config import ReferenceView

MIN_OPAQUE = 16
"""Least number of pixels that show the object."""


def reference_images(path: Path | str, view: ReferenceView, orbit: Orbit, cameras: Cameras | None = None) -> PosedImages:
    """A picture of the object alone as a data set of one view, none of which is held out.

    Args:
        path: A picture with an alpha channel that shows where the object is.
        view: Its camera.
        orbit: About the mesh.
        cameras: The one camera that took it, in place of `view`.

    Raises:
        InputError: It cannot be read, has no alpha channel or no opaque pixels, or the camera does not fit it.
    """
    from vision3d.io.images import read_image

    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a picture with an alpha channel (.png, .webp)")
    image = read_image(path)
    if image.shape[2] != 4 or bool((image[..., 3] == 1).all()):
        raise InputError(f"{path}: has no alpha channel that says where the object is; want RGBA with a transparent background")
    if int((image[..., 3] > 0.5).sum()) < MIN_OPAQUE:
        raise InputError(f"{path}: its mask is empty, no object is to be seen; want an object with alpha above 0.5")
    height, width = image.shape[:2]
    if cameras is None:
        elevation, azimuth = (torch.tensor([math.radians(value)]) for value in (view.elevation_deg, view.azimuth_deg))
        camera = orbit.cameras(elevation, azimuth, view.distance, math.radians(view.fov_deg), width, height)
    else:
        camera = _fitting(cameras, path, width, height)
    return PosedImages(camera.to("cpu"), (path,), torch.zeros(1, dtype=torch.bool), source=path)


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
