"""Converts a scene to particles in a box in meters: one scale for all axes, masses from densities, floor and obstacles."""

import logging
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import MissingDependencyError
from vision3d.geometry.mesh import face_normals
from vision3d.render.camera_paths import bulk_of, bulk_of_points
from vision3d.scene import Cameras, GaussianScene, Selection
from vision3d.scene.selecting import Selector
from vision3d.stages.simulate.config import AnimatedObstacle, Boundary, SimulateConfig, Vector
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
from vision3d.stages.simulate.scene.upright import Floor, UpFrom, floor_points, stand_upright
from vision3d.stages.simulate.setup.animated import AnimatedSolid, is_animated
from vision3d.stages.simulate.setup.checks import check_apart, check_extent, check_memory, check_speeds, check_steps
from vision3d.stages.simulate.setup.corner_particles import with_corners
from vision3d.stages.simulate.setup.motions import Reach, motions_of, pushes_of
from vision3d.stages.simulate.setup.obstacles import Placement, place_boundaries, place_winds
from vision3d.stages.simulate.setup.prepared import Setup
from vision3d.stages.simulate.setup.room import floor_space, grid_around
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.world import DistanceField, World

logger = logging.getLogger("vision3d.physics")

_SMALL, _LARGE = 0.05, 20.0  # meters; limits of the default size of the moving part
_MAX = 2_000_000  # maximum number of particles
_MAX_REFERENCE = 20_000


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
    """Creates particles and world of a scene.

    Args:
        scene: Gaussians of any mode, Gaussians on a mesh, or a mesh.
        config: Options.
        select: Selection of the moving part instead of `config.select`. The rest is static and not an obstacle.
        cameras: Cameras of the photos, for the up direction.
        default_up: Up direction if nothing else determines it.
        up_from: Source of `default_up`: a file format that defines it, or a guess (`stand_upright`).

    Raises:
        InputError: The scene is empty or not finite, nothing is selected or opaque enough, a body starts in an obstacle, or a
            mesh cannot be used.
        ConfigError: An option does not suit the scene, or the grid needs more memory than available.
        BackendError, MissingDependencyError: The engine is not available here.
    """
    builder = SceneBuilder(scene, config, select, cameras)
    ground = builder.find_ground(default_up, up_from)
    parts = builder.find_parts(ground)
    layout = builder.place(ground, parts)
    bodies = builder.fill(layout, parts)
    return builder.join(ground, layout, parts, bodies)


@dataclass(frozen=True, eq=False)
class Ground:
    """Up direction of a scene, and its points on the floor."""

    up: Float[Tensor, " 3"]
    floor: Floor | None
    """The detected floor; None if no floor was found or requested."""
    rough: float
    """Height of its roughness above its plane, in the scene's units."""
    lying: Bool[Tensor, " n"] | None
    """Mask of points in the floor or below it."""
    selector: Selector
    """Evaluates selections on the points; its `solid` points become particles."""
    bulk: tuple[Float[Tensor, " 3"], float]
    """Center and radius of the scene without its surroundings."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Placement of the scene in the simulation, and the grid."""

    placement: Placement
    longest: float
    """Longest side of the moving part, in the scene's units."""
    x: Float[Tensor, "n 3"]
    """Initial positions of the scene's points [m]."""
    moving: Bool[Tensor, " n"]
    base: float | None
    """Height of the floor along `up` [m]; None: no floor."""
    closing: tuple[Float[Tensor, " 3"], float] | None
    """Normal and height of the plane that closes bodies from below [m]."""
    ends: DistanceField | None
    """Distance field of the detected floor, which ends at its visible border; None: infinite, or no floor."""
    grid: Grid
    limit: int
    """Most particles."""

    @property
    def size(self) -> float:
        """Longest side of the moving part [m]."""
        return self.longest * self.placement.scale


