"""Hands: a rigged template with joints, skin weights and anatomical limits, and shapes, gestures and colors for it."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.hand.gestures import GESTURES, gesture
    from vision3d.stages.hand.mano import Mano, read_mano
    from vision3d.stages.hand.shape import HandShape
    from vision3d.stages.hand.template import HandTemplate, PosedHand
    from vision3d.stages.hand.tone import skin_color

__all__ = ["GESTURES", "HandShape", "HandTemplate", "Mano", "PosedHand", "gesture", "read_mano", "skin_color"]

__getattr__ = lazy_names(
    __name__,
    {
        "GESTURES": ".gestures",
        "HandShape": ".shape",
        "HandTemplate": ".template",
        "Mano": ".mano",
        "PosedHand": ".template",
        "gesture": ".gestures",
        "read_mano": ".mano",
        "skin_color": ".tone",
    },
)
