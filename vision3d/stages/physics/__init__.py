"""Scenes that move by physics: materials, and the material point method that later engines are held against.

Papers: GASP (arXiv 2409.05819), flat Gaussians driven by a physics engine; PhysGaussian (arXiv 2311.12198), one particle a
Gaussian whose covariance follows the deformation gradient; MLS-MPM, Hu et al. 2018; APIC, Jiang et al. 2015.

What differs from GASP: one particle a Gaussian instead of three points; shear is kept; one uniform scale for all axes and
bodies; masses come from densities and not from the number of Gaussians; the time step follows from the stiffness.
"""

from typing import TYPE_CHECKING

from vision3d.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.physics.config import Material
    from vision3d.stages.physics.materials import energy_density, kirchhoff_stress, load_material, return_map

__all__ = ["Material", "energy_density", "kirchhoff_stress", "load_material", "return_map"]

__getattr__ = lazy_names(
    __name__,
    {"Material": ".config"}
    | dict.fromkeys(("energy_density", "kirchhoff_stress", "load_material", "return_map"), ".materials"),
)
