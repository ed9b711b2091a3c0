"""From a scene to particles in a box of metres: one scale for all axes, masses from densities, floor and obstacles."""

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.errors import ConfigError, InputError, MissingDependencyError
from vision3d.geometry.mesh import face_normals
from vision3d.geometry.neighbors import knn
from vision3d.render.camera_paths import bulk_of, bulk_of_points
from vision3d.scene import Cameras, GaussianScene, Selection
from vision3d.stages.simulate.config import Boundary, SimulateConfig, Vector
from vision3d.stages.simulate.engines import Engine, choose_engine
from vision3d.stages.simulate.scene.bodies import (
    BodyParticles,
    Part,
    automatic_cells,
    find_parts,
    make_particles,
    velocities,
    warn_of_shape,
)
from vision3d.stages.simulate.scene.colliders import collider_field, seen_floor
from vision3d.stages.simulate.scene.followers import Followers
from vision3d.stages.simulate.scene.mesh_floors import stands_on, surface_samples
from vision3d.stages.simulate.scene.representations import FDrive, MeshVertices, Movable, Points3, Representation, represent
from vision3d.stages.simulate.scene.selecting import Selector
from vision3d.stages.simulate.scene.upright import Floor, UpFrom, floor_points, stand_upright
from vision3d.stages.simulate.setup.checks import check_extent, check_memory, check_speeds, check_steps
from vision3d.stages.simulate.setup.corner_particles import with_corners
from vision3d.stages.simulate.setup.obstacles import Placement, place_boundaries, place_winds, start_outside
from vision3d.stages.simulate.setup.prepared import Push, Setup
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.world import Motion, World

logger = logging.getLogger("vision3d.physics")

_PADDING = 3  # cells at the sides of the grid
_SMALL, _LARGE = 0.05, 20.0  # metres; what moves is never so small or large unless the options say so
_MOST = 2_000_000  # particles
_MOST_REFERENCE = 20_000


