"""Parts of a scene that are held, moved (kinematic) or given an impulse: their particles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.neighbors import knn
from vision3d.scene.selecting import Selector
from vision3d.stages.simulate.config import Impulse, SimulateConfig
from vision3d.stages.simulate.setup.obstacles import Placement
from vision3d.stages.simulate.setup.prepared import Push
from vision3d.stages.simulate.world.world import Motion


@dataclass(frozen=True, eq=False)
class Reach:
    """Finds the particles of a part of the scene: its own, and those inside that are nearest to it."""

    points: Float[Tensor, "n 3"]
    core_rows: Int64[Tensor, " c"]
    core_particles: Int64[Tensor, " c"]
    x: Float[Tensor, "p 3"]

    def particles(self, mask: Bool[Tensor, " n"]) -> Bool[Tensor, " p"]:
        found = torch.zeros(len(self.x), dtype=torch.bool)
        found[self.core_particles] = mask[self.core_rows]
        others = torch.ones(len(self.x), dtype=torch.bool)
        others[self.core_particles] = False
        rows = others.nonzero()[:, 0]
        if len(rows):
            # The nearest of all points of the scene determines the part of a particle inside.
            nearest = knn(self.points, self.x[rows])[1][:, 0]
            found[rows] = mask[nearest]
        return found


def motions_of(
    config: SimulateConfig, selector: Selector, reach: Reach, placement: Placement
) -> tuple[tuple[Motion, ...], Int64[Tensor, " p"]]:
    """Prescribed motions, and the index of each particle's motion, -1 for none.

    Raises:
        InputError: A selection contains no particle.
    """
    motions: list[Motion] = []
    motion_of = torch.full((len(reach.x),), -1, dtype=torch.int64)
    if config.fixed:
        is_in = reach.particles(selector.mask(config.fixed, "fixed"))
        _check_any(is_in, "fixed")
        motion_of[is_in] = 0
        motions.append(Motion(end=math.inf if config.release is None else config.release))
    for index, part in enumerate(config.kinematic):
        key = f"kinematic[{index}].select"
        is_in = reach.particles(selector.mask(part.select, key))
        _check_any(is_in, key)
        motion_of[is_in] = len(motions)
        if part.center is None:
            x, y, z = reach.x[is_in].mean(0).tolist()
        else:
            x, y, z = placement.to_metres(torch.tensor([part.center], dtype=torch.float64))[0].tolist()
        motions.append(Motion(part.velocity, part.angular_velocity, (x, y, z), part.start, part.end))
    return tuple(motions), motion_of


def _check_any(is_in: Tensor, key: str) -> None:
    if not bool(is_in.any()):
        raise InputError(f"{key}: contains no moving particle, want at least one")


def pushes_of(impulses: Sequence[Impulse], selector: Selector, reach: Reach) -> tuple[Push, ...]:
    """The impulses by time, each with its selected particles."""
    pushes = []
    for index, impulse in enumerate(sorted(impulses, key=lambda impulse: impulse.time)):
        is_in = torch.ones(len(reach.x), dtype=torch.bool)
        if impulse.select:
            is_in = reach.particles(selector.mask(impulse.select, f"impulses[{index}].select"))
        pushes.append(Push(impulse.time, is_in.nonzero()[:, 0], impulse.velocity))
    return tuple(pushes)
