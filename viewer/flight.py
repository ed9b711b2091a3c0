"""A camera path through chosen views: stored as keyframes, played, saved and loaded as cameras."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.paths import interpolate_poses
from vision3d.scene import Cameras
from vision3d.viewer.navigation import FreeCamera

SECONDS_PER_KEY = 2.0
"""Average time between two keys."""
FPS = 30.0
"""Frame rate of videos of the path."""


class Flight:
    """A camera path made of keys."""

    def __init__(self) -> None:
        self.keys: tuple[FreeCamera, ...] = ()
        self.time: float | None = None
        """Current time on the path while it plays [s]."""

    @property
    def seconds(self) -> float:
        """Duration of the path."""
        return SECONDS_PER_KEY * max(len(self.keys) - 1, 1)

    def add(self, view: FreeCamera) -> None:
        """Appends a key."""
        self.keys = (*self.keys, view)

    def clear(self) -> None:
        """No keys."""
        self.keys, self.time = (), None

    def start(self) -> None:
        """Plays the path from its start.

        Raises:
            InputError: There are fewer than two keys, or all are equal.
        """
        if len(self.keys) < 2:
            raise InputError(f"the camera path has {len(self.keys)} keys; add at least two views")
        self.at(0.0)
        self.time = 0.0

    def stop(self) -> None:
        """Stops at the current view."""
        self.time = None

    def advance(self, seconds: float) -> FreeCamera | None:
        """The view after the given time, in a loop; None when it is not playing."""
        if self.time is None:
            return None
        self.time = (self.time + seconds) % self.seconds
        return self.at(self.time)

    def at(self, seconds: float) -> FreeCamera:
        """The view at a time of the path; there must be at least two keys."""
        steps = 1 + round(self.seconds * FPS)
        number = round(min(max(seconds / self.seconds, 0.0), 1.0) * (steps - 1))
        poses = interpolate_poses(torch.stack([key.camtoworld for key in self.keys]), steps)
        share = number / (steps - 1) * (len(self.keys) - 1)
        first = min(int(share), len(self.keys) - 2)
        near, far = self.keys[first], self.keys[first + 1]
        fov = near.fov_deg + (share - first) * (far.fov_deg - near.fov_deg)
        distance = math.exp((1 - share + first) * math.log(near.distance) + (share - first) * math.log(far.distance))
        return replace(near, camtoworld=poses[number], fov_deg=fov, distance=distance)

    def points(self) -> Float[Tensor, "n 3"] | None:
        """Points along the path, for drawing; None with fewer than two keys."""
        if len(self.keys) < 2:
            return None
        poses = torch.stack([key.camtoworld for key in self.keys])
        try:
            return interpolate_poses(poses, 16 * len(poses))[:, :3, 3].float()
        except InputError:  # all keys are equal
            return None

    def save(self, path: Path, size: tuple[int, int]) -> None:
        """Writes the keys as a cameras.json, for images of a size.

        Raises:
            InputError: No keys.
        """
        if not self.keys:
            raise InputError("the camera path has no keys; add views")
        path.parent.mkdir(parents=True, exist_ok=True)
        first, *others = [key.camera(*size) for key in self.keys]
        first.merge(*others).save(path)

    def load(self, path: Path, up: Float[Tensor, "3"], distance: float) -> None:
        """Loads the cameras of a file as the keys.

        Args:
            path: A cameras.json.
            up: Up direction of the views.
            distance: Distance from the views to their pivots [m].

        Raises:
            Vision3DError: The file cannot be read.
        """
        if path.suffix.lower() != ".json":
            raise InputError(f"{path}: is not a cameras file; want a cameras.json")
        cameras = Cameras.load(path).validate()
        self.keys = tuple(
            FreeCamera.of_camera(camera, up, distance, (int(camera.width), int(camera.height))) for camera in cameras
        )
        self.time = None
