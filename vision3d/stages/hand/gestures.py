"""Named poses of the hand, as the 20 angles of `HandTemplate.pose`."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, nearest_names

_OPEN, _SOFT, _FIST = (0, 0, 0, 0), (14, 0, 22, 12), (80, 0, 95, 60)
_TUCKED = (30, 48, -8, 60)

GESTURES: dict[str, tuple[tuple[float, ...], ...]] = {
    "rest": (_OPEN,) * 5,
    "flat": ((-6, -10, 0, 0), (-2, -3, 0, 0), _OPEN, (0, 3, 0, 0), (0, 8, 0, 0)),
    "spread": ((-16, 0, -5, 0), (-4, 9, 0, 0), _OPEN, (-2, -9, 0, 0), (-4, -13, 0, 0)),
    "relaxed": ((4, 10, 8, 10), _SOFT, (20, 0, 26, 14), (24, 1, 30, 16), (26, 4, 30, 16)),
    "fist": (_TUCKED, _FIST, _FIST, _FIST, (80, 3, 92, 60)),
    "point": (_TUCKED, (4, 0, 4, 2), _FIST, _FIST, (80, 3, 92, 60)),
    "pinch": ((16, 49, -4, 0), (57, -11, 47, 0), (36, 0, 42, 22), (30, 0, 38, 20), (24, 0, 34, 18)),
    "ok": ((15, 26, 10, 11), (44, -10, 59, 34), (12, 0, 14, 8), (6, -2, 10, 6), (2, -4, 8, 5)),
    "victory": (_TUCKED, (2, 8, 3, 2), (2, -7, 3, 2), _FIST, (80, 3, 92, 60)),
    "thumb_up": ((-18, -8, -8, 0), _FIST, _FIST, _FIST, (80, 3, 92, 60)),
    "grasp": ((8, 38, 14, 20), (40, 3, 42, 24), (42, 0, 44, 26), (44, -2, 46, 26), (46, -4, 44, 26)),
}
"""Name -> angles of the thumb (CMC flexion and abduction, MCP, IP) and of each finger (MCP flexion and abduction, PIP, DIP),
in degrees."""


def gesture(name: str) -> Float[Tensor, "20"]:
    """The angles of a named pose [rad].

    Raises:
        InputError: Unknown name; the message lists those that are close.

    Example:
        >>> gesture("fist").shape
        torch.Size([20])
    """
    if name not in GESTURES:
        raise InputError(f"gesture: got {name!r}; {nearest_names(name, GESTURES)}")
    return torch.tensor(GESTURES[name], dtype=torch.float32).flatten().deg2rad()
