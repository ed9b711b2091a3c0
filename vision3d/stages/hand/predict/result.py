"""A hand that was found: joints, mesh and position in the camera's space."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.scene.mesh import Mesh
from vision3d.scene.skin import SkinnedMesh
from vision3d.stages.hand.joints import NAMES
from vision3d.stages.hand.predict.fitting import skinned_mesh
from vision3d.stages.hand.template import HandTemplate, Side


@dataclass(frozen=True, eq=False)
class HandResult:
    """One hand of an image. 3D in the frame of the image's camera: x right, y down, z forward, meters."""

    joints_2d: Float[Tensor, "21 2"]
    """Joints in the order of FreiHAND [px]; pixel centers at half-integers."""
    joints_3d: Float[Tensor, "21 3"]
    """Joints [m]."""
    vertices: Float[Tensor, "778 3"]
    """Vertices of the template of this side [m]."""
    translation: Float[Tensor, "3"]
    """Position of the root joint, the MCP joint of the middle finger [m]."""
    side: Side
    """right or left."""
    score: float
    """Probability that there is a hand times the mean confidence of its joints, in [0, 1]; 1 if the weights predict neither."""
    confidence: Float[Tensor, "21"]
    """Confidence of each 2D joint, in [0, 1]."""
    K: Float[Tensor, "3 3"]
    """Intrinsics of the image [px]."""
    crop: tuple[float, float, float, float]
    """The square that the network saw: center x, y and side [px], and its rotation from right to down [rad]."""
    track: int | None = None
    """Number of the hand in a video, the same in all of its frames."""

    @property
    def template(self) -> HandTemplate:
        """The template of this side."""
        return HandTemplate.load(self.side)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Box around the 2D joints, x y w h [px]."""
        low, high = self.joints_2d.amin(0).tolist(), self.joints_2d.amax(0).tolist()
        return low[0], low[1], high[0] - low[0], high[1] - low[1]

    def mesh(self) -> Mesh:
        """The surface in the camera's frame, in the color of skin; normals point outward."""
        return replace(self.template.mesh(), vertices=self.vertices)

    def to_skinned_mesh(self) -> SkinnedMesh:
        """The template with 16 joints and a clip of this pose, in the camera's frame; see `fitting.skinned_mesh`."""
        return skinned_mesh(self.template, [self.checked().vertices], [0.0])

    def record(self) -> dict[str, Any]:
        """Plain numbers for a .json."""
        x, y, side, angle = self.crop
        found: dict[str, Any] = {} if self.track is None else {"track": self.track}
        return found | {
            "side": self.side,
            "score": round(self.score, 4),
            "box": [round(value, 3) for value in self.box],
            "crop": {"center": [round(x, 3), round(y, 3)], "side": round(side, 3), "rotation": round(angle, 5)},
            "translation": _rounded(self.translation, 6),
            "joints_2d": _rounded(self.joints_2d, 3),
            "joints_3d": _rounded(self.joints_3d, 6),
            "confidence": _rounded(self.confidence, 4),
        }

    def checked(self) -> Self:
        """The same.

        Raises:
            InputError: A number is not finite, so that no file could hold it.
        """
        for name in ("joints_2d", "joints_3d", "vertices", "translation"):
            values = getattr(self, name)
            if not bool(values.isfinite().all()):
                rows = (~values.isfinite()).reshape(len(values), -1).any(1)
                which = NAMES[int(rows.nonzero()[0])] if len(values) == len(NAMES) else f"row {int(rows.nonzero()[0])}"
                raise InputError(f"hand: {name} of {which} is not finite; nothing can be written")
        return self

    def same_box(self, other: "HandResult") -> float:
        """IoU of the boxes of the joints."""
        return box_overlap(self.box, other.box)


def box_overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """IoU of two boxes x y w h; 0 if both are empty."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0.0) * max(height, 0.0)
    union = a[2] * a[3] + b[2] * b[3] - both
    return both / union if union > 0 else 0.0


def _rounded(values: Tensor, digits: int) -> Any:
    return torch.round(values.double(), decimals=digits).tolist()
