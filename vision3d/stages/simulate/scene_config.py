"""Options for moving bodies and what acts on them: obstacles, wind, kinematic parts, impulses."""

import math
from dataclasses import dataclass, field
from typing import Literal

from vision3d.core.errors import ConfigError
from vision3d.stages.simulate.materials.config import Material, jelly

Vector = tuple[float, float, float]
Fill = Literal["auto", "none", "density", "mesh"]
EVERYWHERE: tuple[Vector, Vector] = (-math.inf, -math.inf, -math.inf), (math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class Boundary:
    """A solid that particles collide with."""

    shape: Literal["plane", "box", "sphere", "mesh"] = "plane"
    """plane: the solid is the half-space behind it. Others: the solid is the inside, or the outside (`hollow`)."""
    center: Vector = (0.0, 0.0, 0.0)
    """A point of the plane, or the center (of a mesh: its origin), at time `start` [m]."""
    normal: Vector = (0.0, 0.0, 1.0)
    """Normal of the plane, towards the free side; any length > 0."""
    half_size: Vector = (0.5, 0.5, 0.5)
    """Half edge lengths of the box, along its own axes [m]."""
    radius: float = 0.5
    """Radius of the sphere [m]."""
    mesh: str = ""
    """Key of the mesh."""
    hollow: bool = False
    """Whether a box, sphere or mesh is a container."""
    kind: Literal["sticky", "slip", "separate"] = "separate"
    """sticky: no motion relative to it; slip: no motion through its surface either way; separate: no motion inwards."""
    friction: float = 0.0
    """Coulomb friction coefficient, for slip and separate; at least 0."""
    velocity: Vector = (0.0, 0.0, 0.0)
    """Velocity of the solid's center [m/s]."""
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Orientation of a box or mesh at time `start`, wxyz, own axes to world axes; any length > 0."""
    angular_velocity: Vector = (0.0, 0.0, 0.0)
    """About the center, along world axes [rad/s]."""
    start: float = 0.0
    """Time at which it appears [s]."""
    end: float = math.inf
    """Time at which it disappears [s]."""

    def __post_init__(self) -> None:
        for name, choices in (("shape", ("plane", "box", "sphere", "mesh")), ("kind", ("sticky", "slip", "separate"))):
            if getattr(self, name) not in choices:
                raise ConfigError(name, f"got {getattr(self, name)!r}, want one of {', '.join(choices)}")
        for name in ("center", "normal", "half_size", "velocity", "angular_velocity"):
            if len(getattr(self, name)) != 3 or not all(map(math.isfinite, getattr(self, name))):
                raise ConfigError(name, f"got {getattr(self, name)}, want three numbers")
        if len(self.quat) != 4 or not all(map(math.isfinite, self.quat)) or not any(self.quat):
            raise ConfigError("quat", f"got {self.quat}, want four numbers, not all 0")
        if (self.shape == "mesh") != bool(self.mesh):
            raise ConfigError("mesh", f"got {self.mesh!r} for shape {self.shape}, want a mesh for shape mesh and for no other")
        if not any(self.normal):
            raise ConfigError("normal", "got (0, 0, 0), want a direction")
        if min(self.half_size) <= 0:
            raise ConfigError("half_size", f"got {self.half_size}, want lengths > 0")
        if not 0 < self.radius < math.inf:
            raise ConfigError("radius", f"got {self.radius}, want a length > 0")
        if not 0 <= self.friction < math.inf:
            raise ConfigError("friction", f"got {self.friction}, want a number of at least 0")
        if not self.start < self.end:
            raise ConfigError("end", f"got {self.end}, want a time after start = {self.start}")


@dataclass(frozen=True)
class Wind:
    """Wind with drag: v += (1 - exp(-drag dt)) (velocity - v) at the nodes in its box."""

    velocity: Vector
    """[m/s]."""
    drag: float = 1.0
    """Drag rate [1/s]."""
    low: Vector = EVERYWHERE[0]
    """Lower corner of the box with wind [m]."""
    high: Vector = EVERYWHERE[1]
    """Upper corner [m]."""
    start: float = 0.0
    """Time at which it starts [s]."""
    end: float = math.inf
    """Time at which it stops [s]."""

    def __post_init__(self) -> None:
        if len(self.velocity) != 3 or not all(map(math.isfinite, self.velocity)):
            raise ConfigError("velocity", f"got {self.velocity}, want three numbers")
        if not 0 < self.drag < math.inf:
            raise ConfigError("drag", f"got {self.drag}, want a number > 0")
        if not all(low < high for low, high in zip(self.low, self.high)):
            raise ConfigError("high", f"got {self.high}, want each more than low = {self.low}")
        if not self.start < self.end:
            raise ConfigError("end", f"got {self.end}, want a time after start = {self.start}")


@dataclass(frozen=True)
class Motion:
    """Prescribed rigid motion of kinematic particles within a time window. All zero: they are held in place."""

    velocity: Vector = (0.0, 0.0, 0.0)
    """[m/s]."""
    angular_velocity: Vector = (0.0, 0.0, 0.0)
    """About `center`, along world axes [rad/s]."""
    center: Vector = (0.0, 0.0, 0.0)
    """Center at time `start` [m]; it moves with `velocity`."""
    start: float = 0.0
    """Time from which the particles are kinematic [s]."""
    end: float = math.inf
    """Time at which they are released [s]."""

    def __post_init__(self) -> None:
        for name in ("velocity", "angular_velocity", "center"):
            if len(getattr(self, name)) != 3 or not all(map(math.isfinite, getattr(self, name))):
                raise ConfigError(name, f"got {getattr(self, name)}, want three numbers")
        if not self.start < self.end:
            raise ConfigError("end", f"got {self.end}, want a time after start = {self.start}")

    def center_at(self, time: float) -> Vector:
        """[m]."""
        x, y, z = (c + (time - self.start) * v for c, v in zip(self.center, self.velocity))
        return x, y, z

    def is_on(self, time: float) -> bool:
        """Whether the time is within its window."""
        return self.start <= time < self.end


@dataclass(frozen=True)
class Keyframe:
    """Pose of a solid at a time."""

    time: float
    """[s]."""
    center: Vector
    """Center, in the scene's units."""
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Orientation, wxyz, own axes to scene axes; any length > 0."""

    def __post_init__(self) -> None:
        check_numbers("center", self.center, 3)
        check_numbers("quat", self.quat, 4)
        if not any(self.quat):
            raise ConfigError("quat", f"got {self.quat}, want four numbers, not all 0")
        if not 0 <= self.time < math.inf:
            raise ConfigError("time", f"got {self.time}, want a time of at least 0")


@dataclass(frozen=True)
class Mover:
    """A solid that moves from keyframe to keyframe at constant velocities; before and after, it stands still."""

    solid: Boundary
    """The solid; its center, quaternion, velocities and time window come from the keyframes."""
    keyframes: tuple[Keyframe, ...]
    """At least one, times ascending."""

    def __post_init__(self) -> None:
        if not self.keyframes:
            raise ConfigError("keyframes", "got none, want at least one")
        for before, after in zip(self.keyframes, self.keyframes[1:]):
            if not before.time < after.time:
                raise ConfigError("keyframes", f"times {before.time} and {after.time} do not ascend")
        if self.solid.shape == "plane" and any(frame.quat != (1.0, 0.0, 0.0, 0.0) for frame in self.keyframes):
            raise ConfigError("keyframes", "a plane has a normal and no quat; rotate boxes, spheres or meshes")


@dataclass(frozen=True)
class AnimatedObstacle:
    """A mesh with joints that plays a clip: the part of each joint is a convex solid, which moves with it."""

    mesh: str
    """Path of a .glb or .gltf with joints and a clip."""
    clip: str = ""
    """Name of the clip; empty: the first."""
    center: Vector = (0.0, 0.0, 0.0)
    """Position of the mesh's origin, in the scene's units."""
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Orientation, wxyz, the mesh's axes to scene axes; any length > 0."""
    scale: float = 1.0
    """Units of the scene per unit of the mesh."""
    kind: Literal["sticky", "slip", "separate"] = "separate"
    """As of `Boundary`."""
    friction: float = 0.0
    """Coulomb friction coefficient; at least 0."""
    start: float = 0.0
    """Time at which the clip starts [s]; before and after it, the mesh stands still."""

    def __post_init__(self) -> None:
        if not self.mesh:
            raise ConfigError("mesh", "got none, want a .glb with joints and a clip")
        Boundary("mesh", self.center, mesh=self.mesh, quat=self.quat, kind=self.kind, friction=self.friction)  # checks them
        for name, is_right, want in (
            ("scale", 0 < self.scale < math.inf, "a number > 0"),
            ("start", 0 <= self.start < math.inf, "a time of at least 0"),
        ):
            if not is_right:
                raise ConfigError(name, f"got {getattr(self, name)}, want {want}")


@dataclass(frozen=True)
class KinematicPart:
    """A part that is held in place (all velocities 0) or moved rigidly within a time window; then it is released."""

    select: tuple[str, ...]
    """Selection of the part, as `select` of a body."""
    velocity: Vector = (0.0, 0.0, 0.0)
    """[m/s], along scene axes."""
    angular_velocity: Vector = (0.0, 0.0, 0.0)
    """About `center` [rad/s]."""
    center: Vector | None = None
    """In the scene's units; None: the center of the part."""
    start: float = 0.0
    """Time from which it is kinematic [s]."""
    end: float = math.inf
    """Time of its release [s]."""

    def __post_init__(self) -> None:
        if not self.select:
            raise ConfigError("select", "got nothing, want at least one selection")
        Motion(self.velocity, self.angular_velocity, self.center or (0.0, 0.0, 0.0), self.start, self.end)  # checks them


@dataclass(frozen=True)
class Impulse:
    """An instantaneous change of velocities."""

    velocity: Vector
    """Added to the velocities [m/s], along scene axes."""
    time: float = 0.0
    """[s]."""
    select: tuple[str, ...] = ()
    """Selection of the part, as `select` of a body; empty: everything that moves."""

    def __post_init__(self) -> None:
        check_numbers("velocity", self.velocity, 3)
        if not 0 <= self.time < math.inf:
            raise ConfigError("time", f"got {self.time}, want a time of at least 0")


@dataclass(frozen=True)
class Body:
    """A moving body of one material."""

    material: Material = field(default_factory=jelly)
    """Material: the name of a preset, or values; `preset` among them gives the defaults of the others."""
    select: tuple[str, ...] = ()
    """Selection, a union of: box:CX,CY,CZ,HX,HY,HZ (half edges), sphere:CX,CY,CZ,R, plane:PX,PY,PZ,NX,NY,NZ (points in front),
    label:N, component[:N] (the largest connected one, or the N-th), rest (points of no other body), all, or the path of a
    .json. Empty: the rest."""
    velocity: Vector = (0.0, 0.0, 0.0)
    """At the start, along scene axes [m/s]."""
    angular_velocity: Vector = (0.0, 0.0, 0.0)
    """At the start, about its center [rad/s]."""
    fill: Fill = "auto"
    """As of `SimulateConfig`."""
    name: str = ""
    """For messages."""

    def __post_init__(self) -> None:
        check_numbers("velocity", self.velocity, 3)
        check_numbers("angular_velocity", self.angular_velocity, 3)


def check_numbers(name: str, values: tuple[float, ...], count: int) -> None:
    """Raise unless these are `count` finite numbers.

    Raises:
        ConfigError: They are not.
    """
    if len(values) != count or not all(map(math.isfinite, values)):
        words = {2: "two", 3: "three", 4: "four"}
        raise ConfigError(name, f"got {values}, want {words[count]} numbers")
