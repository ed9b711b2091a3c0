"""What stages ask of a guidance, and how long it may take."""

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import BackendError
from vision3d.scene import Cameras
from vision3d.stages.animate.orbits import Orbit, RelativeViews

LONG_S = 600.0
"""A CPU run that would take longer is refused unless it is forced [s]."""


@runtime_checkable
class Guidance(Protocol):
    """Says how pictures of an object from other sides should change, given reference pictures of it."""

    label: str
    """What guides, for reports."""

    def loss(self, frames: Float[Tensor, "b h w 3"], views: RelativeViews, generator: torch.Generator) -> Float[Tensor, ""]:
        """A number whose gradient says it.

        Args:
            frames: Pictures on white in [0, 1].
            views: From where, as compared with the reference.
            generator: Of the noise, on the CPU.
        """
        ...


@dataclass(frozen=True, eq=False)
class Guide:
    """A guidance with what it needs: from where it looks."""

    guidance: Guidance
    orbit: Orbit
    reference: Cameras
    """The camera of the reference pictures."""


def check_time(guidance: Guidance, steps: int, count: int, size: int, device: torch.device, *, force: bool) -> float:
    """Seconds of one step with the guidance, measured; refuses long runs on a CPU.

    Args:
        guidance: The guidance.
        steps: Of the run.
        count: Pictures a step.
        size: Of the pictures [px].
        device: Where it runs; on a GPU nothing is measured, and the result is 0.
        force: Do not refuse.

    Raises:
        BackendError: The steps would take longer than `LONG_S`; says how long.
    """
    if device.type != "cpu":
        return 0.0
    frames = torch.full((count, size, size, 3), 0.5, requires_grad=True)
    angles = torch.zeros(count, dtype=torch.float64)
    views = RelativeViews(angles, angles, angles, 1.5, torch.zeros(count, dtype=torch.int64))
    started = time.perf_counter()
    guidance.loss(frames, views, torch.Generator().manual_seed(0)).backward()
    seconds = time.perf_counter() - started
    if steps * seconds > LONG_S and not force:
        minutes = steps * seconds / 60
        raise BackendError(
            f"guidance: one step takes {seconds:.1f} s on this CPU, {steps} steps about {minutes:.0f} minutes; "
            "want a GPU (--device cuda), fewer --steps, or --force"
        )
    return seconds
