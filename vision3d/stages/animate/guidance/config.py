"""Options of score distillation."""

from dataclasses import dataclass
from typing import Literal

from vision3d.core.ranges import check_each


@dataclass(frozen=True)
class SdsConfig:
    """Score distillation with a Zero123-class network."""

    scale: float = 3.0
    """Scale of classifier-free guidance: unconditional + scale (conditional - unconditional)."""
    t_min: float = 0.02
    """Minimum noise, as a fraction of the schedule."""
    t_max: float = 0.5
    """Maximum noise, as a fraction of the schedule."""
    views: int = 1
    """Images per step from random directions."""
    size: int = 256
    """Width and height of these images [px]."""
    camera: Literal["stable-zero123", "zero123"] = "stable-zero123"
    """Last number of the network's camera input: the polar angle of the reference (Stable-Zero123) or the change of distance
    (Zero123, Zero123-XL)."""

    def __post_init__(self) -> None:
        checks = (
            ("scale", 0 <= self.scale < float("inf"), "a number >= 0"),
            ("t_min", 0 <= self.t_min < 1, "a number in [0, 1)"),
            ("t_max", self.t_min <= self.t_max <= 1, "a number from t_min to 1"),
            ("views", self.views >= 1, "1 or more"),
            ("size", 16 <= self.size <= 1024, "16 to 1024"),
        )
        check_each(self, checks, group="sds.")
