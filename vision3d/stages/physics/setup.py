"""From a scene to particles in a box of metres: one scale for all axes, masses from densities, floor and obstacles."""

import logging
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.errors import ConfigError, InputError
from vision3d.geometry.neighbors import knn
from vision3d.scene import GaussianScene, Selection
from vision3d.stages.physics.config import Boundary, SimulateConfig
from vision3d.stages.physics.particles import Grid, Particles
from vision3d.stages.physics.world import World

logger = logging.getLogger("vision3d.physics")

_NEIGHBORS = 4
_PADDING = 3  # cells at the sides of the grid
_BYTES_A_NODE, _BYTES_A_PARTICLE = 130, 4000  # of the reference engine in float64, at its peak


@dataclass(frozen=True, eq=False)
class Setup:
    """A scene ready to move."""

    particles: Particles
    """Those Gaussians that are simulated, in metres about the middle of the grid's box."""
    world: World
    cores: Int64[Tensor, " c"]
    """Rows of the scene that are simulated."""
    followers: "Followers"
    """Those that go along."""
    center: Float[Tensor, " 3"]
    """What is 0 in the simulation, in the scene."""
    scale: float
    """Metres in the unit of the scene, the same along all axes."""

    def to_scene(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Positions of the simulation in the scene."""
        return x / self.scale + self.center


@dataclass(frozen=True, eq=False)
class Followers:
    """Points that go with the simulated points around them: x = sum w_j (x_j + F_j (X - X_j)), F = sum w_j F_j.

    Exact for affine motions. Weights are (1 - d_j / d_last)^2 of the four nearest at rest, 0 at the fifth.
    """

    rows: Int64[Tensor, " f"]
    """Rows of the scene."""
    parents: Int64[Tensor, "f k"]
    """Rows of the particles."""
    weights: Float[Tensor, "f k"]
    offsets: Float[Tensor, "f k 3"]
    """X - X_j [m]."""

    @classmethod
    def around(cls, rows: Int64[Tensor, " f"], points: Float[Tensor, "f 3"], particles: Float[Tensor, "c 3"]) -> "Followers":
        """Bind `points`, the positions [m] of `rows` at rest, to the particles at rest."""
        count = min(_NEIGHBORS + 1, len(particles))
        if len(rows) == 0:
            empty = points.new_zeros(0, 1)
            return cls(rows, empty.long(), empty, points.new_zeros(0, 1, 3))
        distances, parents = knn(particles, points, count)
        raw = (1 - distances / distances[:, -1:].clamp(min=torch.finfo(points.dtype).tiny)).square()
        raw = torch.where(raw.sum(1, keepdim=True) > 0, raw, 1)  # all equally far, or only one there is
        return cls(rows, parents, raw / raw.sum(1, keepdim=True), points[:, None] - particles[parents])

    def positions(self, particles: Particles) -> tuple[Float[Tensor, "f 3"], Float[Tensor, "f 3 3"]]:
        """Positions [m] and deformation gradients now."""
        F = particles.F_total[self.parents]
        moved = particles.x[self.parents] + (F @ self.offsets[..., None])[..., 0]
        return (self.weights[..., None] * moved).sum(1), (self.weights[..., None, None] * F).sum(1)


def set_up(scene: GaussianScene, config: SimulateConfig, select: Selection | None = None) -> Setup:
    """Particles and world of a scene.

    Args:
        scene: Any mode.
        config: Options.
        select: What moves; all when None. The rest of the scene stays and is no obstacle.

    Raises:
        InputError: The scene is empty or not finite, nothing is selected, or no selected Gaussian is opaque enough.
        ConfigError: The grid needs more memory than `max_memory`.
    """
    scene.validate()
    is_moving = torch.ones(len(scene), dtype=torch.bool) if select is None else select.mask(scene.means).cpu()
    if not bool(is_moving.any()):
        raise InputError(f"selection: holds none of {len(scene)} Gaussians, want at least one")
    opacities = scene.opacities.detach().cpu()
    is_core = is_moving & (opacities >= config.min_opacity)
    if not bool(is_core.any()):
        raise InputError(
            f"scene: no opacity of {int(is_moving.sum())} Gaussians is above min_opacity = {config.min_opacity:g}, "
            f"the highest is {float(opacities[is_moving].max()):.3g}; lower min_opacity"
        )
    cores = _drawn(is_core.nonzero()[:, 0], config)
    is_core = torch.zeros_like(is_core).index_fill_(0, cores, True)
    rest = (is_moving & ~is_core).nonzero()[:, 0]
    means = scene.means.detach().cpu().double()
    low, high = means[cores].amin(0), means[cores].amax(0)
    center, longest = (low + high) / 2, float((high - low).max())
    if longest == 0:  # a single Gaussian is as large as itself
        longest = 2 * float(scene.scales[cores].max())
    scale = 1.0 if config.size is None else config.size / longest
    spacing = longest * scale / config.cells
    x = (means[cores] - center) * scale
    world = _world(config, x, longest * scale, spacing, center, scale)
    _check_memory(config, world.grid, len(cores))
    volume = cell_volumes(x, spacing)
    _warn(x, longest * scale, spacing, volume)
    velocity = x.new_tensor(config.velocity).expand_as(x).clone()
    particles = Particles.at_rest(x, volume, world.materials, v=velocity)
    followers = Followers.around(rest, (means[rest] - center) * scale, x)
    return Setup(particles, world, cores, followers, center, scale)


def cell_volumes(x: Float[Tensor, "n 3"], spacing: float) -> Float[Tensor, " n"]:
    """Volumes [m^3]: the cells that points are in, shared by the points of each (as in PhysGaussian).

    The sum is the volume of the cells with points, however many points there are; a side of length L counts as about L + h.
    """
    low = x.amin(0) - spacing / 2  # no point is on the border of two cells by construction
    cells = ((x - low) / spacing).floor().long()
    _, which, counts = cells.unique(dim=0, return_inverse=True, return_counts=True)
    return spacing**3 / counts[which].to(x)


def _drawn(rows: Tensor, config: SimulateConfig) -> Tensor:
    if len(rows) <= config.max_particles:
        return rows
    generator = torch.Generator().manual_seed(config.seed)
    logger.info("%d of %d Gaussians are simulated, the others follow them", config.max_particles, len(rows))
    return rows[torch.randperm(len(rows), generator=generator)[: config.max_particles]].sort().values


def _world(config: SimulateConfig, x: Tensor, longest: float, spacing: float, center: Tensor, scale: float) -> World:
    up = torch.nn.functional.normalize(x.new_tensor(config.up), dim=0)
    boundaries = [_scaled(boundary, center, scale) for boundary in config.boundaries]
    low, high = x.amin(0), x.amax(0)
    if config.drop is not None:
        below = (x @ up).min() - config.drop * longest
        foot = below * up  # a point of the floor
        normal = (float(up[0]), float(up[1]), float(up[2]))
        point = (float(foot[0]), float(foot[1]), float(foot[2]))
        boundaries.append(Boundary("plane", point, normal, kind=config.floor_kind, friction=config.friction))
        shift = -config.drop * longest * up
        low, high = torch.minimum(low, low + shift), torch.maximum(high, high + shift)
    margin = config.room * longest + (_PADDING + 1) * spacing
    low, high = low - margin, high + margin
    counts = [math.ceil(length / spacing) + 1 for length in (high - low).tolist()]
    grid = Grid((float(low[0]), float(low[1]), float(low[2])), spacing, (counts[0], counts[1], counts[2]), _PADDING)
    pull = -config.gravity * up
    return World(grid, (config.material,), (float(pull[0]), float(pull[1]), float(pull[2])), tuple(boundaries))


def _scaled(boundary: Boundary, center: Tensor, scale: float) -> Boundary:
    x, y, z = ((torch.tensor(boundary.center, dtype=center.dtype) - center) * scale).tolist()
    a, b, c = (scale * length for length in boundary.half_size)
    return replace(boundary, center=(x, y, z), half_size=(a, b, c), radius=scale * boundary.radius)


def _check_memory(config: SimulateConfig, grid: Grid, num_particles: int) -> None:
    need = (grid.num_nodes * _BYTES_A_NODE + num_particles * _BYTES_A_PARTICLE) / 1e9
    if need > config.max_memory:
        nodes = " x ".join(map(str, grid.shape))
        raise ConfigError(
            "cells",
            f"a grid of {nodes} nodes and {num_particles} particles need {need:.3g} GB, max_memory is {config.max_memory:g}; "
            "take fewer cells, less room or fewer particles",
        )


def _warn(x: Tensor, longest: float, spacing: float, volume: Tensor) -> None:
    thinnest = float((x.amax(0) - x.amin(0)).min())
    if thinnest < spacing:
        want = math.ceil(longest / thinnest) if thinnest > 0 else None
        hint = f"{want} cells would resolve it" if want else "no number of cells resolves a sheet"
        logger.warning("what moves is %.3g m thin, less than a cell of %.3g m; %s", thinnest, spacing, hint)
    per_cell = len(x) * spacing**3 / float(volume.sum())
    if per_cell < 3:
        logger.warning("there are %.1f particles a cell, want 4 to 8 so that bodies hold together; take fewer cells", per_cell)
