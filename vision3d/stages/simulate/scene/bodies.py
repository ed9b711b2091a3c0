"""Bodies of a scene, and their particles."""

import logging
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError
from vision3d.geometry.neighbors import knn
from vision3d.geometry.rotation import hat
from vision3d.geometry.voxels import connected_parts
from vision3d.scene.selecting import Selector, part_spacing
from vision3d.stages.simulate.config import Body, SimulateConfig
from vision3d.stages.simulate.scene.filling import Filling, Surface, fill_mesh, fill_surface
from vision3d.stages.simulate.scene.followers import Followers, clusters
from vision3d.stages.simulate.scene.representations import FDrive, MeshVertices, Representation, unused_vertices
from vision3d.stages.simulate.scene.sampling import matched_volumes, spread_out
from vision3d.stages.simulate.world.cells import cell_volumes, occupied_cells

logger = logging.getLogger("vision3d.physics")

_NEAR = 2.5  # radii of the center of a scene; beyond this are its surroundings


@dataclass(frozen=True, eq=False)
class Part:
    """One body: indices into the scene."""

    body: Body
    name: str
    members: Bool[Tensor, " n"]
    """Points that follow it."""
    solid: Bool[Tensor, " n"]
    """Points that are opaque enough to be particles."""


@dataclass(frozen=True, eq=False)
class BodyParticles:
    """The particles of one body."""

    x: Float[Tensor, "p 3"]
    """[m]: first those of scene points, then centers of clusters, then those inside."""
    volume: Float[Tensor, " p"]
    """[m^3]; 0 for tracers."""
    cores: Int64[Tensor, " c"]
    """Scene indices of the first particles, including tracers."""
    followers: Followers
    """Scene indices of the followers."""
    num_inside: int
    """Particles that fill the body."""
    thin_share: float = 0.0
    """Fraction of its points in parts thinner than a cell of the grid."""


def find_parts(
    representation: Representation,
    config: SimulateConfig,
    selector: Selector,
    lying: Bool[Tensor, " n"] | None,
    bulk: tuple[Float[Tensor, " 3"], float],
    select: Bool[Tensor, " n"] | None,
) -> list[Part]:
    """The bodies given by the options; `lying`: points of the floor or below it, which are static by default.

    Raises:
        InputError: Nothing is selected, or none of it is opaque enough.
    """
    points, solid = representation.points, selector.solid
    parts, taken = [], torch.zeros(len(points), dtype=torch.bool)
    bodies = config.all_bodies()
    order = sorted(range(len(bodies)), key=lambda i: not bodies[i].select or "rest" in bodies[i].select)
    found: dict[int, Part] = {}
    for index in order:
        body, key = bodies[index], f"bodies[{index}].select" if config.bodies else "select"
        name = body.name or (f"body {index}" if config.bodies else "the moving part")
        if select is not None and not config.bodies:
            members = select
            if not bool(members.any()):
                raise InputError(f"selection: holds none of {len(points)} {representation.noun}, want at least one")
        elif body.select:
            members = selector.mask(body.select, key, taken)
        else:
            members = _default_members(representation, selector, lying, bulk) & ~taken
        members = members & ~taken & ~unused_vertices(representation)
        own = members & solid
        if not bool(own.any()):
            raise InputError(_why_nothing(representation, config, name, members, taken))
        if isinstance(representation, FDrive):  # static vertices would stretch their faces
            own = without_floaters(points, own, config, name)
        members = own | (_followers_of(points, members & ~solid, own) if isinstance(representation, FDrive) else own)
        taken = taken | members
        found[index] = Part(body, name, members, own)
    parts = [found[index] for index in range(len(bodies))]
    return parts


