"""Planes fitted to one object by gradient descent, the decoder frozen.

Many steps are what the encoder is measured against; a few refine its planes.
"""

import math
import time
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError, NumericalError
from vision3d.core.progress import Progress, ProgressCallback, silent
from vision3d.stages.edit.network.planes import PlaneNet

_BATCH = 8192
"""Points of a step."""
_ROUGH = 1e-3
"""Weight of the squared differences of neighboring texels."""
_NOISE = 0.01
"""Standard deviation of the places on the surface: the field around it has its colors."""
_REFINING = 0.2
"""Rate of the first step where a few refine the planes of the encoder."""
_LAST_RATE = 0.05
"""Rate at the end, as a share of that at the beginning."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What is known of an object, in the cube [-1, 1]^3."""

    places: Float[Tensor, "n 3"]
    """On the surface."""
    values: Float[Tensor, "n 5"]
    """Red, green, blue, metallic, roughness there."""
    queries: Float[Tensor, "m 3"] | None = None
    """Points in the cube; None: the density stays as it is."""
    inside: Bool[Tensor, " m"] | None = None
    """Which of them are in the object."""
    weights: Float[Tensor, " n"] | None = None
    """How often the places are drawn, relative to each other; all alike when None."""


def fit_planes(
    network: PlaneNet,
    first: Float[Tensor, "3 c h w"],
    observed: Observed,
    *,
    steps: int = 400,
    minutes: float = 0.0,
    lr: float = 0.03,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Float[Tensor, "3 c h w"]:
    """Planes whose decoded colors, and inside, are those of an object.

    Adam on the texels: L1 of the values at places around the surface, cross-entropy of being inside, squared differences of
    neighboring texels.

    Args:
        network: Has the decoder.
        first: Planes to begin with, such as the encoder's, or zeros.
        observed: The object.
        steps: Number of steps.
        minutes: If positive, the time to take in place of `steps`.
        lr: Rate of the first step, which falls by a cosine to a twentieth.
        seed: Of the points of each step.
        progress: Progress callback.

    Raises:
        InputError: There are no places, other numbers of values or weights, or `queries` without `inside`.
        NumericalError: The loss is not finite.
    """
    if not len(observed.places) or len(observed.places) != len(observed.values):
        raise InputError(f"observed: got {len(observed.places)} places and {len(observed.values)} values, want as many, not 0")
    if observed.weights is not None and len(observed.weights) != len(observed.places):
        raise InputError(f"observed: got {len(observed.weights)} weights of {len(observed.places)} places, want as many")
    if (observed.queries is None) != (observed.inside is None):
        raise InputError("observed: got one of queries and inside, want both or none")
    generator = torch.Generator().manual_seed(seed)
    density = network.config.density_channels
    planes = first.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([planes], lr=lr, betas=(0.9, 0.99))
    started, share, step = time.perf_counter(), 0.0, 0
    with Progress(steps, "fit planes", progress) as bar:
        while share < 1:
            optimizer.param_groups[0]["lr"] = lr * (_LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * share)) / 2)
            loss = _loss(network, planes, observed, generator)
            if not bool(loss.isfinite()):
                raise NumericalError(step, "loss of the planes")
            (gradient,) = torch.autograd.grad(loss, planes)
            if observed.queries is None:
                gradient[:, :density] = 0
            planes.grad = gradient
            optimizer.step()
            step += 1
            share = (time.perf_counter() - started) / (60 * minutes) if minutes > 0 else step / steps
            bar.update(min(steps, round(share * steps)), loss=float(loss.detach()))
    found = planes.detach()
    return found if observed.queries is not None else torch.cat([first[:, :density], found[:, density:]], 1)


@torch.enable_grad()
def refined_planes(network: PlaneNet, first: Float[Tensor, "3 c h w"], observed: Observed, steps: int) -> Tensor:
    """The planes of the encoder after a few steps towards the colors of its points; the channels of the density stay.

    Args:
        network: Has the decoder.
        first: The planes of the encoder.
        observed: The points; queries are not used.
        steps: Number of steps.
    """
    own = replace(observed, queries=None, inside=None)
    return fit_planes(network, first, own, steps=steps, lr=_REFINING, progress=silent)


def _loss(network: PlaneNet, planes: Tensor, observed: Observed, generator: torch.Generator) -> Tensor:
    count = len(observed.places)
    if observed.weights is None:
        rows = torch.randint(count, (_BATCH,), generator=generator)
    else:
        rows = torch.multinomial(observed.weights, _BATCH, replacement=True, generator=generator)
    places = observed.places[rows] + _NOISE * torch.randn(_BATCH, 3, generator=generator)
    values = network.values(planes[None], places.clamp(-1, 1).to(planes)[None])[0]
    loss = (values - observed.values[rows].to(planes)).abs().mean()
    if observed.queries is not None and observed.inside is not None:
        rows = torch.randint(len(observed.queries), (_BATCH,), generator=generator)
        logits = network.logits(planes[None], observed.queries[rows].to(planes)[None])[0]
        loss = loss + 0.2 * torch.nn.functional.binary_cross_entropy_with_logits(logits, observed.inside[rows].to(logits))
    return loss + _ROUGH * (planes.diff(dim=2).square().mean() + planes.diff(dim=3).square().mean())
