"""A scene ready to simulate: result of `setup.set_up`, input of `simulation.Simulation`."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.scene import Cameras
from vision3d.stages.simulate.config import Vector
from vision3d.stages.simulate.engines import Engine
from vision3d.stages.simulate.points3 import Corners
from vision3d.stages.simulate.scene.followers import Followers
from vision3d.stages.simulate.scene.representations import Representation
from vision3d.stages.simulate.setup.animated import AnimatedSolid
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
    """A scene ready to simulate."""

    particles: Particles
    """In meters about the center of the moving part."""
    world: World
    engine: type[Engine]
    representation: Representation
    core_rows: Int64[Tensor, " c"]
    """Rows of the scene that are particles."""
    core_particles: Int64[Tensor, " c"]
    """Their particles; the others fill bodies, or are centers of clusters."""
    followers: Followers
    """Rows that follow particles."""
    pushes: tuple[Push, ...]
    """By time."""
    center: Float[Tensor, " 3"]
    """Origin of the simulation, in the scene."""
    scale: float
    """Meters per unit of the scene, the same along all axes."""
    up: Float[Tensor, " 3"]
    floor_point: Float[Tensor, " 3"] | None
    """A point of a floor that was added rather than detected, in the scene's units."""
    num_inside: int
    """Number of particles that fill bodies."""
    cameras: Cameras | None = None
    """Cameras of the photos."""
    num_boundaries: int = 0
    """Number of leading boundaries in the world that are not from the collider. The floor is the last of these."""
    animated: tuple[AnimatedSolid, ...] = ()
    """Animated meshes whose parts are among the boundaries."""
    corners: Corners | None = None
    """Corners of the simulated Gaussians, which are the first particles (`points3`)."""

    @property
    def cores(self) -> Int64[Tensor, " c"]:
        return self.core_rows

    @property
    def placement(self) -> Placement:
        return Placement(self.center, self.scale)

    def to_scene(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Simulation coordinates to scene coordinates."""
        return x.double() / self.scale + self.center
