"""Viewing directions around an object, and random cameras."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.scene import Cameras
from vision3d.scene.upright import Z_UP_MESHES

LOWEST_DEG, HIGHEST_DEG = -10.0, 80.0  # elevations of random cameras
AXES = {
    "x": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "y": ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "z": ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0)),
}
"""Up and front direction (azimuth 0): +z for glTF's y up, +x for z up (DreamMesh4D)."""


@dataclass(frozen=True, eq=False)
class RelativeViews:
    """Viewing directions of images relative to the reference image, as required by Zero123-class guidance."""

    polar: Float[Tensor, " b"]
    """Angle from the up axis minus that of the reference [rad]: positive is lower."""
    azimuth: Float[Tensor, " b"]
    """Counter-clockwise seen from above, minus that of the reference [rad]."""
    distance: Float[Tensor, " b"]
    """Minus that of the reference [sides of the box]."""
    reference_polar: float
    """Angle of the reference from the up axis [rad]."""
    frame: Int64[Tensor, " b"]
    """Index of the reference image of each, 0 if there is only one."""


@dataclass(frozen=True, eq=False)
class Orbit:
    """Viewing directions around an object.

    Args:
        center: Center of its box [m].
        size: Longest side of its box [m].
        up: Unit vector.
        front: Unit vector perpendicular to `up`; azimuth 0.
    """

    center: Float[Tensor, "3"]
    size: float
    up: Float[Tensor, "3"]
    front: Float[Tensor, "3"]

    @classmethod
    def about(cls, vertices: Float[Tensor, "v 3"], up: str, suffix: str = "") -> "Orbit":
        """The directions around a mesh.

        Args:
            vertices: Its vertices [m].
            up: x, y, z, or auto, by the suffix of the file.
            suffix: Suffix of the file.
        """
        low, high = vertices.detach().double().amin(0), vertices.detach().double().amax(0)
        name = ("z" if suffix.lower() in Z_UP_MESHES else "y") if up == "auto" else up
        axes = (torch.tensor(axis, dtype=torch.float64, device=vertices.device) for axis in AXES[name])
        return cls((low + high) / 2, float((high - low).max()), *axes)

    @classmethod
    def unit(cls, up: str) -> "Orbit":
        """Around a box of side 1 m at the origin, y up unless `up` is z."""
        corners = torch.tensor([[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]])
        return cls.about(corners, up)

    def to(self, device: torch.device | str) -> "Orbit":
        """The same directions on another device."""
        return Orbit(self.center.to(device), self.size, self.up.to(device), self.front.to(device))

    def cameras(
        self,
        elevations: Float[Tensor, " c"],
        azimuths: Float[Tensor, " c"],
        distance: float,
        fov: float,
        width: int,
        height: int,
    ) -> Cameras:
        """Pinhole cameras looking at the center.

        Args:
            elevations: Elevation angles [rad].
            azimuths: From the front, counter-clockwise seen from above [rad].
            distance: Distance from the center, in sides of the box.
            fov: Vertical field of view [rad].
            width: Image width [px].
            height: Image height [px].
        """
        elevations, azimuths = (angles.to(self.center)[:, None] for angles in (elevations, azimuths))
        left = torch.linalg.cross(self.up, self.front)
        across = azimuths.cos() * self.front + azimuths.sin() * left
        eyes = self.center + distance * self.size * (elevations.cos() * across + elevations.sin() * self.up)
        focal = 0.5 * height / math.tan(fov / 2)
        K = intrinsics(focal, focal, width / 2, height / 2).to(self.center.device)
        return Cameras.from_camtoworlds(look_at(eyes, self.center, self.up).float(), K, width, height)

    def angles(self, cameras: Cameras) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"], Float[Tensor, " c"]]:
        """Elevation [rad], azimuth [rad] and distance [sides of the box] of the camera positions."""
        away = cameras.centers.double() - self.center
        left = torch.linalg.cross(self.up, self.front)
        distances = torch.linalg.vector_norm(away, dim=-1)
        elevations = torch.atan2(away @ self.up, torch.hypot(away @ self.front, away @ left))
        return elevations, torch.atan2(away @ left, away @ self.front), distances / self.size

    def random_cameras(self, count: int, reference: Cameras, size: int, generator: torch.Generator) -> Cameras:
        """Square cameras with the distance and field of view of the reference, at any azimuth and -10 to 80 degrees of
        elevation.

        Args:
            count: Number of cameras.
            reference: One camera.
            size: Width and height of their images [px].
            generator: Random generator on the CPU.
        """
        draws = torch.rand(2, count, generator=generator, dtype=torch.float64)
        elevations = torch.deg2rad(LOWEST_DEG + (HIGHEST_DEG - LOWEST_DEG) * draws[0])
        return self._like(reference, elevations, 2 * math.pi * draws[1] - math.pi, size)

    def around(self, reference: Cameras, size: int, count: int) -> Cameras:
        """Square cameras evenly around the object at the elevation of the reference, which is the first.

        Args:
            reference: One camera.
            size: Width and height of their images [px].
            count: Number of cameras.
        """
        elevation, azimuth, _ = self.angles(reference)
        turns = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
        return self._like(reference, elevation.cpu().expand(count), azimuth.cpu() + turns, size)

    def _like(self, reference: Cameras, elevations: Tensor, azimuths: Tensor, size: int) -> Cameras:
        """Square cameras with the distance of the reference and the field of view of its longer side."""
        longest = max(int(reference.width), int(reference.height))
        fov = 2 * math.atan(0.5 * longest / float(reference.Ks[0, 1, 1]))
        return self.cameras(elevations, azimuths, float(self.angles(reference)[2]), fov, size, size)

    def relative(self, cameras: Cameras, reference: Cameras, frame: Int64[Tensor, " c"] | None = None) -> RelativeViews:
        """The cameras' directions relative to the reference camera.

        Args:
            cameras: Cameras of the images.
            reference: One camera.
            frame: Index of the reference image of each; the first when None.
        """
        (elevations, azimuths, distances), (elevation, azimuth, distance) = self.angles(cameras), self.angles(reference)
        frame = torch.zeros(len(cameras), dtype=torch.int64, device=cameras.device) if frame is None else frame
        polar = math.pi / 2 - float(elevation)
        return RelativeViews(elevation - elevations, azimuths - azimuth, distances - distance, polar, frame)
