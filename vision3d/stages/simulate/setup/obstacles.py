"""Obstacles and winds of the options, converted to the simulation's meters."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.quaternion import multiply, quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.rotation import so3_log
from vision3d.stages.simulate.config import Boundary, Mover, SimulateConfig, Vector, Wind
from vision3d.stages.simulate.scene.colliders import FLOOR, floor_frame
from vision3d.stages.simulate.world.boundaries import distance
from vision3d.stages.simulate.world.fields import load_mesh, mesh_field
from vision3d.stages.simulate.world.world import DistanceField, World


@dataclass(frozen=True, eq=False)
class Placement:
    """Similarity transform between scene and simulation."""

    center: Float[Tensor, " 3"]
    """Origin of the simulation, in the scene."""
    scale: float
    """Meters per unit of the scene."""

    def to_metres(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Scene coordinates to simulation coordinates."""
        return (points.double() - self.center) * self.scale

    def to_scene(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Simulation coordinates to scene coordinates."""
        return x.double() / self.scale + self.center

    def boundary(self, boundary: Boundary) -> Boundary:
        """Converts a boundary to simulation coordinates; its velocities are in m/s already."""
        a, b, c = (self.scale * length for length in boundary.half_size)
        return replace(boundary, center=self.point(boundary.center), half_size=(a, b, c), radius=self.scale * boundary.radius)

    def point(self, point: Vector) -> Vector:
        """Converts one point to simulation coordinates."""
        x, y, z = self.to_metres(torch.tensor([point], dtype=torch.float64))[0].tolist()
        return x, y, z


def place_boundaries(
    config: SimulateConfig,
    placement: Placement,
    spacing: float,
    up: Float[Tensor, " 3"],
    base: float | None,
    floor: DistanceField | None = None,
    moving: Iterable[tuple[list[Boundary], dict[str, DistanceField]]] = (),
) -> tuple[tuple[Boundary, ...], dict[str, DistanceField]]:
    """All boundaries of the options, the floor last, and the distance fields of the meshes.

    Args:
        config: Options.
        placement: Placement of the simulation.
        spacing: Spacing of the grid [m].
        up: Up direction, unit length.
        base: Height of the floor along `up` [m]; None: no floor.
        floor: Distance field of a floor that ends, in its `floor_frame` at that height.
        moving: Boundaries of animated meshes and their fields.

    Raises:
        InputError: A mesh cannot be read, or encloses nothing.
    """
    scaled = [placement.boundary(boundary) for boundary in config.boundaries]
    for mover in config.movers:
        scaled += keyframed(mover, placement)
    names = {boundary.mesh for boundary in scaled if boundary.mesh}
    fields = {name: mesh_field(load_mesh(name), placement.scale, spacing) for name in sorted(names)}
    for solids, of_solids in moving:
        scaled += solids
        fields |= of_solids
    if base is not None:
        contact = {"kind": config.floor_kind, "friction": config.floor_friction}
        foot = _triple((base * up).tolist())
        if floor is None:
            scaled.append(Boundary("plane", foot, _triple(up.tolist()), **contact))
        else:
            fields[FLOOR] = floor
            w, x, y, z = rotmat_to_quat(floor_frame(up)).tolist()
            scaled.append(Boundary("mesh", foot, mesh=FLOOR, quat=(w, x, y, z), **contact))
    return tuple(scaled), fields


def keyframed(mover: Mover, placement: Placement) -> list[Boundary]:
    """One boundary per segment of a mover's path, in simulation coordinates: before, between and after its keyframes."""
    solid, frames = placement.boundary(mover.solid), mover.keyframes
    still = {"velocity": (0.0, 0.0, 0.0), "angular_velocity": (0.0, 0.0, 0.0)}

    def at(index: int, **values: object) -> Boundary:
        frame = frames[index]
        return replace(solid, center=placement.point(frame.center), quat=frame.quat, **values)  # pyright: ignore

    found = []
    if frames[0].time > 0:
        found.append(at(0, start=0.0, end=frames[0].time, **still))
    for index, (before, after) in enumerate(itertools.pairwise(frames)):
        seconds = after.time - before.time
        start, end = (torch.tensor(placement.point(frame.center), dtype=torch.float64) for frame in (before, after))
        spin = turn_between(before.quat, after.quat) / seconds
        velocity, angular = _triple(((end - start) / seconds).tolist()), _triple(spin.tolist())
        found.append(at(index, start=before.time, end=after.time, velocity=velocity, angular_velocity=angular))
    found.append(at(len(frames) - 1, start=frames[-1].time, end=float("inf"), **still))
    return found


def place_winds(config: SimulateConfig, placement: Placement) -> tuple[Wind, ...]:
    """Winds in simulation coordinates."""
    return tuple(replace(w, low=placement.point(w.low), high=placement.point(w.high)) for w in config.winds)


def start_outside(world: World, x: Float[Tensor, "n 3"]) -> tuple[int, int] | None:
    """The boundary with the most particles over one cell inside it at the start, and their number; None if none."""
    worst = None
    for index, boundary in enumerate(world.boundaries):
        if boundary.start > 0:
            continue
        depths, _ = distance(boundary, x.double(), 0.0, world.fields.get(boundary.mesh))
        count = int((depths < -world.grid.spacing).sum())
        if count and (worst is None or count > worst[1]):
            worst = index, count
    return worst


def turn_between(before: tuple[float, ...], after: tuple[float, ...]) -> Float[Tensor, " 3"]:
    """Rotation vector from one orientation to the other, at most 180 degrees, along world axes."""
    first, second = torch.tensor(before, dtype=torch.float64), torch.tensor(after, dtype=torch.float64)
    inverse = first * first.new_tensor([1.0, -1.0, -1.0, -1.0])
    return so3_log(quat_to_rotmat(multiply(second, inverse)))


def _triple(values: list[float]) -> Vector:
    x, y, z = values
    return x, y, z