@torch.no_grad()
def set_up(
    scene: Movable,
    config: SimulateConfig,
    select: Selection | None = None,
    *,
    cameras: Cameras | None = None,
    default_up: Vector = (0.0, 0.0, 1.0),
    up_from: UpFrom = "caller",
) -> Setup:
    """Particles and world of a scene.

    Args:
        scene: Gaussians of any mode, Gaussians on a mesh, or a mesh.
        config: Options.
        select: What moves, in place of the options' `select`. The rest of the scene stays and is no obstacle.
        cameras: Of the photographs, for the upward direction.
        default_up: Upward direction where nothing else tells.
        up_from: Where that comes from: a file format that defines it, or a guess (`stand_upright`).

    Raises:
        InputError: The scene is empty or not finite, nothing is selected or opaque enough, a body begins in an obstacle, or a
            mesh cannot be used.
        ConfigError: An option does not fit the scene, or the grid needs more memory than there is.
        BackendError, MissingDependencyError: The engine does not run here.
    """
    scene.validate()
    engine = _engine(config.engine)
    representation = represent(scene, config)
    if config.friction and not any(body.material.contact_friction for body in config.all_bodies()):
        logger.warning(
            "friction %.3g has no effect: the friction_scale of what moves is 0 (water); set material.friction_scale",
            config.friction,
        )
    if config.grouping == "auto":
        config = replace(config, grouping="followers" if isinstance(representation, Points3) else "tracers")
    if isinstance(representation, FDrive) and representation.lost:
        logger.info("flattened: %.3g %% of the trace of the covariances is lost", 100 * representation.lost)
    points, solid = representation.points, representation.opacities >= config.min_opacity
    samples, weights, facing, faces = points, representation.opacities, None, None
    if isinstance(representation, MeshVertices):
        samples, rows = surface_samples(points, representation.triangles, config.seed)
        faces = representation.triangles[rows]
        facing, weights = face_normals(points, faces), torch.ones(len(samples))
    bulk = bulk_of(scene) if isinstance(scene, GaussianScene) else bulk_of_points(samples, weights)
    near, seen = ((places - bulk[0].to(points)).norm(dim=-1) < 1.5 * bulk[1] for places in (points, samples))
    facing = None if facing is None else facing[seen]
    up, floor = stand_upright(samples[seen], weights[seen], config, cameras, default_up, facing=facing, up_from=up_from)
    lying, apart, between, rough = None, None, None, 0.0
    if isinstance(representation, MeshVertices) and faces is not None:
        lying = torch.zeros_like(solid) if floor is None else ~stands_on(points, representation.triangles, floor)
        apart, between = lying, (samples, lying[faces].all(1))  # a mesh has no surroundings
    elif floor is not None:
        found = floor_points(floor, points, solid, representation.colors)
        lying, solid = found.lying, solid & ~found.hidden  # which go along with what they are under
        apart, rough = lying | ~near, min(found.rough, floor.thickness / 3)
    selector = Selector(points, representation.labels, solid, representation.noun, apart, representation.mask, between)
    given = None if select is None else representation.mask(select)
    parts = find_parts(representation, config, selector, lying, bulk, given)
    is_solid = torch.stack([part.solid for part in parts]).any(0)
    moving = torch.stack([part.members for part in parts]).any(0)
    low, high = points[is_solid].amin(0), points[is_solid].amax(0)
    center, longest = (low + high) / 2, float((high - low).max())
    if isinstance(scene, GaussianScene):  # a single one, or many at one place, are as large as themselves
        longest = max(longest, 2 * float(scene.scales[is_solid.to(scene.device)].median()))
    check_extent(scene, points[is_solid], longest)
    if isinstance(representation, FDrive):
        representation.longest = longest
    placement = Placement(center, _scale(config, longest))
    size = longest * placement.scale
    x = placement.to_metres(points)
    if floor is not None:
        x = torch.where(moving[:, None], x + config.drop * size * up, x)
    limit = config.max_particles or (_MOST_REFERENCE if engine.name == "reference" else _MOST)
    if isinstance(representation, Points3):
        limit = max(limit // (representation.rest.shape[-1] + 1), 1)
    cells = config.cells or automatic_cells([_some(x[part.solid], limit) for part in parts], size)
    spacing = size / cells
    base = _floor_height(config, floor, rough, placement, x[is_solid], up, size)
    ends = None
    if base is not None:
        space = _space(config, x[is_solid], size, spacing, placement)
        ends = seen_floor(config, representation, floor, moving, x, placement.scale, base * up, spacing, space)
    grid = _grid(config, x[is_solid], spacing, size, up, base, placement, ends is not None)
    check_memory(config, engine, grid, min(int(is_solid.sum() * config.share) + 1, limit), cells)
    closing = None if floor is None or base is None else (up, base + 0.5 * spacing + config.drop * size)
    share = limit // len(parts)
    bodies = [make_particles(part, x, representation, config, spacing, placement.scale, share, closing) for part in parts]
    for part, body in zip(parts, bodies):
        warn_of_shape(part, x[part.solid], body, size, spacing)
    boundaries, fields = place_boundaries(config, placement, spacing, up, base, ends)
    count = len(boundaries)
    is_chosen = select is not None or any(body.select for body in config.all_bodies())
    collider = collider_field(
        config, representation, moving, x, torch.cat([body.x for body in bodies]), placement.scale, grid, is_chosen
    )
    if collider is not None:
        name, field, is_placed = collider
        center = (0.0, 0.0, 0.0) if is_placed else placement.point((0.0, 0.0, 0.0))
        stands = Boundary("mesh", center, mesh=name, kind=config.floor_kind, friction=config.floor_friction)
        boundaries, fields = (*boundaries, stands), {**fields, name: field}
    world_parts = {
        "boundaries": boundaries,
        "fields": fields,
        "winds": place_winds(config, placement),
    }
    setup = _joined(config, engine, representation, parts, bodies, selector, x, grid, placement, up, world_parts)
    _check_inside(setup, parts, bodies)
    check_steps(config, parts, spacing)
    check_speeds(config, parts, grid, spacing)
    if isinstance(representation, Points3):
        setup = with_corners(setup)
    put = None
    if base is not None and floor is None:
        put = placement.to_scene(base * up[None])[0]
    text = "%d particles (%d of them inside bodies), grid of %s nodes, h = %.3g m, longest side %.3g m, %.4g kg; engine %s"
    nodes, mass = " x ".join(map(str, grid.shape)), float(setup.particles.mass.double().sum())
    logger.info(text, len(setup.particles), setup.num_inside, nodes, spacing, size, mass, engine.name)
    return replace(setup, floor_point=put, cameras=cameras, num_boundaries=count)


def _some(x: Tensor, count: int) -> Tensor:
    return x[:: max(1, len(x) // count)]


def _engine(name: str) -> type[Engine]:
    """The engine of this name; where a package that it needs is missing, the fastest of the others."""
    try:
        return choose_engine(name)
    except MissingDependencyError as error:
        found = choose_engine("auto")
        logger.warning("%s; engine %s is taken in its place", error, found.name)
        return found


def _joined(
    config: SimulateConfig,
    engine: type[Engine],
    representation: Representation,
    parts: list[Part],
    bodies: list[BodyParticles],
    selector: Selector,
    points: Tensor,
    grid: Grid,
    placement: Placement,
    up: Tensor,
    world_parts: dict[str, Any],
) -> Setup:
    """All bodies as one set of particles in their world."""
    dtype = torch.float64 if engine.name == "reference" else torch.float32
    materials = tuple(part.body.material for part in parts)
    starts = [0]
    for body in bodies:
        starts.append(starts[-1] + len(body.x))
    which = torch.cat([torch.full((len(body.x),), index) for index, body in enumerate(bodies)])
    x, volume = torch.cat([body.x for body in bodies]), torch.cat([body.volume for body in bodies])
    flows = [velocities(part.body, body.x, body.volume) for part, body in zip(parts, bodies)]
    v, C = torch.cat([flow[0] for flow in flows]), torch.cat([flow[1] for flow in flows])
    core_rows = torch.cat([body.cores for body in bodies])
    core_particles = torch.cat([start + torch.arange(len(body.cores)) for start, body in zip(starts, bodies)])
    followers = bodies[0].followers
    for start, body in zip(starts[1:], bodies[1:]):
        moved = body.followers
        followers = followers.joined(Followers(moved.rows, moved.parents + start, moved.weights, moved.offsets))
    reach = _Reach(points, core_rows, core_particles, x)
    motions, led = _motions(config, selector, reach, placement)
    gravity = (-config.gravity * up).tolist()
    world = World(grid, materials, (gravity[0], gravity[1], gravity[2]), motions=motions, **world_parts)
    particles = Particles.at_rest(x.to(dtype), volume.to(dtype), materials, which, v=v.to(dtype), C=C.to(dtype), motion=led)
    pushes = []
    for index, impulse in enumerate(sorted(config.impulses, key=lambda impulse: impulse.time)):
        is_in = torch.ones(len(x), dtype=torch.bool)
        if impulse.select:
            is_in = reach.particles(selector.mask(impulse.select, f"impulses[{index}].select"))
        pushes.append(Push(impulse.time, is_in.nonzero()[:, 0], impulse.velocity))
    inside = sum(body.num_inside for body in bodies)
    return Setup(
        particles, world, engine, representation, core_rows, core_particles, followers, tuple(pushes), placement.center,
        placement.scale, up, None, inside,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Reach:
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
            # Of all points of the scene the nearest one says where a particle inside belongs.
            nearest = knn(self.points, self.x[rows])[1][:, 0]
            found[rows] = mask[nearest]
        return found


def _motions(
    config: SimulateConfig, selector: Selector, reach: _Reach, placement: Placement
) -> tuple[tuple[Motion, ...], Int64[Tensor, " p"]]:
    motions: list[Motion] = []
    led = torch.full((len(reach.x),), -1, dtype=torch.int64)
    if config.fixed:
        is_in = reach.particles(selector.mask(config.fixed, "fixed"))
        _check_any(is_in, "fixed")
        led[is_in] = 0
        motions.append(Motion(end=math.inf if config.release is None else config.release))
    for index, lead in enumerate(config.leads):
        key = f"leads[{index}].select"
        is_in = reach.particles(selector.mask(lead.select, key))
        _check_any(is_in, key)
        led[is_in] = len(motions)
        if lead.center is None:
            x, y, z = reach.x[is_in].mean(0).tolist()
        else:
            x, y, z = placement.to_metres(torch.tensor([lead.center], dtype=torch.float64))[0].tolist()
        motions.append(Motion(lead.velocity, lead.angular_velocity, (x, y, z), lead.start, lead.end))
    return tuple(motions), led


def _check_any(is_in: Tensor, key: str) -> None:
    if not bool(is_in.any()):
        raise InputError(f"{key}: holds nothing of what moves, want at least one particle")


def _scale(config: SimulateConfig, longest: float) -> float:
    if config.size is not None:
        return config.size / longest
    if _SMALL <= longest <= _LARGE:
        return 1.0
    logger.info("what moves is %.3g units long: taken as 1 m (--size METRES changes it)", longest)
    return 1 / longest


def _floor_height(
    config: SimulateConfig,
    floor: Floor | None,
    rough: float,
    placement: Placement,
    x: Tensor,
    up: Tensor,
    size: float,
) -> float | None:
    """Of the floor along `up`, in the simulation [m]."""
    if config.floor == "none":
        return None
    if floor is not None:
        top = floor.normal * (floor.height + rough)
        return float(placement.to_metres(top[None])[0] @ up)
    return float((x @ up).min()) - config.drop * size


def _grid(
    config: SimulateConfig,
    x: Tensor,
    spacing: float,
    size: float,
    up: Tensor,
    base: float | None,
    placement: Placement,
    ends: bool,
) -> Grid:
    margin = config.room * size + (_PADDING + 1) * spacing
    low, high = x.amin(0), x.amax(0)
    if base is not None:  # room for what falls onto the floor
        lowest = float((x @ up).min())
        fall = min(base - lowest, 0.0) * up
        low, high = torch.minimum(low, low + fall), torch.maximum(high, high + fall)
    low, high = low - margin, high + margin
    if base is not None:  # and none below it
        axis = int(up.abs().argmax())
        tilt = float((up.abs().sum() - up.abs()[axis]) / up.abs()[axis]) * float((high - low).max())
        depth = base / float(up[axis])
        below = (_PADDING + 2) * spacing + tilt + (config.room * size if ends else 0.0)  # what leaves a floor falls on
        if up[axis] > 0:
            low[axis] = max(float(low[axis]), depth - below)
        else:
            high[axis] = min(float(high[axis]), depth + below)
        # But for what begins below it, which the floor lifts, or which is told.
        low, high = torch.minimum(low, x.amin(0) - below), torch.maximum(high, x.amax(0) + below)
    if config.box is not None:
        corners = placement.to_metres(torch.tensor(config.box, dtype=torch.float64).view(2, 3))
        is_out = ((x < corners[0]) | (x > corners[1])).any(-1)
        if bool(is_out.any()):
            raise ConfigError("box", f"{int(is_out.sum())} of {len(x)} points that move begin outside of it; make it larger")
        low, high = corners[0] - (_PADDING + 1) * spacing, corners[1] + (_PADDING + 1) * spacing
    counts = [math.ceil(length / spacing) + 1 for length in (high - low).tolist()]
    return Grid((float(low[0]), float(low[1]), float(low[2])), spacing, (counts[0], counts[1], counts[2]), _PADDING)


def _space(config: SimulateConfig, x: Tensor, size: float, spacing: float, placement: Placement) -> tuple[Tensor, Tensor]:
    """A box that the grid will not be larger than."""
    if config.box is not None:
        low, high = placement.to_metres(torch.tensor(config.box, dtype=torch.float64).view(2, 3))
    else:
        low, high = x.amin(0) - config.room * size, x.amax(0) + config.room * size
    return low - 16 * spacing, high + 16 * spacing


def _check_inside(setup: Setup, parts: list[Part], bodies: list[BodyParticles]) -> None:
    """Bodies may touch obstacles, but not begin inside of them."""
    first = 0
    for part, body in zip(parts, bodies):
        x = setup.particles.x[first : first + len(body.x)]
        first += len(body.x)
        buried = start_outside(setup.world, x)
        if buried is not None and buried[1] > 0.5 * len(x):
            raise InputError(
                f"{part.name}: {buried[1]} of its {len(x)} particles begin inside of obstacle {buried[0]}; move one of the two"
            )
