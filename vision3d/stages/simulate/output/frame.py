"""Result of a simulation at one time."""

from dataclasses import dataclass

from torch import Tensor

from vision3d.core.lazy import renamed_attribute


@dataclass(frozen=True, eq=False)
class Frame:
    """A scene at one time."""

    index: int
    time: float
    """[s]."""
    channels: dict[str, Tensor]
    """As for `FrameSequence.channels`: for Gaussians `means`, `covar_factors` (n, 3, 3) of ellipsoids or `edges` (n, 3, 2) of
    flat Gaussians, and `turns` if colors are view-dependent; for meshes `vertices`."""
    metrics: dict[str, float]
    """steps, dt_s (the shortest), kept (number of particles clamped to the grid); kinetic_J, elastic_J, potential_J and total_J
    (in the middle of the last step, see `engines.mpm.energies`), work_J (work of obstacles, wind and kinematic parts since the
    start); height_m (center of mass above its rest position), momentum_kg_m_s, particles."""
    figures = renamed_attribute("metrics")
