"""The viewer's camera and its motion by mouse and keys; numbers only, no window."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.rotation import so3_exp
from vision3d.geometry.vectors import any_orthogonal, unit
from vision3d.scene import Cameras
from vision3d.viewer.viewpoint import Viewpoint

DEFAULT_FOV_DEG = 50.0
UP_AXES = {
    "x": (1.0, 0.0, 0.0), "-x": (-1.0, 0.0, 0.0),
    "y": (0.0, 1.0, 0.0), "-y": (0.0, -1.0, 0.0),
    "z": (0.0, 0.0, 1.0), "-z": (0.0, 0.0, -1.0),
}  # fmt: skip
_POLE = math.radians(89)  # an orbit stops before looking straight along the up axis


@dataclass(frozen=True, eq=False)
class FreeCamera:
    """A camera with square pixels, an orbit center (pivot) and an up direction. Each move returns a new one.

    Example:
        >>> view = FreeCamera(torch.eye(4, dtype=torch.float64), 2.0, torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64))
        >>> view.orbited(math.radians(180), 0.0).position.round(decimals=6).abs()
        tensor([0., 0., 4.], dtype=torch.float64)
    """

    camtoworld: Float[Tensor, "4 4"]
    """Pose, OpenCV axes, float64."""
    distance: float
    """Distance from the camera to the pivot, which is straight ahead [m]."""
    up: Float[Tensor, "3"]
    """Unit vector, float64."""
    fov_deg: float = DEFAULT_FOV_DEG
    """Vertical field of view [degrees]."""

    @classmethod
    def of(cls, start: Viewpoint, up: Float[Tensor, "3"]) -> "FreeCamera":
        """The initial view.

        Args:
            start: Position, target and field of view, of `Layers.start`.
            up: Up direction of the world, the axis for orbits.
        """
        pose = look_at(start.position.double(), start.target.double(), start.up.double())
        distance = float(torch.linalg.vector_norm(start.target.double() - start.position.double()))
        return cls(pose, max(distance, 1e-9), unit(up.double()), start.fov_deg)

    @classmethod
    def of_camera(cls, camera: Cameras, up: Float[Tensor, "3"], distance: float, size: tuple[int, int]) -> "FreeCamera":
        """The view of a camera (a batch of one), with its image fitted into a window of `size` (width, height).

        Args:
            camera: Pinhole; another model is approximated by a pinhole of the same focal length.
            up: See the field.
            distance: See the field.
            size: Size of the window [px].
        """
        focal = fitted_focal(camera, size)
        fov = 2 * math.degrees(math.atan(0.5 * size[1] / focal))
        return cls(camera.camtoworlds[0].double().cpu(), max(distance, 1e-9), unit(up.double()), fov)

    @property
    def position(self) -> Float[Tensor, "3"]:
        return self.camtoworld[:3, 3]

    @property
    def pivot(self) -> Float[Tensor, "3"]:
        """The orbit center [m]."""
        return self.position + self.distance * self.camtoworld[:3, 2]

    def camera(self, width: int, height: int) -> Cameras:
        """The pinhole camera for an image of this size."""
        focal = 0.5 * height / math.tan(math.radians(self.fov_deg) / 2)
        return Cameras.from_camtoworlds(
            self.camtoworld[None].float(), intrinsics(focal, focal, width / 2, height / 2), width, height
        )

    def orbited(self, yaw: float, pitch: float) -> "FreeCamera":
        """Rotates about the pivot: `yaw` about the up axis, `pitch` upwards [rad]."""
        pivot = self.pivot
        pose = self._turned(yaw, pitch)
        pose[:3, 3] = pivot - self.distance * pose[:3, 2]
        return replace(self, camtoworld=pose)

    def looked(self, yaw: float, pitch: float) -> "FreeCamera":
        """Rotates about the camera itself [rad], with the pivot."""
        return replace(self, camtoworld=self._turned(yaw, pitch))

    def rolled(self, angle: float) -> "FreeCamera":
        """Rotates about the viewing direction [rad]; the up direction follows."""
        pose = self.camtoworld.clone()
        pose[:3, :3] = pose[:3, :3] @ so3_exp(pose.new_tensor([0.0, 0.0, angle]))
        return replace(self, camtoworld=pose, up=-pose[:3, 1])

    def panned(self, right: float, down: float, height: int) -> "FreeCamera":
        """Moves so that points at the pivot's depth follow the mouse by (right, down) pixels in an image of `height`."""
        meters = 2 * self.distance * math.tan(math.radians(self.fov_deg) / 2) / height
        return self.flown(-right * meters, -down * meters, 0.0)

    def flown(self, right: float, down: float, forward: float) -> "FreeCamera":
        """Moves along the camera's axes [m], with the pivot."""
        pose = self.camtoworld.clone()
        pose[:3, 3] += pose[:3, :3] @ pose.new_tensor([right, down, forward])
        return replace(self, camtoworld=pose)

    def zoomed(self, factor: float) -> "FreeCamera":
        """Scales the distance from the pivot by `factor`."""
        pose = self.camtoworld.clone()
        pose[:3, 3] = self.pivot - factor * self.distance * pose[:3, 2]
        return replace(self, camtoworld=pose, distance=factor * self.distance)

    def centered(self, point: Float[Tensor, "3"]) -> "FreeCamera":
        """Looks at a point, with the pivot at its depth."""
        point = point.double()
        distance = float(torch.linalg.vector_norm(point - self.position))
        if distance == 0:
            return self
        return replace(self, camtoworld=look_at(self.position, point, self.up), distance=distance)

    def with_up(self, up: Float[Tensor, "3"]) -> "FreeCamera":
        """Keeps pivot and distance, but changes the up direction."""
        up = unit(up.double())
        direction = self.camtoworld[:3, 2]
        if abs(float(direction @ up)) > math.sin(_POLE):
            side = any_orthogonal(up)
            direction = math.cos(0.3) * side - math.sin(0.3) * up
        return replace(self, camtoworld=look_at(self.pivot - self.distance * direction, self.pivot, up), up=up)

    def _turned(self, yaw: float, pitch: float) -> Float[Tensor, "4 4"]:
        pose = self.camtoworld.clone()
        rotmat = so3_exp(yaw * self.up) @ pose[:3, :3]
        # The elevation of the viewing direction stays between the poles; a camera beyond them may only move back.
        now = math.asin(max(-1.0, min(1.0, float(rotmat[:, 2] @ self.up))))
        is_upright = float(-rotmat[:, 1] @ self.up) >= -1e-9
        if is_upright:
            pitch = max(-_POLE, min(_POLE, now + pitch)) - now
        pose[:3, :3] = rotmat @ so3_exp(pose.new_tensor([pitch, 0.0, 0.0]))
        return pose


def fitted_focal(camera: Cameras, size: tuple[int, int]) -> float:
    """Focal length [px] with which the image of a camera (a batch of one) fits into a window of `size`.

    The window's principal point is at its center; the camera's may be elsewhere.
    """
    (width, height), K = size, camera.Ks[0].tolist()
    halves = (
        max(K[0][2], int(camera.width) - K[0][2]) / K[0][0],
        max(K[1][2], int(camera.height) - K[1][2]) / K[1][1],
    )
    return min(0.5 * width / max(halves[0], 1e-9), 0.5 * height / max(halves[1], 1e-9))
