"""The interface of guidance for stages, and its running time."""

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
"""A CPU run that would take longer than this [s] raises an error unless forced."""


@runtime_checkable
class Guidance(Protocol):
    """Gradient for images of an object from other sides, given reference images of it."""

    label: str
    """Name of the guidance, for reports."""

    def loss(self, frames: Float[Tensor, "b h w 3"], views: RelativeViews, generator: torch.Generator) -> Float[Tensor, ""]:
        """A loss whose gradient is the guidance.

        Args:
            frames: Images on white in [0, 1].
            views: Viewing directions relative to the reference.
            generator: Random generator of the noise, on the CPU.
        """
        ...


@dataclass(frozen=True, eq=False)
class Guide:
    """A guidance with its reference camera."""

    guidance: Guidance
    orbit: Orbit
    reference: Cameras
    """The camera of the reference images."""


def check_time(guidance: Guidance, steps: int, count: int, size: int, device: torch.device, *, force: bool) -> float:
    """Measure the time of one guidance step in seconds; raises an error for long runs on a CPU.

    Args:
        guidance: The guidance.
        steps: Steps of the run.
        count: Images per step.
        size: Size of the images [px].
        device: Where it runs; on a GPU nothing is measured, and the result is 0.
        force: Do not raise an error.

    Raises:
        BackendError: The steps would take longer than `LONG_S`; the message has the estimate.
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
