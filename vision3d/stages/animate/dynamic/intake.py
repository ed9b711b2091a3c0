"""Schedule for adding frames: the next one is added when the newest is matched, or its share of the steps is used up."""

from collections.abc import Sequence
from typing import Any

_MIN = 3  # minimum steps of a frame that is matched
_MAX_SHARES = 2.0  # maximum shares of the steps for a frame, if others needed fewer
_FIRST_SHARES = 2.0  # for the first frame of a clip without a rest pose
_NEAR, _LOST = 0.0, 0.1  # IoU below that of previous frames: matched, and lost


class Intake:
    """The frames that are fitted so far.

    Args:
        order: Order in which frames are added; `begin_at` changes it.
        steps: Total number of steps for adding; 0: all frames from the start.
        first_is_given: Whether the first frame is the rest pose and needs no steps.
    """

    def __init__(self, order: Sequence[int], steps: int, first_is_given: bool) -> None:
        self.order = list(order)
        self.left, self.spent, self.iou = steps, 0, 0.0
        self.first = 0.0 if first_is_given else _FIRST_SHARES
        self.usual_share = max(int(steps / max(len(self.order) - 1 + self.first, 1e-9)), 1)
        self.found: list[float] = []
        self.num_active = 0 if steps else len(self.order)
        self.is_done = not steps

    @property
    def active(self) -> list[int]:
        """Active frames, in temporal order."""
        return sorted(self.order[: self.num_active])

    @property
    def newest(self) -> int:
        return self.order[self.num_active - 1]

    @property
    def share(self) -> float:
        """Minimum number of steps for the newest frame, unless it is matched earlier."""
        return max(self.usual_share * (self.first if self.num_active == 1 else 1.0), 1.0)

    @property
    def is_lost(self) -> bool:
        """Whether the newest frame has used half of its share and is still worse than previous frames."""
        return self.spent == round(self.share / 2) and bool(self.found) and self.iou < self._usual() - _LOST

    def begin_at(self, frame: int) -> None:
        """Add frames in order of their distance from this one."""
        self.order.sort(key=lambda other: (abs(other - frame), other))

    def advance(self) -> int | None:
        """Advance to the next step; returns the frame that is added, if any."""
        if self.is_done or (self.num_active and not self._is_found()):
            return None
        if self.num_active:
            self.found.append(self.iou)
        if self.num_active == len(self.order):
            self.is_done = True
            return None
        self.num_active, self.spent, self.iou = self.num_active + 1, 0, 0.0
        return self.newest

    def record(self, iou: float) -> None:
        """Record the IoU of the newest frame after a step."""
        if not self.is_done:
            self.left, self.spent, self.iou = self.left - 1, self.spent + 1, iou

    def state_dict(self) -> dict[str, Any]:
        names = ("order", "left", "spent", "iou", "found", "num_active", "is_done")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def _usual(self) -> float:
        return sorted(self.found)[len(self.found) // 2]

    def _is_found(self) -> bool:
        if self.num_active == 1 and not self.first:
            return self.spent >= 1
        # Steps left over by other frames go to difficult ones; waiting frames keep their shares.
        saved = self.left + self.spent - self.usual_share * (len(self.order) - self.num_active)
        if self.spent >= min(max(self.share, saved), _MAX_SHARES * self.share) or self.left <= 0:
            return True
        return self.spent >= _MIN and bool(self.found) and self.iou >= self._usual() - _NEAR
