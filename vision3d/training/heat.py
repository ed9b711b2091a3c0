"""Heat maps of centers: their loss."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def heat_focal(
    logits: Float[Tensor, "n k h w"], heat: Float[Tensor, "n k h w"], counted: Float[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """Focal loss of heat maps (Zhou et al. 2019, eq. 1): exponent 2, weight (1 - heat)^4 of the cells near a center.

    Args:
        logits: Of the probability of a center.
        heat: 1 at centers, lower around them.
        counted: 0 where cells that are no centers do not count, else 1.
    """
    score = logits.sigmoid()
    is_center = (heat == 1).to(score)
    near = (1 - heat) ** 4 * (1 - is_center) * counted[:, None]
    positive = functional.logsigmoid(logits) * (1 - score) ** 2 * is_center
    negative = functional.logsigmoid(-logits) * score**2 * near
    return -(positive.sum() + negative.sum()) / is_center.sum().clamp(min=1)
