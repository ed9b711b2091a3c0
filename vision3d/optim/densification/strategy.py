"""The interface of densification strategies, and shared functions."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError
from vision3d.optim.adam import SplatAdam

GROUPS = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")
OPACITY_EPS = 1e-6  # opacities are clamped this far from 0 and 1, where logits are infinite


class Strategy(Protocol):
    """The two hooks of a training step, and the state needed to resume a run.

    A strategy changes `params` through its `SplatAdam`, so that the moments follow every row. All randomness comes from a
    `torch.Generator` on the CPU, or from its seed: the same seed gives the same scene on every device and in every process.
    """

    def before_backward(self, info: Mapping[str, Any]) -> None:
        """Prepare the outputs of the rasterizer, before `loss.backward()`."""
        ...

    def after_step(
        self,
        step: int,
        params: dict[str, Tensor],
        optimizer: SplatAdam,
        info: Mapping[str, Any],
        lr: float,
        *,
        progress: float | None = None,
    ) -> dict[str, int]:
        """Change the Gaussians after `optimizer.step()`.

        Args:
            step: Number of this step, starting at 0.
            params: The Gaussians, `optimizer.params`: means, quats, log_scales, opacity_logits, sh0, shN and any more.
            optimizer: Their optimizer.
            info: Third value of `rasterize` for this step.
            lr: Current learning rate of the means.
            progress: Completed fraction of the run, for budgets in minutes; None derives it from the step number.

        Returns:
            Numbers of relocated, added, duplicated, split and pruned Gaussians; empty if nothing changed.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors needed for exact resume."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        ...


class Schedule:
    """When a strategy acts: from `start` to `stop` as fractions of the run, every `every` steps."""

    def __init__(self, total_steps: int | None, every: int, start: float, stop: float) -> None:
        if total_steps is not None and total_steps < 1:
            raise ConfigError("total_steps", f"got {total_steps}, want at least 1")
        if every < 1:
            raise ConfigError("refine_every", f"got {every}, want at least 1")
        if not 0 <= start <= stop <= 1:
            raise ConfigError("refine_start", f"got {start} and stop {stop}, want 0 <= start <= stop <= 1")
        self.total_steps, self.every, self.start, self.stop = total_steps, every, start, stop

    def progress(self, step: int, progress: float | None) -> float:
        """The given progress, or that of the step."""
        if progress is not None:
            return progress
        if self.total_steps is None:
            raise InputError("progress: got None without total_steps; give the strategy one of the two")
        return step / self.total_steps

    def acts(self, step: int, progress: float) -> bool:
        """Whether this step refines. Step 0 never does."""
        return step > 0 and step % self.every == 0 and self.start < progress < self.stop


def require_groups(params: Mapping[str, Tensor], optimizer: SplatAdam) -> None:
    """Raise an error for parameters that are not the optimizer's, or lack a group.

    Raises:
        InputError: The parameters are invalid.
    """
    if params is not optimizer.params:
        raise InputError("params: want the dict of the optimizer (optimizer.params)")
    missing = set(GROUPS[:4]) - set(params)
    if missing:
        raise InputError(f"params: got {sorted(params)}, want also {sorted(missing)}")


def draw_rows(weights: Float[Tensor, " n"], count: int, generator: torch.Generator) -> Int64[Tensor, " count"]:
    """Row indices drawn with replacement, with probabilities proportional to `weights` (float64 inside, any n)."""
    cumulative = weights.detach().double().cumsum(0)
    points = torch.rand(count, generator=generator, dtype=torch.float64).to(weights.device) * cumulative[-1]
    return torch.searchsorted(cumulative, points, right=True).clamp(max=len(weights) - 1)


def normal_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of this tensor's shape, drawn on the CPU so that every device gets the same values."""
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)


def cpu_generator(generator: torch.Generator | None) -> torch.Generator:
    """The given generator, or a new one with seed 0.

    Raises:
        InputError: It is not on the CPU.
    """
    if generator is None:
        return torch.Generator().manual_seed(0)
    if generator.device.type != "cpu":
        raise InputError(f"generator: on {generator.device}, want one on the CPU")
    return generator
