"""A scene ready to move, as `setup.set_up` makes it and `simulation.Simulation` takes it."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.scene import Cameras
from vision3d.stages.simulate.config import Vector
from vision3d.stages.simulate.engines import Engine
from vision3d.stages.simulate.points3 import Corners
from vision3d.stages.simulate.scene.followers import Followers
from vision3d.stages.simulate.scene.representations import Representation
from vision3d.stages.simulate.setup.obstacles import Placement
from vision3d.stages.simulate.world.particles import Particles
from vision3d.stages.simulate.world.world import World


@dataclass(frozen=True, eq=False)
class Push:
    """An impulse on some of the particles."""

    time: float
    """[s]."""
    rows: Int64[Tensor, " r"]
    velocity: Vector
    """[m/s]."""


@dataclass(frozen=True, eq=False)
class Setup:
    """A scene ready to move."""

    particles: Particles
    """In metres about the middle of what moves."""
    world: World
    engine: type[Engine]
    representation: Representation
    core_rows: Int64[Tensor, " c"]
    """Rows of the scene that are particles."""
    core_particles: Int64[Tensor, " c"]
    """Which particles they are; the others fill bodies, or are centres of clusters."""
    followers: Followers
    """Rows that go along."""
    pushes: tuple[Push, ...]
    """By time."""
    center: Float[Tensor, " 3"]
    """What is 0 in the simulation, in the scene."""
    scale: float
    """Metres in the unit of the scene, the same along all axes."""
    up: Float[Tensor, " 3"]
    floor_point: Float[Tensor, " 3"] | None
    """Of a floor that is not seen in the scene but was put there, in the scene's units."""
    num_inside: int
    """Particles that fill bodies."""
    cameras: Cameras | None = None
    """Of the photographs."""
    num_boundaries: int = 0
    """Of those of the world, the first ones: all but the collider. The floor is the last of these."""
    corners: Corners | None = None
    """Of the simulated Gaussians, which are the first particles, where those are corners (`points3`)."""

    @property
    def cores(self) -> Int64[Tensor, " c"]:
        return self.core_rows

    @property
    def placement(self) -> Placement:
        return Placement(self.center, self.scale)

    def to_scene(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Positions of the simulation in the scene."""
        return x.double() / self.scale + self.center
