"""Focal losses."""

from torch import Tensor
from torch.nn import functional


def heat_focal(logits: Tensor, heat: Tensor, counted: Tensor) -> Tensor:
    """Focal loss of heat maps (Zhou et al. 2019, eq. 1): exponent 2, weight (1 - heat)^4 of the cells near a center."""
    score = logits.sigmoid()
    is_center = (heat == 1).to(score)
    near = (1 - heat) ** 4 * (1 - is_center) * counted[:, None]
    positive = functional.logsigmoid(logits) * (1 - score) ** 2 * is_center
    negative = functional.logsigmoid(-logits) * score**2 * near
    return -(positive.sum() + negative.sum()) / is_center.sum().clamp(min=1)


def class_focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Focal loss of each value (Lin et al. 2017, eq. 5): exponent 2, weight 0.25 of ones and 0.75 of zeros."""
    score = logits.sigmoid()
    positive = -0.25 * functional.logsigmoid(logits) * (1 - score) ** 2
    negative = -0.75 * functional.logsigmoid(-logits) * score**2
    return positive * wanted + negative * (1 - wanted)
