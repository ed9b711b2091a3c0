"""Engines that know nothing but points: what they are given, and what they give back.

The black box of GASP (arXiv 2409.05819): anything that moves points can move a scene, see `points3.simulate_points`.
"""

import logging
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.stages.simulate.engines.base import make_engine
from vision3d.stages.simulate.world.cells import cell_volumes
from vision3d.stages.simulate.world.particles import Particles
from vision3d.stages.simulate.world.world import World

logger = logging.getLogger("vision3d.physics")


@dataclass(frozen=True, eq=False)
class Points:
    """Points of Gaussians: the first of each group is the mean, the others are the ends of its edges."""

    x: Float[Tensor, "n 3"]
    """Positions at rest [m], float64."""
    masses: Float[Tensor, " n"]
    """[kg], or shares of an unknown mass."""
    groups: Int64[Tensor, " n"]
    """Which Gaussian each point belongs to, ascending."""
    edges: Int64[Tensor, "m 2"]
    """Pairs of points of the same Gaussian."""

    def __len__(self) -> int:
        return len(self.x)


@runtime_checkable
class PointEngine(Protocol):
    """What moves points. `begin` comes once, then `advance` for each frame; no class has to inherit from this.

    An engine that calculates in float32 may have an attribute `edge_share`: `simulate_points` then gives it edges of at least
    this share of the distance between Gaussians (0 where there is no such attribute).
    """

    def begin(self, points: Points) -> None:
        """Take the points at rest."""

    def advance(self, duration: float, time: float) -> Tensor:
        """Positions (n, 3) [m] at time + duration [s], in the order that they were given in."""
        ...


def moved(engine: PointEngine, points: Points, duration: float, time: float) -> Float[Tensor, "n 3"]:
    """What the engine gives back, checked, float64 on the CPU.

    Raises:
        ShapeError: It gives another number of points.
        InputError: A position is not finite.
    """
    x = torch.as_tensor(engine.advance(duration, time)).detach().cpu().double()
    name = type(engine).__name__
    if tuple(x.shape) != tuple(points.x.shape):
        raise ShapeError(f"{name}.advance", tuple(x.shape), tuple(points.x.shape))
    is_finite = x.isfinite().all(-1)
    if not bool(is_finite.all()):
        raise InputError(
            f"{name}.advance: {int((~is_finite).sum())} of {len(x)} points are not finite at {time + duration:g} s"
        )
    return x


class MpmPoints:
    """The material point method with a particle for each point, on any of our engines.

    A Gaussian's points are particles like all others, as published; its volume is shared among them.

    Args:
        world: Grid, materials, obstacles; all points are of its first material.
        engine: auto, or one of `ENGINES`.
        velocity: At the start [m/s].
        max_dt: No time step is longer [s].

    Raises:
        InputError: A point is outside the grid at rest.
    """

    edge_share = 0.25

    def __init__(
        self,
        world: World,
        engine: str = "auto",
        velocity: tuple[float, float, float] = (0.0, 0.0, 0.0),
        max_dt: float = math.inf,
    ) -> None:
        self.world, self.engine_name, self.velocity, self.max_dt = world, engine, velocity, max_dt

    def begin(self, points: Points) -> None:
        low, high = self.world.grid.bounds(points.x)
        outside = int(((points.x < low) | (points.x >= high)).any(-1).sum())
        if outside:
            text = "increase the room of the grid, or remove large Gaussians"
            raise InputError(f"{outside} of {len(points)} points are outside the grid; {text}")
        v = points.x.new_tensor(self.velocity).expand_as(points.x).clone()
        volumes = cell_volumes(points.x, self.world.grid.spacing)
        particles = Particles.at_rest(points.x, volumes, self.world.materials, v=v)
        self.engine = make_engine(self.engine_name, particles, self.world)

    def advance(self, duration: float, time: float) -> Tensor:
        report = self.engine.advance(duration, time, self.max_dt)
        if report.num_kept:
            logger.warning(
                "%g s: particles reach the border of the grid and are clamped to it; increase the room", time + duration
            )
        return self.engine.particles.x
