"""Equivariance errors of layers, and their causes: samples, grid, border."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.geometry.groups import so2
from vision3d.geometry.groups.haar import Angles, GroupSamples, sample_group
from vision3d.stages.equivariant.classifier import Classifier
from vision3d.stages.equivariant.data import DigitData, unpadded
from vision3d.stages.equivariant.layers import LiftConv
from vision3d.stages.equivariant.networks import PlanarNet
from vision3d.stages.equivariant.warps import affnist_like, warp

Pooling = Literal["mean", "max"]
_SEED = 7  # seed of the warps and samples of a report


def homogeneous(linear: Float64[Tensor, "2 2"]) -> Float64[Tensor, "3 3"]:
    """A linear map about the center as a homogeneous matrix."""
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
    pooling: Pooling = "mean",
    plane: Pooling = "mean",
    same_samples: bool = False,
    angles: Angles = "even",
    generator: torch.Generator | None = None,
) -> float:
    """Relative change of pooled features when images are warped by a linear map.

    Features of the lift, after ReLU, are pooled over the plane and over `count` samples; the root mean square of their change
    is divided by their standard deviation over the images. Two independent sets of samples are used: one set for both images
    would hide the sampling error of the mean over the group.

    Args:
        layer: The lift.
        images: At least two, with a border that is large enough for the map.
        linear: The map.
        count: Number of group samples.
        spread: Spread of the samples.
        pooling: Pooling over the group.
        plane: Pooling over the plane; the maximum is more sensitive to the grid.
        same_samples: Use one set of samples for both images.
        angles: Sampling of rotations.
        generator: Random generator.
    """
    moved = warp(images, homogeneous(linear).expand(len(images), 3, 3))
    first = _samples(layer, count, spread, angles, generator)
    second = first if same_samples else _samples(layer, count, spread, angles, generator)
    with torch.no_grad():
        before, after = (_pooled(layer(x[:, None], s.to(x)), s, pooling, plane) for x, s in ((images, first), (moved, second)))
    scale = before.std(0).square().mean().sqrt()
    return float((after - before).square().mean().sqrt() / scale)


def logit_change(classifier: Classifier, upright: Float[Tensor, "n h w"], warped: Float[Tensor, "n h w"]) -> float:
    """Root mean square change of the logits by warping, relative to their standard deviation over the digits."""
    before, after = classifier.logits(upright), classifier.logits(warped)
    return float((after - before).square().mean().sqrt() / before.std(0).square().mean().sqrt())


def report(classifier: Classifier, data: DigitData, count: int = 256) -> dict[str, float]:
    """Equivariance of a classifier on held-out digits, on the CPU.

    The change of the logits by warps; for sampled layers the error of the mean over the group under a rotation of 20 degrees,
    and the change by another draw of samples.
    """
    classifier.network.cpu().eval()
    upright = data.centred.images[:count]
    warps = affnist_like(unpadded(data.centred[torch.arange(len(upright))]), copies=1, seed=_SEED)
    network = classifier.network
    found = {"logit_change": logit_change(classifier, upright, warps.batch(slice(None))[0])}
    if isinstance(network, PlanarNet):
        turn = so2.exp(torch.tensor(math.radians(20), dtype=torch.float64))
        generator = torch.Generator().manual_seed(_SEED)
        for samples in (2, 8, 32):
            options = {"spread": classifier.config.spread, "generator": generator}
            found[f"lift_error_{samples}_samples"] = lift_error(network.lift, upright[:16], turn, samples, **options)
        found["draw_spread"] = draw_spread(network, upright[:64])
    return {name: round(value, 4) for name, value in found.items()}


def draw_spread(network: PlanarNet, images: Float[Tensor, "n h w"], draws: int = 5) -> float:
    """Standard deviation of the logits over draws of the samples, relative to their standard deviation over the images."""
    with torch.no_grad():
        logits = torch.stack([network(images) for _ in range(draws)])
    return float(logits.std(0).square().mean().sqrt() / logits.mean(0).std(0).square().mean().sqrt())


def _samples(layer: LiftConv, count: int, spread: float, angles: Angles, generator: torch.Generator | None) -> GroupSamples:
    return sample_group(layer.group, count, spread=spread, angles=angles, generator=generator)


def _pooled(
    features: Float[Tensor, "b c n h w"], samples: GroupSamples, pooling: Pooling, plane: Pooling
) -> Float[Tensor, "b c"]:
    features = torch.relu(features)
    features = features.mean((-2, -1)) if plane == "mean" else features.amax((-2, -1))
    if pooling == "max":
        return features.amax(-1)
    weights = samples.weights.to(features)
    return (features * weights).sum(-1) / weights.sum()
