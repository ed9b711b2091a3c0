"""The method in plain torch, for small scenes and as the reference for the other engines."""

import math

from torch import Tensor

from vision3d.stages.simulate.engines.base import Engine
from vision3d.stages.simulate.engines.mpm import advance
from vision3d.stages.simulate.world.particles import Particles
from vision3d.stages.simulate.world.world import Advance, World


class ReferenceEngine(Engine):
    """`engines.mpm` with the float type of the particles."""

    name = "reference"
    bytes_a_node = 130
    bytes_a_particle = 4000
    particle_steps_a_second = 2e5

    def __init__(self, particles: Particles, world: World) -> None:
        super().__init__(particles, world)
        self._particles = particles

    def advance(self, duration: float, time: float = 0.0, max_dt: float = math.inf) -> Advance:
        self._particles, report = advance(self._particles, self.world, duration, time, max_dt)
        return report

    @property
    def particles(self) -> Particles:
        return self._particles

    def update(self, **values: Tensor) -> None:
        self._particles = self._particles.replace(**values)
