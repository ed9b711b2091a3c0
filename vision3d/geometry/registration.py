"""The rotation, rigid motion or similarity that aligns points with other points; Kabsch 1976, Umeyama 1991."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.geometry.procrustes import special_orthogonal

Points = Float[Tensor, "*batch n d"]
Weights = Float[Tensor, "*#batch n"] | None


def kabsch(
    source: Points, target: Points, weights: Weights = None
) -> tuple[Float[Tensor, "*batch d d"], Float[Tensor, "*batch d"]]:
    """Rotation R and translation t with the smallest (weighted) sum of |R x + t - y|^2; never a reflection.

    Batched, for any dimension d >= 2, with finite gradients. If the points do not determine the rotation (all on one line in
    3D, a single point, zero weights), one of the optima is returned, and the undetermined part gets no gradient.

    Args:
        weights: Non-negative; equal weights when None.

    Raises:
        ShapeError: The points do not have equal shapes.
    """
    _, rotmats, translations = _fit(source, target, weights, with_scale=False)
    return rotmats, translations


def umeyama(
    source: Points, target: Points, weights: Weights = None
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch d d"], Float[Tensor, "*batch d"]]:
    """Scale s, rotation R and translation t with the smallest (weighted) sum of |s R x + t - y|^2.

    As `kabsch`; the scale is 1 if all source points coincide. It is 0 if the best rotation does not correlate the points with
    the target at all.

    Example:
        >>> x = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
        >>> umeyama(x, 3 * x + 1)[0].round(decimals=4)
        tensor(3.)
    """
    return _fit(source, target, weights, with_scale=True)


def _fit(source: Tensor, target: Tensor, weights: Tensor | None, with_scale: bool) -> tuple[Tensor, Tensor, Tensor]:
    if source.shape != target.shape or source.ndim < 2 or source.shape[-1] < 2:
        raise ShapeError("target", target.shape, f"that of the source, (..., n, d >= 2), here {tuple(source.shape)}")
    if weights is None:
        weights = torch.ones_like(source[..., 0])
    total = weights.sum(-1, keepdim=True)
    shares = (weights / torch.where(total == 0, 1, total))[..., None]
    middle, target_middle = (shares * source).sum(-2), (shares * target).sum(-2)
    inner, outer = source - middle[..., None, :], target - target_middle[..., None, :]
    moments = outer.mT @ (shares * inner)
    rotmats = special_orthogonal(moments)
    scales = torch.ones_like(middle[..., 0])
    if with_scale:
        spread = (shares * inner.square()).sum((-2, -1))
        is_point = spread <= torch.finfo(spread.dtype).tiny
        ratio = (rotmats * moments).sum((-2, -1)) / torch.where(is_point, 1, spread)
        scales = torch.where(is_point, 1, ratio.clamp(min=0))
    translations = target_middle - scales[..., None] * (rotmats @ middle[..., None]).squeeze(-1)
    return scales, rotmats, translations