class SceneBuilder:
    """Builds a `Setup` in steps: ground, parts, layout, particles, and their combination.

    Args:
        scene: Gaussians of any mode, Gaussians on a mesh, or a mesh.
        config: Options.
        select: Selection of the moving part instead of `config.select`.
        cameras: Cameras of the photos.

    Raises:
        InputError: The scene is empty or not finite, or a mesh cannot be used.
        ConfigError: An option does not suit the kind of scene.
        BackendError: The engine is not available here.
    """

    def __init__(
        self, scene: Movable, config: SimulateConfig, select: Selection | None = None, cameras: Cameras | None = None
    ) -> None:
        scene.validate()
        self.scene, self.select, self.cameras = scene, select, cameras
        self.engine = _engine(config.engine)
        self.representation: Representation = represent(scene, config)
        if config.friction and not any(body.material.contact_friction for body in config.all_bodies()):
            logger.warning(
                "friction %.3g has no effect: the friction_scale of the moving part is 0 (water); set material.friction_scale",
                config.friction,
            )
        if config.grouping == "auto":
            is_cloud = isinstance(self.representation, Points3)
            config = replace(config, grouping="followers" if is_cloud else "tracers")
        self.config = config
        if isinstance(self.representation, FDrive) and self.representation.lost:
            logger.info("flattened: %.3g %% of the trace of the covariances is lost", 100 * self.representation.lost)

    def find_ground(self, default_up: Vector = (0.0, 0.0, 1.0), up_from: UpFrom = "caller") -> Ground:
        """Up direction and floor, see `set_up`."""
        config, representation = self.config, self.representation
        points, solid = representation.points, representation.opacities >= config.min_opacity
        samples, weights, facing, faces = points, representation.opacities, None, None
        if isinstance(representation, MeshVertices):
            samples, rows = surface_samples(points, representation.triangles, config.seed)
            faces = representation.triangles[rows]
            facing, weights = face_normals(points, faces), torch.ones(len(samples))
        bulk = bulk_of(self.scene) if isinstance(self.scene, GaussianScene) else bulk_of_points(samples, weights)
        near, seen = ((places - bulk[0].to(points)).norm(dim=-1) < 1.5 * bulk[1] for places in (points, samples))
        facing = None if facing is None else facing[seen]
        up, floor = stand_upright(
            samples[seen], weights[seen], config, self.cameras, default_up, facing=facing, up_from=up_from
        )  # fmt: skip
        lying, apart, between, rough = None, None, None, 0.0
        if isinstance(representation, MeshVertices) and faces is not None:
            lying = torch.zeros_like(solid) if floor is None else ~stands_on(points, representation.triangles, floor)
            apart, between = lying, (samples, lying[faces].all(1))  # a mesh has no surroundings
        elif floor is not None:
            found = floor_points(floor, points, solid, representation.colors)
            lying, solid = found.lying, solid & ~found.hidden  # hidden points follow the object above them
            apart, rough = lying | ~near, min(found.rough, floor.thickness / 3)
        selector = Selector(points, representation.labels, solid, representation.noun, apart, representation.mask, between)
        return Ground(up, floor, rough, lying, selector, bulk)

    def find_parts(self, ground: Ground) -> list[Part]:
        """Selects the bodies of the options.

        Raises:
            InputError: Nothing is selected or opaque enough.
        """
        given = None if self.select is None else self.representation.mask(self.select)
        return find_parts(self.representation, self.config, ground.selector, ground.lying, ground.bulk, given)

    def place(self, ground: Ground, parts: list[Part]) -> Layout:
        """Chooses the scale, the floor and the grid.

        Raises:
            InputError: The moving part is too far away, too small or too large.
            ConfigError: The grid needs more memory than available, or does not contain the moving part.
        """
        config, up, floor, points = self.config, ground.up, ground.floor, self.representation.points
        is_solid = torch.stack([part.solid for part in parts]).any(0)
        moving = torch.stack([part.members for part in parts]).any(0)
        low, high = points[is_solid].amin(0), points[is_solid].amax(0)
        center, longest = (low + high) / 2, float((high - low).max())
        if isinstance(self.scene, GaussianScene):  # include their own size: points may coincide
            longest = max(longest, 2 * float(self.scene.scales[is_solid.to(self.scene.device)].median()))
        check_extent(self.scene, points[is_solid], longest)
        placement = Placement(center, _scale(config, longest))
        size = longest * placement.scale
        x = placement.to_metres(points)
        if floor is not None:
            x = torch.where(moving[:, None], x + config.drop * size * up, x)
        limit = config.max_particles or (_MAX_REFERENCE if self.engine.name == "reference" else _MAX)
        if isinstance(self.representation, Points3):
            limit = max(limit // (self.representation.rest.shape[-1] + 1), 1)
        cells = config.cells or automatic_cells([_some(x[part.solid], limit) for part in parts], size)
        spacing = size / cells
        base = _floor_height(config, ground, placement, x[is_solid], size)
        ends = None
        if base is not None:
            space = floor_space(config, x[is_solid], size, spacing, placement)
            ends = seen_floor(config, self.representation, floor, moving, x, placement.scale, base * up, spacing, space)
        grid = grid_around(config, x[is_solid], spacing, size, up, base, placement, ends is not None)
        check_memory(config, self.engine, grid, min(int(is_solid.sum() * config.share) + 1, limit), cells)
        closing = None if floor is None or base is None else (up, base + 0.5 * spacing + config.drop * size)
        return Layout(placement, longest, x, moving, base, closing, ends, grid, limit)

    def fill(self, layout: Layout, parts: list[Part]) -> list[BodyParticles]:
        """Fills each body with particles."""
        spacing, share = layout.grid.spacing, layout.limit // len(parts)
        bodies = []
        for part in parts:
            body = make_particles(
                part, layout.x, self.representation, self.config, spacing, layout.placement.scale, share, layout.closing
            )
            warn_of_shape(part, layout.x[part.solid], body, layout.size, spacing)
            bodies.append(body)
        return bodies

    def join(self, ground: Ground, layout: Layout, parts: list[Part], bodies: list[BodyParticles]) -> Setup:
        """Combines all bodies to one set of particles in their world.

        Raises:
            InputError: A body starts in an obstacle.
            ConfigError: Speeds or stiffness require too many time steps.
        """
        config, grid, placement = self.config, layout.grid, layout.placement
        x, counts = torch.cat([body.x for body in bodies]), [len(body.x) for body in bodies]
        starts = [sum(counts[:index]) for index in range(len(bodies))]
        core_rows = torch.cat([body.cores for body in bodies])
        core_particles = torch.cat([start + torch.arange(len(body.cores)) for start, body in zip(starts, bodies)])
        reach = Reach(layout.x, core_rows, core_particles, x)
        motions, motion_of = motions_of(config, ground.selector, reach, placement)
        animated = self._animated()
        boundaries, fields, count = self._solids(ground, layout, x, animated)
        materials = tuple(part.body.material for part in parts)
        gravity = (-config.gravity * ground.up).tolist()
        winds = place_winds(config, placement)
        world = World(grid, materials, (gravity[0], gravity[1], gravity[2]), boundaries, fields, winds, motions)
        flows = [velocities(part.body, body.x, body.volume) for part, body in zip(parts, bodies)]
        v, C = torch.cat([flow[0] for flow in flows]), torch.cat([flow[1] for flow in flows])
        volume, which = torch.cat([body.volume for body in bodies]), torch.arange(len(bodies))
        dtype = torch.float64 if self.engine.name == "reference" else torch.float32
        particles = Particles.at_rest(
            x.to(dtype), volume.to(dtype), materials, which.repeat_interleave(torch.tensor(counts)),
            v=v.to(dtype), C=C.to(dtype), motion=motion_of,
        )  # fmt: skip
        put = None
        if layout.base is not None and ground.floor is None:
            put = placement.to_scene(layout.base * ground.up[None])[0]
        setup = Setup(
            particles=particles,
            world=world,
            engine=self.engine,
            representation=self.representation.of_length(layout.longest),
            core_rows=core_rows,
            core_particles=core_particles,
            followers=_followers(bodies, starts),
            pushes=pushes_of(config.impulses, ground.selector, reach),
            center=placement.center,
            scale=placement.scale,
            up=ground.up,
            floor_point=put,
            num_inside=sum(body.num_inside for body in bodies),
            cameras=self.cameras,
            num_boundaries=count,
            animated=animated,
        )
        check_apart(setup, parts, bodies)
        check_steps(config, parts, grid.spacing)
        check_speeds(config, parts, grid, grid.spacing)
        if isinstance(self.representation, Points3):
            setup = with_corners(setup)
        text = "%d particles (%d of them inside bodies), grid of %s nodes, h = %.3g m, longest side %.3g m, %.4g kg; engine %s"
        nodes, mass = " x ".join(map(str, grid.shape)), float(setup.particles.mass.double().sum())
        logger.info(
            text, len(setup.particles), setup.num_inside, nodes, grid.spacing, layout.size, mass, self.engine.name
        )  # fmt: skip
        return setup

    def _animated(self) -> tuple[AnimatedSolid, ...]:
        """The animated meshes of the options, that of `collider` last."""
        config, found = self.config, list(self.config.animated)
        if self._has_animated_collider():
            found.append(AnimatedObstacle(config.collider, kind=config.floor_kind, friction=config.floor_friction))
        return tuple(AnimatedSolid.load(options) for options in found)

    def _has_animated_collider(self) -> bool:
        return self.config.collider not in ("auto", "none", "scene") and is_animated(self.config.collider)

    def _solids(
        self, ground: Ground, layout: Layout, x: Tensor, animated: tuple[AnimatedSolid, ...]
    ) -> tuple[tuple[Boundary, ...], dict[str, DistanceField], int]:
        """Boundaries, their distance fields, and the number of leading boundaries that are not from the collider."""
        config, placement, spacing = self.config, layout.placement, layout.grid.spacing
        times = torch.arange(max(config.frames, 2), dtype=torch.float64) / config.fps
        moving = [solid.boundaries(placement, spacing, times) for solid in animated]
        boundaries, fields = place_boundaries(config, placement, spacing, ground.up, layout.base, layout.ends, moving)
        count = len(boundaries)
        if self._has_animated_collider():
            return boundaries, fields, count
        is_chosen = self.select is not None or any(body.select for body in config.all_bodies())
        collider = collider_field(
            config, self.representation, layout.moving, layout.x, x, placement.scale, layout.grid, is_chosen
        )  # fmt: skip
        if collider is not None:
            name, field, is_placed = collider
            center = (0.0, 0.0, 0.0) if is_placed else placement.point((0.0, 0.0, 0.0))
            stands = Boundary("mesh", center, mesh=name, kind=config.floor_kind, friction=config.floor_friction)
            boundaries, fields = (*boundaries, stands), {**fields, name: field}
        return boundaries, fields, count


def _followers(bodies: list[BodyParticles], starts: list[int]) -> Followers:
    followers = bodies[0].followers
    for start, body in zip(starts[1:], bodies[1:]):
        moved = body.followers
        followers = followers.joined(Followers(moved.rows, moved.parents + start, moved.weights, moved.offsets))
    return followers


def _some(x: Tensor, count: int) -> Tensor:
    return x[:: max(1, len(x) // count)]


def _engine(name: str) -> type[Engine]:
    """The engine of this name; if a package it needs is missing, the fastest other one."""
    try:
        return choose_engine(name)
    except MissingDependencyError as error:
        found = choose_engine("auto")
        logger.warning("%s; using engine %s instead", error, found.name)
        return found


def _scale(config: SimulateConfig, longest: float) -> float:
    if config.size is not None:
        return config.size / longest
    if _SMALL <= longest <= _LARGE:
        return 1.0
    logger.info("the moving part is %.3g units long: scaled to 1 m (change it with --size METERS)", longest)
    return 1 / longest


def _floor_height(config: SimulateConfig, ground: Ground, placement: Placement, x: Tensor, size: float) -> float | None:
    """Height of the floor along `up`, in the simulation [m]."""
    if config.floor == "none":
        return None
    if ground.floor is not None:
        top = ground.floor.normal * (ground.floor.height + ground.rough)
        return float(placement.to_metres(top[None])[0] @ ground.up)
    return float((x @ ground.up).min()) - config.drop * size
