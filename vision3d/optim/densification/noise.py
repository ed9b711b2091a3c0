"""Noise of the means in MCMC: numbers that depend on seed, step and row only, the same on every device."""

import math

import torch
from torch import Tensor

from vision3d.core import native
from vision3d.core.op_checks import checked
from vision3d.optim.reference import noise as reference

NOISE_OPACITY = 0.25
"""Gaussians of higher opacity would move by less than 1e-7 of their size."""


@torch.no_grad()
def add_noise(params: dict[str, Tensor], seed: int, step: int, strength: float) -> None:
    """Move faint Gaussians by noise with their covariance, in place (Kheradmand et al. 2024, equation 9).

    Args:
        params: Leaf tensors means (N, 3), log_scales (N, 3), quats (N, 4) and opacity_logits (N,).
        seed: Key of the random numbers, of which 63 bits count.
        step: Number of the step, counted from 0.
        strength: Factor of the noise: learning rate of the means times noise scale.
    """
    means, log_scales, quats, logits = (params[name] for name in ("means", "log_scales", "quats", "opacity_logits"))
    max_logit = math.log(NOISE_OPACITY / (1 - NOISE_OPACITY))
    arguments = means, log_scales, quats, logits, seed % 2**63, step, strength, max_logit
    if means.dtype in (torch.float32, torch.float64) and native.runs_on(means):
        native.in_place(_add_noise, (means,), *arguments)
    else:
        reference.add_noise(*arguments)


@native.custom_op("add_noise", mutates_args=("means",))
@checked("means: float n 3, log_scales: float n 3, quats: float n 4, opacity_logits: float n")
def _add_noise(
    means: Tensor,
    log_scales: Tensor,
    quats: Tensor,
    opacity_logits: Tensor,
    seed: int,
    step: int,
    strength: float,
    max_logit: float,
) -> None:
    others = (value.detach().contiguous() for value in (log_scales, quats, opacity_logits))
    numbers = seed % 2**64, step % 2**64, strength, max_logit
    native.require().add_noise(means.detach(), *others, *numbers, **native.where(means))
