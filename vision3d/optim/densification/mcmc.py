"""3D Gaussian splatting as Markov chain Monte Carlo (Kheradmand et al. 2024, arXiv 2404.09591).

A fixed budget of Gaussians explores through noise; faded ones are relocated to opaque ones such that the image hardly
changes. Train with `losses.opacity_loss` and `losses.scale_loss`, weight 0.01 each.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError
from vision3d.optim.adam import SplatAdam
from vision3d.optim.densification.noise import add_noise
from vision3d.optim.densification.strategy import OPACITY_EPS, Schedule, cpu_generator, draw_rows, require_groups

MAX_COPIES = 51  # beyond this, binomials exceed the 53 bits of float64


class MCMC:
    """Relocation, growth and noise.

    Args:
        cap_max: Maximum number of Gaussians.
        total_steps: Steps of the run; None if `after_step` is given the progress.
        refine_every: Steps between relocations.
        refine_start: Progress at which relocation and growth start.
        refine_stop: Progress at which they stop.
        grow_factor: Growth factor of the number of Gaussians per refinement, >= 1.
        min_opacity: Gaussians at or below it are dead and relocated.
        noise_scale: Scale of the noise relative to the learning rate of the means.
        generator: Random generator on the CPU for relocation and growth; None makes one with seed 0. Its initial seed is the
            key of the noise, whose numbers depend on seed, step and row only.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        cap_max: int,
        total_steps: int | None = None,
        *,
        refine_every: int = 100,
        refine_start: float = 500 / 30000,
        refine_stop: float = 25000 / 30000,
        grow_factor: float = 1.05,
        min_opacity: float = 0.005,
        noise_scale: float = 5e5,
        generator: torch.Generator | None = None,
    ) -> None:
        if cap_max < 1:
            raise ConfigError("cap_max", f"got {cap_max}, want at least 1")
        if grow_factor < 1:
            raise ConfigError("grow_factor", f"got {grow_factor}, want a number >= 1")
        if not 0 < min_opacity < 1:
            raise ConfigError("min_opacity", f"got {min_opacity}, want a number in (0, 1)")
        self.schedule = Schedule(total_steps, refine_every, refine_start, refine_stop)
        self.cap_max, self.grow_factor = cap_max, grow_factor
        self.min_opacity, self.noise_scale = min_opacity, noise_scale
        self.generator = cpu_generator(generator)

    def before_backward(self, info: Mapping[str, Any]) -> None:
        """Does nothing: this strategy uses no image gradients."""

    @torch.no_grad()
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
        """Relocate and grow when due, and add noise to the means at every step."""
        require_groups(params, optimizer)
        counts = {}
        if self.schedule.acts(step, self.schedule.progress(step, progress)):
            counts = {"relocated": self._relocate(params, optimizer), "added": self._grow(params, optimizer)}
        add_noise(params, self.generator.initial_seed(), step, self.noise_scale * lr)
        return counts

    def state_dict(self) -> dict[str, Tensor]:
        """State of the generator."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the state of the generator."""
        self.generator.set_state(state["generator"].cpu())

    def _relocate(self, params: dict[str, Tensor], optimizer: SplatAdam) -> int:
        opacities = torch.sigmoid(params["opacity_logits"])
        is_dead = opacities <= self.min_opacity
        dead, alive = is_dead.nonzero().squeeze(1), (~is_dead).nonzero().squeeze(1)
        if len(dead) == 0 or len(alive) == 0:
            return 0
        parents = alive[draw_rows(opacities[alive], len(dead), self.generator)]
        self._share(params, parents)
        for param in params.values():
            param[dead] = param[parents]
        optimizer.reset(torch.cat([parents, dead]))
        return len(dead)

    def _grow(self, params: dict[str, Tensor], optimizer: SplatAdam) -> int:
        count = len(params["means"])
        room = min(self.cap_max, math.ceil(self.grow_factor * count)) - count
        if room <= 0 or self.grow_factor == 1:
            return 0
        parents = draw_rows(torch.sigmoid(params["opacity_logits"]), room, self.generator)
        self._share(params, parents)
        optimizer.reset(parents)
        optimizer.append({name: param.detach()[parents] for name, param in params.items()})
        return room

    def _share(self, params: dict[str, Tensor], parents: Int64[Tensor, " k"]) -> None:
        """Set opacity and scale of each parent such that it and its copies together look like it did alone."""
        rows, hits = parents.unique(return_counts=True)
        opacities, scales = relocated(torch.sigmoid(params["opacity_logits"][rows]), params["log_scales"][rows].exp(), hits + 1)
        params["opacity_logits"][rows] = torch.logit(opacities.clamp(self.min_opacity, 1 - OPACITY_EPS))
        params["log_scales"][rows] = scales.log()


def relocated(
    opacities: Float[Tensor, " k"], scales: Float[Tensor, "k 3"], copies: Int64[Tensor, " k"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, "k 3"]]:
    """Opacity and scale of each of `copies` equal Gaussians that together look like one.

    o' = 1 - (1 - o)^(1/n) and scale' = scale o / sum_{j=1..n} C(n, j) (-1)^(j-1) o'^j / sqrt(j), the double sum of the
    paper with its inner index summed (sum_i C(i-1, k) = C(n, k+1)). In float64; n is at most 51.

    Args:
        opacities: Opacity of the original, in (0, 1).
        scales: Its scales [m].
        copies: n, the total number of the parent and its copies, >= 1.

    Example:
        >>> opacity, _ = relocated(torch.tensor([0.75]), torch.ones(1, 3), torch.tensor([2]))
        >>> opacity
        tensor([0.5000])
    """
    n = copies.clamp(max=MAX_COPIES)
    o = opacities.double().clamp(OPACITY_EPS, 1 - OPACITY_EPS)
    shared = -torch.expm1(torch.log1p(-o) / n)
    j = torch.arange(1, MAX_COPIES + 1, device=o.device)
    signs = 1.0 - 2.0 * ((j - 1) % 2)
    terms = _binomials().to(o.device)[n][:, 1:] * signs * shared.unsqueeze(-1) ** j / j.double().sqrt()
    factors = o / terms.sum(-1)
    return shared.to(opacities), (scales.double() * factors.unsqueeze(-1)).to(scales)


@functools.cache
def _binomials() -> Float[Tensor, "n j"]:
    """C(n, j) for n, j <= 51, exact in float64."""
    size = range(MAX_COPIES + 1)
    return torch.tensor([[math.comb(n, j) for j in size] for n in size], dtype=torch.float64)
