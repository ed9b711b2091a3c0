"""Options of the physics stage. Materials, bodies and obstacles are in separate modules."""

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups, InFiles, Repeated
from vision3d.stages.simulate.materials.config import ALIASES, Material, jelly, law_name
from vision3d.stages.simulate.scene_config import (
    AnimatedObstacle,
    Body,
    Boundary,
    Fill,
    Impulse,
    Keyframe,
    KinematicPart,
    Motion,
    Mover,
    Vector,
    Wind,
    check_numbers,
)

__all__ = [
    "ALIASES",
    "AnimatedObstacle",
    "Body",
    "Boundary",
    "Impulse",
    "Keyframe",
    "KinematicPart",
    "Material",
    "Motion",
    "Mover",
    "SimulateConfig",
    "Vector",
    "Wind",
    "law_name",
]

RESUMABLE = ("frames", "device", "checkpoint_every", "ply", "video", "video_size", "split_long", "max_memory")
"""Keys that may change when a run is resumed."""


@dataclass(frozen=True)
class SimulateConfig:
    """Simulate a scene, or parts of it, by physics."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("select", "frames", "velocity", "video"),
        "motion": ("angular_velocity", "fixed", "release", "drop", "gravity"),
        "surroundings": ("floor", "floor_extent", "floor_kind", "friction", "collider", "room", "box", "up"),
        "particles and grid": (
            "fill",
            "size",
            "cells",
            "representation",
            "grouping",
            "share",
            "max_particles",
            "min_opacity",
            "min_component",
            "seed",
        ),
        "engine": ("engine", "device", "max_memory", "checkpoint_every"),
        "output": ("fps", "video_size", "ply", "max_stretch", "max_length", "split_long", "flatten", "turn_colors"),
    }

    RENAMED: ClassVar[dict[str, str]] = {"leads": "kinematic"}

    material: Material = field(default_factory=jelly)
    """Material of the body [default: the preset jelly]."""
    select: Repeated[tuple[str, ...]] = ()
    """Selection of the body; several are united: box:CX,CY,CZ,HX,HY,HZ (half extents), sphere:CX,CY,CZ,R,
    plane:PX,PY,PZ,NX,NY,NZ (the half space in front), label:N, component[:N] (the largest connected one, or the N-th), all, or
    a selection's .json [default: all but the floor and floaters]."""
    bodies: Annotated[tuple[Body, ...], InFiles] = ()
    """Several bodies, each with its own material; they replace `material`, `select`, `velocity`, `angular_velocity` and
    `fill`."""
    velocity: Vector = (0.0, 0.0, 0.0)
    """Initial velocity of the body, along the axes of the scene [m/s]."""
    angular_velocity: Vector = (0.0, 0.0, 0.0)
    """Initial angular velocity of the body about its center [rad/s]."""
    fill: Fill = "auto"
    """Add particles inside a hollow body, which would collapse without them: in the space enclosed by the density of the
    Gaussians (density), or inside the mesh that carries the Gaussians (mesh); auto chooses between them."""
    fixed: Repeated[tuple[str, ...]] = ()
    """Parts of the body that are held in place, as for --select."""
    release: float | None = None
    """Time at which the fixed parts are released [s]."""
    kinematic: Annotated[tuple[KinematicPart, ...], InFiles] = ()
    """Parts with prescribed (kinematic) motion."""
    impulses: Annotated[tuple[Impulse, ...], InFiles] = ()
    """Impulses: velocity changes at given times."""
    boundaries: Annotated[tuple[Boundary, ...], InFiles] = ()
    """Obstacles in the scene's axes and units; velocities in m/s. `mesh` is the path of a .glb, .obj, .ply or .stl."""
    movers: Annotated[tuple[Mover, ...], InFiles] = ()
    """Obstacles that move along keyframes."""
    animated: Annotated[tuple[AnimatedObstacle, ...], InFiles] = ()
    """Obstacles that play a clip: meshes with joints."""
    winds: Annotated[tuple[Wind, ...], InFiles] = ()
    """Wind; boxes in the scene's units."""

    frames: int = 50
    """Number of frames; the first shows the initial state."""
    fps: float = 24.0
    """Frames per second of simulated time."""
    engine: str = "auto"
    """Physics engine: auto (the fastest that runs here), one of those in docs/simulate.md, or your own, MODULE:CLASS; reference
    is plain torch, for small scenes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the engine runs; auto: on a GPU if the engine supports it."""
    cells: int | None = None
    """Grid cells along the longest side of the body, at least 2 [default: as many as the particles resolve, 16 to 64]."""
    size: float | None = None
    """Longest side of the body [m] [default: one unit of the scene is a meter; 1 if the body would not be within 0.05 to 20
    m]."""
    up: Vector | None = None
    """Up direction of the scene, of any length > 0 [default: from the cameras, the floor of the scene, or the file
    format]."""
    gravity: float = 9.81
    """Downward acceleration [m/s^2]."""
    floor: Literal["auto", "below", "none"] = "auto"
    """The floor of the scene if one is found, otherwise as for below (auto), a plane under the body (below), or none (none)."""
    floor_extent: Literal["seen", "endless"] = "seen"
    """Extent of a floor found in the scene: it ends where its Gaussians or faces end, and particles beyond fall to the border
    of the simulated space (seen), or it is infinite (endless)."""
    collider: str = "auto"
    """Additional static obstacles: none; auto, the closed parts of a mesh that are not selected; scene, the Gaussians or faces
    that are not simulated, as far as they enclose space or form a surface; or the path of a closed mesh in the scene's axes and
    units (.glb, .obj, .ply, .stl); a .glb with joints moves by its first clip."""
    drop: float = 0.0
    """Initial height above the floor, as a multiple of the longest side of the body; at least 0. The body is lifted off a floor
    that is part of the scene."""
    floor_kind: Literal["sticky", "slip", "separate"] = "separate"
    """Contact with the floor: the body sticks (sticky), slides but stays in contact (slip), or may also lift off (separate)."""
    friction: float | None = None
    """Coulomb friction coefficient of the floor; multiplied by --material.friction-scale, which is 0 for water."""
    room: float = 0.5
    """Space on all sides of the body, as a multiple of its longest side; particles are clamped at the border."""

    box: tuple[float, float, float, float, float, float] | None = None
    """Lower and upper corner of the simulated space, in units of the scene [default: around the body and its floor]."""

    representation: str = "auto"
    """Particles: Gaussians with their deformation (fdrive), their corners (points3, as published), or vertices of
    meshes (mesh); auto: fdrive, or mesh for meshes."""
    grouping: Literal["auto", "tracers", "followers", "hierarchy", "none"] = "auto"
    """Motion of Gaussians that are not simulated: with the velocities of the grid (tracers), with the four simulated ones
    around them (followers), with the center of their cluster (hierarchy, as published, but with its full deformation), or none
    (none); auto: tracers, and followers with points3. Faint ones always follow."""
    share: float = 1.0
    """Fraction of the Gaussians of a body that is simulated, in (0, 1]."""
    max_particles: int | None = None
    """Maximum number of particles [default: 2 000 000; 20 000 with the reference engine]."""
    min_opacity: float = 0.02
    """Gaussians below this opacity are not simulated; they follow their neighbors."""
    min_component: float = 0.002
    """Connected parts with less than this fraction of the Gaussians are floaters and stay in place unless selected; 0: none."""
    seed: int = 0
    """Seed of the particle sampling."""

    max_stretch: float = 1.5
    """Maximum stretch of a Gaussian when rendered, as a factor on its rest lengths, up or down; the motion does not change."""
    max_length: float | None = None
    """Maximum length of a Gaussian when rendered, as a fraction of the longest side of the body."""
    split_long: bool = False
    """In the .ply of frames, split each Gaussian that is longer than 2 max_stretch times its rest length into two."""
    flatten: bool = False
    """Drop the shortest axis of each Gaussian first, as GaMeS and GASP do; prints how much is lost."""
    turn_colors: bool = True
    """Rotate view-dependent colors with the material."""

    max_memory: float | None = None
    """Maximum memory of the grid [GB] [default: what is free]."""
    checkpoint_every: int = 10
    """Frames between checkpoints, from which --resume continues."""
    ply: bool = False
    """Also write a .ply for each frame."""
    video: bool = False
    """Also write video.mp4."""
    video_size: tuple[int, int] = (640, 480)
    """Width and height of the video [px]."""

    def __post_init__(self) -> None:
        for name, least in (
            ("frames", 1),
            ("cells", 2),
            ("max_particles", 1),
            ("checkpoint_every", 1),
            ("drop", 0),
            ("room", 0),
            ("friction", 0),
            ("min_opacity", 0),
            ("min_component", 0),
            ("max_stretch", 1),
        ):
            value = getattr(self, name)
            self._check(name, value is None or value >= least, f"at least {least}")
        for name in ("fps", "max_memory", "size", "max_length", "release", "share"):
            value = getattr(self, name)
            want = "a length > 0" if name in ("size", "max_length") else "a number > 0"
            self._check(name, value is None or value > 0, want)
        self._check("gravity", True, "a number")
        self._check("min_opacity", self.min_opacity < 1, "less than 1")
        self._check("min_component", self.min_component < 1, "less than 1")
        self._check("share", self.share <= 1, "at most 1")
        for name, choices in (
            ("floor", ("auto", "below", "none")),
            ("floor_extent", ("seen", "endless")),
            ("floor_kind", ("sticky", "slip", "separate")),
            ("grouping", ("auto", "tracers", "followers", "hierarchy", "none")),
            ("fill", ("auto", "none", "density", "mesh")),
            ("device", ("auto", "cpu", "cuda")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(name, f"got {getattr(self, name)!r}, want one of {', '.join(choices)}")
        check_numbers("velocity", self.velocity, 3)
        check_numbers("angular_velocity", self.angular_velocity, 3)
        if self.up is not None:
            check_numbers("up", self.up, 3)
            if not any(self.up):
                raise ConfigError("up", "got (0, 0, 0), want a direction")
        if self.box is not None and not all(-math.inf < a < b < math.inf for a, b in zip(self.box[:3], self.box[3:])):
            raise ConfigError("box", f"got {self.box}, want three lower and three higher numbers")
        if not 16 <= min(self.video_size) <= max(self.video_size) <= 8192:
            raise ConfigError("video_size", f"got {self.video_size}, want 16 to 8192 pixels per side")
        if self.share < 1 and self.grouping == "none":
            raise ConfigError("share", f"got {self.share} with grouping none, which does not move the others; want 1")
        if self.bodies:
            self._check_bodies()

    def all_bodies(self) -> tuple[Body, ...]:
        """The bodies; without a list, a single one from the options above."""
        one = Body(self.material, tuple(self.select), self.velocity, self.angular_velocity, self.fill)
        return self.bodies or (one,)

    @property
    def floor_friction(self) -> float:
        """Friction of the floor, as given or 0.4."""
        return 0.4 if self.friction is None else self.friction

    def _check_bodies(self) -> None:
        if self.select:
            raise ConfigError("select", "is for one body; with `bodies` each has its own")
        if sum(not body.select or "rest" in body.select for body in self.bodies) > 1:
            raise ConfigError("bodies", "two bodies select the rest; give all but one a `select`")

    def _check(self, name: str, is_right: bool, want: str) -> None:
        value = getattr(self, name)
        if not is_right or (value is not None and not math.isfinite(value)):
            raise ConfigError(name, f"got {value}, want {want}")
