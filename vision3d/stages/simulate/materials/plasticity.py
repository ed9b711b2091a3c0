"""Return maps: the plastic part of a deformation is removed until the stress is admissible.

Each takes the trial elastic deformation gradient of a step, F* = (I + dt C) F, and returns the one whose stress is on or within
the yield surface, and the particle's memory. All commute with rotations, and are idempotent except `viscoplastic`, which is
rate-dependent.

| law | memory | source |
|---|---|---|
| von_mises | plastic strain, from 0 | radial return, Simo and Hughes 1998, box 3.1, in logarithmic strains |
| drucker_prager | volume gained by tension [log], from 0 | Klar et al. 2016; volume, Tampubolon et al. 2017 |
| snow | Jp, plastic change of volume, from 1 | Stomakhin et al. 2013 |
| viscoplastic | none | as PhysGaussian's foam; Simo and Hughes 1998, section 2.7 |
| water | none: only the volume of F is kept | Jiang et al. 2016 |

Laws in logarithmic strains also discard what is flatter than `MIN_STRETCH`, or inverted: their stress there is that of this
stretch, so a particle returning from beyond it would release more energy than it absorbed.

Differences from Taichi Elements and PhysGaussian: hardening metal is projected to the hardened surface instead of the previous
one, so the result does not depend on the number of steps; sand that closes again restores its volume memory to F.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.stages.simulate.materials.config import Material
from vision3d.stages.simulate.materials.spectral import MIN_STRETCH, compose, deviator, log_stretches, signed_svd

MIN_VOLUME = 0.05
"""For water: pressure does not increase below this change of volume."""


def initial_memory(material: Material, F: Float[Tensor, "n 3 3"]) -> Float[Tensor, " n"]:
    """Internal variable of fresh particles: 1 for snow, else 0."""
    return F.new_full((len(F),), 1.0 if material.law == "snow" else 0.0)


def return_map(
    material: Material, F: Float[Tensor, "n 3 3"], memory: Float[Tensor, " n"], dt: float
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, " n"]]:
    """Elastic deformation gradients and memories after plastic flow.

    Args:
        material: Law and parameters.
        F: Trial deformation gradients.
        memory: Internal variable of each particle, see the module.
        dt: Time step [s], only for `viscoplastic`.
    """
    flow = _FLOWS.get(material.law)
    return (F, memory) if flow is None else flow(material, F, memory, dt)


def _hencky(material: Material, F: Tensor, memory: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    left, stretches, right = signed_svd(F)
    new = compose(left, stretches.clamp(min=MIN_STRETCH), right)
    return torch.where(_is_flat(stretches)[:, None, None], new, F), memory


def _von_mises(material: Material, F: Tensor, memory: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    left, stretches, right = signed_svd(F)
    strains = log_stretches(stretches)
    shape = deviator(strains)
    norm = torch.linalg.vector_norm(shape, dim=-1)
    limit = material.yield_stress / (2 * material.mu) + material.hardening * memory
    flow = ((norm - limit) / (1 + material.hardening)).clamp(min=0)
    new = compose(left, (strains - _along(flow, shape, norm)).exp(), right)
    return torch.where(((flow > 0) | _is_flat(stretches))[:, None, None], new, F), memory + flow


def _drucker_prager(material: Material, F: Tensor, memory: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    left, stretches, right = signed_svd(F)
    strains = log_stretches(stretches) + memory[:, None] / 3
    volume = strains.sum(-1)
    shape = deviator(strains)
    norm = torch.linalg.vector_norm(shape, dim=-1)
    slope = (3 * material.lam + 2 * material.mu) / (2 * material.mu) * material.friction_slope
    flow = (norm + slope * volume).clamp(min=0)
    is_open = volume >= 0  # sand does not resist tension: it separates
    strains = torch.where(is_open[:, None], 0, strains - _along(flow, shape, norm))
    is_elastic = ~is_open & (flow == 0) & (memory == 0) & ~_is_flat(stretches)
    new = torch.where(is_elastic[:, None, None], F, compose(left, strains.exp(), right))
    return new, torch.where(is_open, volume, 0)


def _snow(material: Material, F: Tensor, memory: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    left, stretches, right = signed_svd(F)
    clamped = stretches.clamp(1 - material.critical_compression, 1 + material.critical_stretch)
    flows = (clamped != stretches).any(-1)
    # For an inverted element no volume remains to be remembered; the floor keeps Jp positive.
    memory = (memory * (stretches.clamp(min=1e-2) / clamped).prod(-1)).clamp(1e-30, 1e30)  # limits for float32, for the engines
    return torch.where(flows[:, None, None], compose(left, clamped, right), F), memory


def _viscoplastic(material: Material, F: Tensor, memory: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    left, stretches, right = signed_svd(F)
    strains = log_stretches(stretches)
    shape = deviator(strains)
    norm = torch.linalg.vector_norm(shape, dim=-1)
    excess = (norm - math.sqrt(2 / 3) * material.yield_stress / (2 * material.mu)).clamp(min=0)
    rate = 2 * material.mu * dt * strains.mul(2).exp().mean(-1)  # mu times the mean squared stretch
    flow = excess * rate / (rate + material.viscosity) if dt > 0 else torch.zeros_like(excess)
    new = compose(left, (strains - _along(flow, shape, norm)).exp(), right)
    return torch.where(((flow > 0) | _is_flat(stretches))[:, None, None], new, F), memory


def _water(material: Material, F: Tensor, memory: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    widths = torch.linalg.det(F).clamp(min=MIN_VOLUME) ** (1 / 3)
    return widths[:, None, None] * torch.eye(3, dtype=F.dtype, device=F.device), memory


def _is_flat(stretches: Tensor) -> Tensor:
    return (stretches < MIN_STRETCH).any(-1)


def _along(lengths: Tensor, directions: Tensor, norms: Tensor) -> Tensor:
    return (lengths / torch.where(norms == 0, 1, norms))[:, None] * directions


_FLOWS = {
    "hencky": _hencky,
    "von_mises": _von_mises,
    "drucker_prager": _drucker_prager,
    "snow": _snow,
    "viscoplastic": _viscoplastic,
    "water": _water,
}
