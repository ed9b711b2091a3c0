"""Elastic laws: the Kirchhoff stress tau = P F^T and the energy of deformation gradients.

Every law is a function of F (and, for snow, of the particle's history), so a body is one call. Stress is the derivative of
the energy, tau = (dPsi / dF) F^T. Sources: fixed corotated, Stomakhin et al. 2012; neo-Hookean, Bonet and Wood, 2nd ed.,
eq. 6.27; Hencky, Klar et al. 2016, section 6; snow, Stomakhin et al. 2013; water is only the volume term.

Difference from PhysGaussian's code: its Hencky and neo-Hookean stresses have an extra factor of the stretches
(U tau V^T F^T), 7 % of the stress at stretches of 10 %.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.stages.simulate.materials.config import Material
from vision3d.stages.simulate.materials.plasticity import initial_memory
from vision3d.stages.simulate.materials.spectral import MIN_STRETCH, compose, log_stretches, polar, signed_svd

Stress = Callable[[Material, Tensor, Tensor], Tensor]


def kirchhoff_stress(
    material: Material, F: Float[Tensor, "n 3 3"], memory: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "n 3 3"]:
    """Kirchhoff stresses [Pa], symmetric.

    Args:
        material: Law and parameters.
        F: Elastic deformation gradients, any sign of the determinant.
        memory: Internal variable of each particle (`plasticity.initial_memory`); fresh particles when None.
    """
    return _STRESSES[material.law](material, F, initial_memory(material, F) if memory is None else memory)


def energy_density(
    material: Material, F: Float[Tensor, "n 3 3"], memory: Float[Tensor, " n"] | None = None
) -> Float[Tensor, " n"]:
    """Elastic energy per rest volume [J/m^3], 0 at rotations."""
    return _ENERGIES[material.law](material, F, initial_memory(material, F) if memory is None else memory)


def packing_factor(material: Material, memory: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Factor on the moduli of snow: exp(packing (1 - Jp)), at most `max_packing`."""
    return (material.packing * (1 - memory)).exp().clamp(max=material.max_packing)


def _corotated_stress(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    rotmats, _ = polar(F)
    stress = 2 * material.mu * (F - rotmats) @ F.mT + _isotropic(_volume_stress(material, torch.linalg.det(F)))
    return (stress + stress.mT) / 2


def _corotated_energy(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    _, stretches, _ = signed_svd(F)
    return material.mu * (stretches - 1).square().sum(-1) + material.lam / 2 * (stretches.prod(-1) - 1).square()


def _neo_hookean_stress(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    log_volume = torch.linalg.det(F).clamp(min=MIN_STRETCH).log()
    return material.mu * F @ F.mT + _isotropic(material.lam * log_volume - material.mu)


def _neo_hookean_energy(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    log_volume = torch.linalg.det(F).clamp(min=MIN_STRETCH).log()
    shape = F.square().sum((-2, -1)) - 3
    return material.mu * (shape / 2 - log_volume) + material.lam / 2 * log_volume.square()


def _hencky_stress(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    left, stretches, _ = signed_svd(F)
    strains = log_stretches(stretches)
    return compose(left, 2 * material.mu * strains + material.lam * strains.sum(-1, keepdim=True), left)


def _hencky_energy(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    strains = log_stretches(signed_svd(F)[1])
    return material.mu * strains.square().sum(-1) + material.lam / 2 * strains.sum(-1).square()


def _snow_stress(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    return packing_factor(material, memory)[:, None, None] * _corotated_stress(material, F, memory)


def _snow_energy(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    return packing_factor(material, memory) * _corotated_energy(material, F, memory)


def _water_stress(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    return _isotropic(_volume_stress(material, torch.linalg.det(F)))


def _water_energy(material: Material, F: Tensor, memory: Tensor) -> Tensor:
    return material.lam / 2 * (torch.linalg.det(F) - 1).square()


def _volume_stress(material: Material, volumes: Tensor) -> Tensor:
    return material.lam * volumes * (volumes - 1)


def _isotropic(values: Tensor) -> Tensor:
    return values[..., None, None] * torch.eye(3, dtype=values.dtype, device=values.device)


_STRESSES: dict[str, Stress] = {
    "corotated": _corotated_stress,
    "neo_hookean": _neo_hookean_stress,
    "hencky": _hencky_stress,
    "von_mises": _hencky_stress,
    "drucker_prager": _hencky_stress,
    "viscoplastic": _hencky_stress,
    "snow": _snow_stress,
    "water": _water_stress,
    "stationary": lambda material, F, memory: torch.zeros_like(F),
}
_ENERGIES: dict[str, Stress] = {
    "corotated": _corotated_energy,
    "neo_hookean": _neo_hookean_energy,
    "hencky": _hencky_energy,
    "von_mises": _hencky_energy,
    "drucker_prager": _hencky_energy,
    "viscoplastic": _hencky_energy,
    "snow": _snow_energy,
    "water": _water_energy,
    "stationary": lambda material, F, memory: F.new_zeros(len(F)),
}
