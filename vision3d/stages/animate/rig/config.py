"""Options of `animate rig`."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from vision3d.core.errors import ConfigError, nearest_names
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_each
from vision3d.geometry.choices import EULER_ORDERS, SkinningMethod


@dataclass(frozen=True)
class RigConfig:
    """Pose a mesh with joints or play an animation on it, and write images, splats and files."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("clip", "pose", "render"),
        "pose and skinning": ("order", "axes", "scale", "method", "blend"),
        "video": ("video", "video_size", "fps", "frames", "turns", "up", "azimuth", "elevation", "zoom", "fov"),
        "rendering": ("per_face", "shading", "background", "device"),
    }

    clip: str | None = None
    """Clip of the file to play [default: the first one, unless there is a pose or a motion]."""
    pose: tuple[str, ...] = ()
    """Joint rotations, on top of the rest pose or the clip: JOINT=A,B,C in degrees, one or more."""
    order: str = "XYZ"
    """Axes of the three angles, in order: upper-case letters for axes that move with the joint, lower-case letters for fixed
    axes."""
    axes: Literal["joint", "world"] = "joint"
    """Rotate about the joint's own axes (joint), or about those of the world (world)."""
    scale: float | None = None
    """Length in the mesh per length in the motion [default: from the bones that both have]."""
    method: SkinningMethod = "lbs"
    """Skinning: linear (lbs, as in glTF viewers), dual quaternions (dqs), or a mixture of the two (hybrid)."""
    blend: float = 0.5
    """Blend for hybrid: 1 is linear, 0 dual quaternions."""
    fps: float | None = None
    """Frames per second [default: those of the clip's file if it has any, or 24]."""
    render: Literal["mesh", "gaussians"] = "mesh"
    """Render the mesh, or flat Gaussians that follow its faces."""
    per_face: Literal[1, 3, 4, 6] = 6
    """Gaussians per face."""
    shading: Literal["smooth", "flat", "none"] = "smooth"
    """Shading of the mesh: with vertex normals (smooth), with face normals (flat), or unlit (none)."""
    video: bool = True
    """Write video.mp4, and image.png for a still pose."""
    video_size: tuple[int, int] = (640, 480)
    """Width and height of the video [px]; cameras have their own."""
    frames: int = 72
    """Frames of the video of a still pose, in which the camera orbits it."""
    turns: float | None = None
    """Revolutions of the camera during the video [default: 1 around a still pose, 0 for a clip]."""
    up: Literal["x", "y", "z"] = "y"
    """Upward axis."""
    azimuth: float = -40.0
    """Initial azimuth of the camera, counter-clockwise seen from above, from x (from y if x is up) [degrees]."""
    elevation: float = 12.0
    """Elevation of the camera above the center [degrees]."""
    zoom: float = 1.0
    """Divide the distance of the camera by this."""
    fov: float = 35.0
    """Vertical field of view [degrees]."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Red, green, blue of the background in [0, 1]."""
    device: str = "auto"
    """Where to skin and render: auto, cpu or cuda."""

    def __post_init__(self) -> None:
        if self.order not in EULER_ORDERS:
            raise ConfigError("order", f"got {self.order!r}; {nearest_names(self.order, EULER_ORDERS)}")
        if self.clip is not None and not self.clip:
            raise ConfigError("clip", "got an empty name")
        checks = (
            ("scale", self.scale is None or 0 < self.scale < math.inf, "a number > 0"),
            ("blend", 0 <= self.blend <= 1, "a number in [0, 1]"),
            ("fps", self.fps is None or 0 < self.fps <= 1000, "a number in (0, 1000]"),
            ("video_size", min(self.video_size) >= 16 and max(self.video_size) <= 8192, "16 to 8192 pixels per side"),
            ("frames", 1 <= self.frames <= 100_000, "1 or more"),
            ("turns", self.turns is None or abs(self.turns) < math.inf, "a number"),
            ("azimuth", abs(self.azimuth) < math.inf, "degrees"),
            ("elevation", abs(self.elevation) <= 90, "degrees from -90 to 90"),
            ("zoom", 0 < self.zoom < math.inf, "a number > 0"),
            ("fov", 0 < self.fov < 180, "degrees between 0 and 180"),
            ("background", all(0 <= value <= 1 for value in self.background), "three numbers in [0, 1]"),
        )
        check_each(self, checks)
