"""Focal losses."""

from torch import Tensor
from torch.nn import functional


def class_focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Focal loss of each value (Lin et al. 2017, eq. 5): exponent 2, weight 0.25 of ones and 0.75 of zeros."""
    score = logits.sigmoid()
    positive = -0.25 * functional.logsigmoid(logits) * (1 - score) ** 2
    negative = -0.75 * functional.logsigmoid(-logits) * score**2
    return positive * wanted + negative * (1 - wanted)
