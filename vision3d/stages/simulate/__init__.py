"""Physics simulation of scenes: scene set-up, materials, engines for the material point method, and engines for points.

Papers: GASP (arXiv 2409.05819), flat Gaussians driven by a physics engine; PhysGaussian (arXiv 2311.12198), one particle per
Gaussian whose covariance follows the deformation gradient; MLS-MPM, Hu et al. 2018; APIC, Jiang et al. 2015.

Differences from GASP: one particle per Gaussian instead of three points; shear is preserved; one uniform scale for all axes
and bodies; masses come from densities instead of the number of Gaussians; the time step follows from the stiffness.
"""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.simulate.config import (
        AnimatedObstacle,
        Body,
        Boundary,
        Impulse,
        Keyframe,
        KinematicPart,
        Material,
        Mover,
        SimulateConfig,
        Wind,
    )
    from vision3d.stages.simulate.materials.functions import energy_density, kirchhoff_stress, load_material, return_map
    from vision3d.stages.simulate.output.frame import Frame
    from vision3d.stages.simulate.points3 import simulate_points
    from vision3d.stages.simulate.run import simulate, simulate_frames

__all__ = [
    "AnimatedObstacle",
    "Body",
    "Boundary",
    "Frame",
    "Impulse",
    "Keyframe",
    "KinematicPart",
    "Material",
    "Mover",
    "SimulateConfig",
    "Wind",
    "energy_density",
    "kirchhoff_stress",
    "load_material",
    "return_map",
    "simulate",
    "simulate_frames",
    "simulate_points",
]

_CONFIG, _MATERIALS, _RUN = ".config", ".materials.functions", ".run"

__getattr__ = lazy_names(
    __name__,
    {
        "AnimatedObstacle": _CONFIG,
        "Body": _CONFIG,
        "Boundary": _CONFIG,
        "Impulse": _CONFIG,
        "Keyframe": _CONFIG,
        "KinematicPart": _CONFIG,
        "Mover": _CONFIG,
        "Wind": _CONFIG,
        "Material": _CONFIG,
        "SimulateConfig": _CONFIG,
        "energy_density": _MATERIALS,
        "kirchhoff_stress": _MATERIALS,
        "load_material": _MATERIALS,
        "return_map": _MATERIALS,
        "Frame": ".output.frame",
        "simulate": _RUN,
        "simulate_frames": _RUN,
        "simulate_points": ".points3",
    },
    moved={"Lead": f"{__name__}:KinematicPart"},
)