def make_particles(
    part: Part,
    x: Float[Tensor, "n 3"],
    representation: Representation,
    config: SimulateConfig,
    spacing: float,
    scale: float,
    limit: int,
    floor: tuple[Float[Tensor, " 3"], float] | None,
) -> BodyParticles:
    """Particles of a body, with volumes independent of its number of Gaussians.

    Args:
        part: The body.
        x: All points of the scene [m].
        representation: Representation of the scene.
        config: Options.
        spacing: Spacing of the grid [m].
        scale: Meters per unit of the scene.
        limit: Maximum number of particles.
        floor: The visible floor, which closes bodies standing on it [m].
    """
    rows = part.solid.nonzero()[:, 0]
    filling = _filling(part, x, representation, spacing, scale, floor, rows)
    thin_share = 0.0 if filling is None else filling.thin_share
    if filling is None:
        volumes, inside = cell_volumes(x[rows], spacing), x.new_zeros(0, 3)
        inside_volumes = x.new_zeros(0)
    else:
        volumes, inside, inside_volumes = filling.surface_volumes, filling.points, filling.point_volumes
    if len(inside) > limit // 2:  # use fewer, larger ones
        keep = torch.randperm(len(inside), generator=_generator(config))[: limit // 2].sort().values
        factor = inside_volumes.sum() / inside_volumes[keep].sum()
        inside, inside_volumes = inside[keep], inside_volumes[keep] * factor
    wanted = min(max(1, round(config.share * len(rows))), max(1, limit - len(inside)))
    others = (part.members & ~part.solid).nonzero()[:, 0]
    if wanted < len(rows) and config.grouping == "hierarchy":
        centers, which = clusters(x[rows], wanted)
        sums = volumes.new_zeros(len(centers)).index_add_(0, which, volumes)
        particles, volume = torch.cat([centers, inside]), torch.cat([sums, inside_volumes])
        followers = Followers.of(rows, x[rows], particles, which).joined(Followers.around(others, x[others], particles))
        return BodyParticles(particles, volume, rows[:0], followers, len(inside), thin_share)
    cores, tracers = rows, rows[:0]
    if wanted < len(rows):
        drawn = spread_out(x[rows], wanted, _generator(config))
        cores = rows[drawn]
        volumes = matched_volumes(x[rows], volumes, x[cores], spacing)
        left = torch.ones(len(rows), dtype=torch.bool).index_fill_(0, drawn, False)
        if config.grouping == "tracers":
            tracers = rows[left]
        elif config.grouping != "none":
            others = torch.cat([others, rows[left]])
        logger.info(
            "%s: %d of %d Gaussians are simulated, the others follow (%s)", part.name, wanted, len(rows), config.grouping
        )
    particles = torch.cat([x[cores], x[tracers], inside])
    volume = torch.cat([volumes, volumes.new_zeros(len(tracers)), inside_volumes])
    cores = torch.cat([cores, tracers])
    if config.grouping == "none":
        others = others[:0]
    followers = Followers.around(others, x[others], particles)
    return BodyParticles(particles, volume, cores, followers, len(inside), thin_share)


def automatic_cells(parts: list[Tensor], longest: float) -> int:
    """Cells along the longest side such that occupied cells have about 6 points on average: 16 to 64.

    Args:
        parts: Points of each body [m].
        longest: Longest side [m].
    """
    chosen = _CELLS[0]
    for cells in _CELLS[1:]:
        counts = [occupied_cells(x, longest / cells)[1] for x in parts]
        if sum(len(x) for x in parts) < _PER_CELL * sum(len(count) for count in counts):
            break
        chosen = cells
    return chosen


def warn_of_shape(part: Part, x: Float[Tensor, "c 3"], particles: BodyParticles, longest: float, spacing: float) -> None:
    """Warn if the grid is too coarse or too fine for a body."""
    thinnest = float((x.amax(0) - x.amin(0)).min())
    if thinnest < spacing:
        want = math.ceil(longest / thinnest) if thinnest > 0 else None
        hint = f"{want} cells would resolve it" if want else "no number of cells resolves a sheet"
        logger.warning("%s is %.3g m thin, less than a cell of %.3g m; %s", part.name, thinnest, spacing, hint)
    elif thinnest < _THIN * spacing and part.body.material.law in _COHESIVE:
        text = "%s is %.3g m thin, %.2g cells, and bends 1.2 to 1.5 times too far; %d cells make it three (10 %% too far)"
        logger.warning(text, part.name, thinnest, thinnest / spacing, math.ceil(3 * longest / thinnest))
    elif particles.thin_share > _MAX_THIN and part.body.material.law in _COHESIVE:
        text = "%s: %.2g %% of its points are in parts thinner than a cell of %.3g m, %s"
        hint = "which bend too far and may break off; use a stiffer material (--preset rubber)"
        logger.warning(text, part.name, 100 * particles.thin_share, spacing, hint)
    per_cell = int((particles.volume > 0).sum()) * spacing**3 / float(particles.volume.sum())
    if per_cell < 3:
        text = "%s: got %.1f particles per cell, want 4 to 8 so that bodies hold together; use fewer cells"
        logger.warning(text, part.name, per_cell)
    elif part.body.material.law in _COHESIVE and thinnest >= spacing:
        _warn_of_fragments(part.name, particles, spacing)


def _warn_of_fragments(name: str, particles: BodyParticles, spacing: float) -> None:
    """Warn about particles with an empty cell all around: they share no grid nodes with others, so nothing holds them."""
    count, heavy = len(particles.cores), particles.volume > 0
    parts = connected_parts(particles.x[heavy], spacing)
    sizes = torch.bincount(parts)
    number = int((sizes < _FRAGMENT * len(parts))[parts[: int(heavy[:count].sum())]].sum())
    if number >= _MIN_LOOSE * count:
        text = (
            "%s: %d of %d points are more than a cell of %.3g m from the rest and move on their own; use fewer cells or fill it"
        )
        logger.warning(text, name, number, count, spacing)


def velocities(
    body: Body, x: Float[Tensor, "p 3"], volume: Float[Tensor, " p"]
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 3 3"]]:
    """Initial velocities [m/s] and their gradients, without which a rotating body would lose energy in its first step."""
    center = (x * volume[:, None]).sum(0) / volume.sum()
    spin = x.new_tensor(body.angular_velocity)
    v = x.new_tensor(body.velocity) + torch.linalg.cross(spin.expand_as(x), x - center)
    return v, hat(spin).expand(len(x), 3, 3).contiguous()


_THIN = 2  # cells: a beam two cells thick sags 17 % too far, one cell 48 % (benchmarks/bench_mechanics.py)
_MAX_THIN = 0.03  # fraction of the points of a body in parts thinner than a cell without a warning
_COHESIVE = ("corotated", "neo_hookean", "hencky", "von_mises", "viscoplastic")
_FRAGMENT = 0.002  # fraction of the particles of a body
_MIN_LOOSE = 0.005  # fraction of its points
_CELLS = (16, 20, 24, 32, 40, 48, 64)
_PER_CELL = 6


def _default_members(
    representation: Representation, selector: Selector, lying: Tensor | None, bulk: tuple[Tensor, float]
) -> Tensor:
    points = representation.points
    members = torch.ones(len(points), dtype=torch.bool)
    if not isinstance(representation, MeshVertices):  # a mesh has no surroundings
        near = (points - bulk[0].to(points)).norm(dim=-1) < _NEAR * bulk[1]
        members = near if bool((near & selector.solid).any()) else members
    if lying is not None:
        above = members & ~lying
        members = above if bool((above & selector.solid).any()) else members
    return members


def without_floaters(
    points: Float[Tensor, "n 3"], own: Bool[Tensor, " n"], config: SimulateConfig, name: str
) -> Bool[Tensor, " n"]:
    """`own` without small, separate parts."""
    if config.min_component == 0:
        return own
    selector = Selector(points, None, own)
    sizes = torch.bincount(selector.parts[own])
    small = (sizes < config.min_component * int(own.sum()))[selector.parts.clamp(min=0)] & own
    if bool(small.any()):
        text = "%s: %d Gaussians in %d small parts apart from it are floaters: they %s"
        count = len(torch.unique(selector.parts[small]))
        logger.warning(text, name, int(small.sum()), count, "stay in the air (--min-component 0 moves them)")
    return own & ~small


def _followers_of(points: Tensor, faint: Tensor, own: Tensor) -> Tensor:
    """Faint Gaussians near the moving ones, without floaters."""
    rows, solid = faint.nonzero()[:, 0], own.nonzero()[:, 0]
    result = torch.zeros_like(faint)
    if len(rows):
        distances = knn(points[solid], points[rows])[0][:, 0]
        result[rows[distances < 2 * part_spacing(points[solid])]] = True
    return result


def _filling(
    part: Part,
    x: Tensor,
    representation: Representation,
    spacing: float,
    scale: float,
    floor: tuple[Tensor, float] | None,
    rows: Tensor,
) -> Filling | None:
    fill = part.body.fill
    if fill == "none":
        return None
    if fill == "mesh" and not isinstance(representation, MeshVertices):
        raise ConfigError("fill", "mesh needs a mesh or Gaussians on a mesh (.safetensors); want density")
    if isinstance(representation, MeshVertices):
        faces = representation.triangles[part.solid[representation.triangles].all(1)]
        number = torch.zeros(len(x), dtype=torch.int64)
        number[rows] = torch.arange(len(rows))
        filling = fill_mesh(x[rows], number[faces], spacing) if len(faces) else None
    else:
        assert isinstance(representation, FDrive)
        scene = representation.scene
        scales = scene.scales.detach().cpu()[rows].double() * scale
        surface = Surface(x[rows], scene.quats.detach().cpu()[rows], scales, representation.opacities[rows])
        filling = fill_surface(surface, spacing, floor)
    if fill != "auto" and (filling is None or not filling.num_enclosed):
        logger.warning("%s: encloses no volume, nothing is filled", part.name)
    if filling is None:
        return None
    inside, along = filling.num_enclosed, len(filling.points) - filling.num_enclosed
    text = "%s: %d particles fill it, %d more lie on its surface, %.3g m^3 in all"
    logger.info(text, part.name, inside, along, filling.volume)
    return filling


def _why_nothing(representation: Representation, config: SimulateConfig, name: str, members: Tensor, taken: Tensor) -> str:
    if not bool(members.any()):
        others = f"{int(taken.sum())} are of other bodies"
        return f"{name}: no particles are left of {len(members)} {representation.noun}, {others}; want at least one"
    highest = float(representation.opacities[members].max())
    return (
        f"scene: no opacity of {int(members.sum())} Gaussians is above min_opacity = {config.min_opacity:g}, "
        f"the highest is {highest:.3g}; lower min_opacity"
    )


def _generator(config: SimulateConfig) -> torch.Generator:
    return torch.Generator().manual_seed(config.seed)
