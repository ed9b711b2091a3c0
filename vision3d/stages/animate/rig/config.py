"""Options of `animate rig`."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from vision3d.errors import ConfigError, nearest_names
from vision3d.geometry.choices import EULER_ORDERS, SkinningMethod
from vision3d.option_marks import HelpGroups
from vision3d.ranges import check_each


@dataclass(frozen=True)
class RigConfig:
    """Pose or play a mesh with joints, and make pictures, splats and files of it."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("clip", "pose", "render"),
        "pose and skinning": ("order", "axes", "scale", "method", "blend"),
        "video": ("video", "video_size", "fps", "frames", "turns", "up", "azimuth", "elevation", "zoom", "fov"),
        "rendering": ("per_face", "shading", "background", "device"),
    }

    clip: str | None = None
    """Clip of the file to play [default: the first one, unless there is a pose or a motion]."""
    pose: tuple[str, ...] = ()
    """Joints to turn, from their rest or on top of the clip: JOINT=A,B,C with angles in degrees, several after each other."""
    order: str = "XYZ"
    """About which axes the three angles turn, one after the other: capital letters about axes that turn along, small ones about
    fixed axes."""
    axes: Literal["joint", "world"] = "joint"
    """The axes are the joint's own (joint), or those of the world as the joint rests in it (world)."""
    scale: float | None = None
    """Length of the mesh for a length of the motion [default: by the bones that both have]."""
    method: SkinningMethod = "lbs"
    """Skinning: linear (lbs, what glTF viewers show), dual quaternions (dqs), or between the two (hybrid)."""
    blend: float = 0.5
    """Between the two for hybrid: 1 is linear, 0 dual quaternions."""
    fps: float | None = None
    """Frames per second [default: those of the clip's file where it says so, or 24]."""
    render: Literal["mesh", "gaussians"] = "mesh"
    """Pictures show the mesh, or flat Gaussians that follow its faces."""
    per_face: Literal[1, 3, 4, 6] = 6
    """Gaussians on each face."""
    shading: Literal["smooth", "flat", "none"] = "smooth"
    """Of the mesh: lit with normals of the vertices or of the faces, or in its own colours."""
    video: bool = True
    """Write video.mp4, and for a still pose picture.png beside it."""
    video_size: tuple[int, int] = (640, 480)
    """Width and height of the video [px]; that of the cameras where there are any."""
    frames: int = 72
    """Frames of the video of a still pose, whose camera goes round it."""
    turns: float | None = None
    """Rounds of the camera during the video [default: 1 round a still pose, 0 for a clip]."""
    up: Literal["x", "y", "z"] = "y"
    """Axis that is up."""
    azimuth: float = -40.0
    """Where the camera stands at first, counter-clockwise seen from above, from x (from y where x is up) [degrees]."""
    elevation: float = 12.0
    """Height of the camera above the middle, seen from there [degrees]."""
    zoom: float = 1.0
    """Divides the distance of the camera."""
    fov: float = 35.0
    """Field of view over the height of the picture [degrees]."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Red, green, blue in [0, 1] behind it."""
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
            ("video_size", min(self.video_size) >= 16 and max(self.video_size) <= 8192, "16 to 8192 pixels a side"),
            ("frames", 1 <= self.frames <= 100_000, "1 or more"),
            ("turns", self.turns is None or abs(self.turns) < math.inf, "a number"),
            ("azimuth", abs(self.azimuth) < math.inf, "degrees"),
            ("elevation", abs(self.elevation) <= 90, "degrees from -90 to 90"),
            ("zoom", 0 < self.zoom < math.inf, "a number > 0"),
            ("fov", 0 < self.fov < 180, "degrees between 0 and 180"),
            ("background", all(0 <= value <= 1 for value in self.background), "three numbers in [0, 1]"),
        )
        check_each(self, checks)
