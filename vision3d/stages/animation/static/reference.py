"""One picture in the place of a data set: its camera, and directions about the object that it shows."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.errors import ConfigError, InputError, MissingFileError
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.scene import Cameras, PosedImages
from vision3d.stages.animation.static.config import ReferenceView

MIN_OPAQUE = 16
"""Least number of pixels that show the object."""
_Y_UP = (".glb", ".gltf", ".obj", ".safetensors", "")
_AXES = {"y": ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), "z": ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0))}  # up and front


@dataclass(frozen=True)
class Orbit:
    """Directions about an object: from where it is seen.

    Args:
        center: Middle of its box [m].
        size: Longest side of its box [m].
        up: Unit vector.
        front: Unit vector across `up`; azimuth 0.
    """

    center: Float[Tensor, "3"]
    size: float
    up: Float[Tensor, "3"]
    front: Float[Tensor, "3"]

    @classmethod
    def about(cls, vertices: Float[Tensor, "v 3"], up: str, suffix: str = "") -> "Orbit":
        """The directions about a mesh.

        Args:
            vertices: Its vertices [m].
            up: y, z, or auto, by the suffix of the file.
            suffix: Of the file.
        """
        low, high = vertices.detach().double().amin(0), vertices.detach().double().amax(0)
        name = ("y" if suffix.lower() in _Y_UP else "z") if up == "auto" else up
        axes = (torch.tensor(axis, dtype=torch.float64, device=vertices.device) for axis in _AXES[name])
        return cls((low + high) / 2, float((high - low).max()), *axes)

    def cameras(
        self,
        elevations: Float[Tensor, " c"],
        azimuths: Float[Tensor, " c"],
        distance: float,
        fov: float,
        width: int,
        height: int,
    ) -> Cameras:
        """Pinhole cameras that look at the middle.

        Args:
            elevations: Above the middle [rad].
            azimuths: From the front, counter-clockwise seen from above [rad].
            distance: From the middle, in sides of the box.
            fov: Field of view over the height [rad].
            width: Of the pictures [px].
            height: Of the pictures [px].
        """
        elevations, azimuths = (angles.to(self.center)[:, None] for angles in (elevations, azimuths))
        left = torch.linalg.cross(self.up, self.front)
        across = azimuths.cos() * self.front + azimuths.sin() * left
        eyes = self.center + distance * self.size * (elevations.cos() * across + elevations.sin() * self.up)
        focal = 0.5 * height / math.tan(fov / 2)
        K = intrinsics(focal, focal, width / 2, height / 2).to(self.center.device)
        return Cameras.from_camtoworlds(look_at(eyes, self.center, self.up).float(), K, width, height)

    def angles(self, cameras: Cameras) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], Float[Tensor, " c"]]:
        """Elevation [rad], azimuth [rad] and distance [sides of the box] of the cameras' places."""
        away = cameras.centers.double() - self.center
        left = torch.linalg.cross(self.up, self.front)
        distances = torch.linalg.vector_norm(away, dim=-1)
        elevations = torch.atan2(away @ self.up, torch.hypot(away @ self.front, away @ left))
        return elevations, torch.atan2(away @ left, away @ self.front), distances / self.size


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


def _fitting(cameras: Cameras, path: Path, width: int, height: int) -> Cameras:
    if len(cameras) != 1:
        raise ConfigError("--camera", f"has {len(cameras)} cameras, want the one of {path.name}")
    shape = (int(cameras.width), int(cameras.height))
    if shape != (width, height):
        raise InputError(f"{path}: has {width}x{height} px, its camera {shape[0]}x{shape[1]}; want the same size")
    return cameras
