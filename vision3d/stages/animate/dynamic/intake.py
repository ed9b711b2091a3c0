"""When the next frame comes in: once the newest one is found again, or its share of the steps is spent."""

from collections.abc import Sequence
from typing import Any

_FEWEST = 3  # steps of a frame that is found again
_MOST_SHARES = 2.0  # of the steps of a frame, where others needed fewer
_FIRST_SHARES = 2.0  # for the first frame of a clip in which the mesh is nowhere at rest
_NEAR, _LOST = 0.0, 0.1  # IoU below that of the frames before: found again, and lost


class Intake:
    """Which frames are fitted to so far.

    Args:
        order: In which frames come in; `begin_at` changes it.
        steps: For all of them; 0: all are in from the start.
        first_is_given: The first frame is at rest and needs no steps.
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
        """Frames that are in, in their order in time."""
        return sorted(self.order[: self.num_active])

    @property
    def newest(self) -> int:
        return self.order[self.num_active - 1]

    @property
    def share(self) -> float:
        """Steps that the newest frame gets at least, unless it is found before."""
        return max(self.usual_share * (self.first if self.num_active == 1 else 1.0), 1.0)

    @property
    def is_lost(self) -> bool:
        """Whether the newest frame has had half of its share and is still worse than those before."""
        return self.spent == round(self.share / 2) and bool(self.found) and self.iou < self._usual() - _LOST

    def begin_at(self, frame: int) -> None:
        """Let frames in by their distance from this one."""
        self.order.sort(key=lambda other: (abs(other - frame), other))

    def advance(self) -> int | None:
        """Go on to the next step: the frame that comes in at it, if one does."""
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
        """What a step gave for the newest frame."""
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
        # What others left is there for the hard ones; those that wait keep their shares.
        saved = self.left + self.spent - self.usual_share * (len(self.order) - self.num_active)
        if self.spent >= min(max(self.share, saved), _MOST_SHARES * self.share) or self.left <= 0:
            return True
        return self.spent >= _FEWEST and bool(self.found) and self.iou >= self._usual() - _NEAR
