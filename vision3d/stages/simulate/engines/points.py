"""Engines that only know points: their input and output.

The black box of GASP (arXiv 2409.05819): anything that moves points can animate a scene, see `points3.simulate_points`.
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
    """Rest positions [m], float64."""
    masses: Float[Tensor, " n"]
    """[kg], or fractions of an unknown mass."""
    groups: Int64[Tensor, " n"]
    """Index of the Gaussian of each point, ascending."""
    edges: Int64[Tensor, "m 2"]
    """Pairs of points of the same Gaussian."""

    def __len__(self) -> int:
        return len(self.x)


@runtime_checkable
class PointEngine(Protocol):
    """Interface for moving points: `begin` is called once, then `advance` for each frame; inheritance is not required.

    An engine that computes in float32 may have an attribute `edge_share`: `simulate_points` then gives it edges of at least
    this fraction of the distance between Gaussians (0 without the attribute).
    """

    def begin(self, points: Points) -> None:
        """Receive the points in their rest state."""

    def advance(self, duration: float, time: float) -> Tensor:
        """Positions (n, 3) [m] at time + duration [s], in their original order."""
        ...


def moved(engine: PointEngine, points: Points, duration: float, time: float) -> Float[Tensor, "n 3"]:
    """The checked result of the engine, float64 on the CPU.

    Raises:
        ShapeError: It returned a different number of points.
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
    """The material point method with one particle per point, on any of our engines.

    A Gaussian's points are ordinary particles, as published; its volume is divided among them.

    Args:
        world: Grid, materials, obstacles; all points have its first material.
        engine: auto, or one of `ENGINES`.
        velocity: Initial velocity [m/s].
        max_dt: Maximum time step [s].

    Raises:
        InputError: The rest position of a point is outside the grid.
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
