"""How far layers are from moving with the picture, and why: samples, grid, border."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.geometry.groups.haar import GroupSamples, sample_group
from vision3d.stages.equivariant.layers import LiftConv
from vision3d.stages.equivariant.networks import PlanarNet
from vision3d.stages.equivariant.warps import warp


def homogeneous(linear: Float64[Tensor, "2 2"]) -> Float64[Tensor, "3 3"]:
    """The map of points about the centre as a homogeneous one."""
    out = torch.eye(3, dtype=torch.float64)
    out[:2, :2] = linear
    return out


def lift_error(
    layer: LiftConv,
    images: Float[Tensor, "n h w"],
    linear: Float64[Tensor, "2 2"],
    count: int,
    *,
    spread: float = 0.158,
    pooling: str = "mean",
    same_samples: bool = False,
    generator: torch.Generator | None = None,
) -> float:
    """Relative change of pooled features when pictures are warped by a linear map.

    Features of the lift are pooled over `count` samples and the plane; the root of the mean square of what changes is given in units
    of the deviation of the features over the pictures. Two independent sets of samples are used: one set for both
    pictures would hide the error of the mean over the group.

    Args:
        layer: The lift.
        images: At least two, with a border that the map does not leave.
        linear: The map.
        count: Samples of the group.
        spread: Of the samples.
        pooling: `mean` or `max`.
        same_samples: Use one set for both all the same.
        generator: Of the samples.
    """
    moved = warp(images, homogeneous(linear).expand(len(images), 3, 3))
    first = _samples(layer, count, spread, generator)
    second = first if same_samples else _samples(layer, count, spread, generator)
    with torch.no_grad():
        before, after = (_pooled(layer(x[:, None], s.to(x)), s, pooling) for x, s in ((images, first), (moved, second)))
    scale = before.std(0).square().mean().sqrt()
    return float((after - before).square().mean().sqrt() / scale)


def draw_spread(network: PlanarNet, images: Float[Tensor, "n h w"], draws: int = 5) -> float:
    """Standard deviation of the logits over draws of the samples, in units of their deviation over the pictures."""
    with torch.no_grad():
        logits = torch.stack([network(images) for _ in range(draws)])
    return float(logits.std(0).square().mean().sqrt() / logits.mean(0).std(0).square().mean().sqrt())


def _samples(layer: LiftConv, count: int, spread: float, generator: torch.Generator | None) -> GroupSamples:
    return sample_group(layer.group, count, spread=spread, generator=generator)


def _pooled(features: Float[Tensor, "b c n h w"], samples: GroupSamples, pooling: str) -> Float[Tensor, "b c"]:
    """Over the group and the plane. The integral of features over the plane carries det h, which the mean takes out."""
    plane = torch.relu(features)
    if pooling == "max":
        return plane.amax((-3, -2, -1))
    weights = samples.weights.to(features)
    return (plane.mean((-2, -1)) * weights).sum(-1) / weights.sum()
