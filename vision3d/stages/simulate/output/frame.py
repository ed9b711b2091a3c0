"""What a simulation gives at one time."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Frame:
    """A scene at one time."""

    index: int
    time: float
    """[s]."""
    channels: dict[str, Tensor]
    """As of `FrameSequence.channels`: of Gaussians `means`, `covar_factors` (n, 3, 3) of ellipsoids or `edges` (n, 3, 2) of
    discs, and `turns` where colours depend on the view; of meshes `vertices`."""
    figures: dict[str, float]
    """steps, dt_s (the shortest), kept (particles kept inside the grid); kinetic_J, elastic_J, potential_J and total_J (in the
    middle of the last step, see `engines.mpm.energies`), work_J (what obstacles, wind and led parts have given since the
    start); height_m (centre of mass above its place at rest), momentum_kg_m_s, particles."""
