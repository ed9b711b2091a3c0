"""Cubic Hermite splines through values at keys (Catmull-Rom tangents)."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def spline(
    keys: Float64[Tensor, " keys"], values: Float[Tensor, "keys ..."], times: Float64[Tensor, " times"]
) -> Float[Tensor, "times ..."]:
    """The values at times between keys; clamped to the first and last key.

    Args:
        keys: Times of the values [s], ascending.
        values: Values at the keys.
        times: Times to evaluate [s].
    """
    if len(keys) == 1:
        return values.expand(len(times), *values.shape[1:])
    after = torch.searchsorted(keys, times.contiguous(), right=True).clamp(1, len(keys) - 1)
    before = after - 1
    shape = (-1, *[1] * (values.ndim - 1))
    gap = keys[after] - keys[before]
    s = ((times - keys[before]) / gap).clamp(0, 1).to(values).view(shape)
    gap = gap.to(values).view(shape)
    low, high = _tangents(keys, values, before), _tangents(keys, values, after)
    s2, s3 = s.square(), s**3
    ends = (2 * s3 - 3 * s2 + 1) * values[before] + (3 * s2 - 2 * s3) * values[after]
    return ends + gap * ((s3 - 2 * s2 + s) * low + (s3 - s2) * high)


def _tangents(keys: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    """Slopes from the previous key to the next one; at the ends those of the first and the last gap."""
    low, high = (rows - 1).clamp(min=0), (rows + 1).clamp(max=len(keys) - 1)
    gaps = (keys[high] - keys[low]).to(values).view(-1, *[1] * (values.ndim - 1))
    return (values[high] - values[low]) / gaps


def extrapolated(
    keys: Float64[Tensor, " keys"], values: Float[Tensor, "keys ..."], time: float, other: float, before: float, limit: float
) -> Tensor:
    """The value at `other`, extrapolated to `time` by its change since `before`, over at most `limit` such gaps."""
    source, earlier = torch.searchsorted(keys, keys.new_tensor([other, before])).tolist()
    share = 0.0 if source == earlier else (time - other) / (other - before)
    return values[source] + min(share, limit) * (values[source] - values[earlier])
