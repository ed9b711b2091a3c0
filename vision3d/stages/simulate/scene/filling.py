"""Particles inside hollow bodies and along long splats and faces, and the volume of each particle.

Splats are on surfaces; a shell of particles collapses, and a stem of a few long splats is torn between their centers.
PhysGaussian fills by rays along the axes with density thresholds; here the inside is what a flood fill from outside does not
reach, so no directions or thresholds need tuning.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.geometry.mesh import volume as mesh_volume
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.solids import winding_numbers

SUBCELLS = 2  # lattice cells per grid cell and axis: 8 particles per cell
_REACH = 2.0  # extent in standard deviations to which a splat closes a surface
_SAMPLES = (1, 3, 5, 9, 17, 33)  # samples of a splat along each of its two longer axes
_MAX_PIECES = 512  # maximum pieces per side of a face
_CLOSED = 0.25  # minimum optical depth of a wall cell
_JITTER = 0.3  # of particles around the center of their cell, in cells
_GROWTH = 4  # cells by which the outside and the inside grow towards walls
_AROUND = 2  # cells within which a wall is next to the outside, or else inside
_THIN = 4  # cells of the lattice, two of the grid: thinner parts get four particles instead of one
_MIN_SHARE = 0.02  # minimum filled fraction of a cell that something passes through
_FLATTEST = 0.1  # minimum ratio of thickness to width of a splat: surfaces of flat splats have some thickness
_MAX_CELLS = 12_000_000  # maximum cells of a lattice: about 0.8 GB


@dataclass(frozen=True, eq=False)
class Filling:
    """Material of a body in addition to its splats."""

    points: Float[Tensor, "m 3"]
    """Particles inside, and on the surface where no splat has its center [m]."""
    point_volumes: Float[Tensor, " m"]
    """[m^3]."""
    surface_volumes: Float[Tensor, " n"]
    """Volumes of the splats, or vertices [m^3]."""
    num_enclosed: int
    """Mask of the points that are inside."""
    thin_share: float = 0.0
    """Mask of the splats, or vertices, in parts thinner than a cell of the grid."""

    @property
    def volume(self) -> float:
        """Total volume [m^3]."""
        return float(self.point_volumes.sum() + self.surface_volumes.sum())


@dataclass(frozen=True, eq=False)
class Surface:
    """Splats that may enclose a volume."""

    means: Float[Tensor, "n 3"]
    """[m]."""
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    """Standard deviations [m]."""
    opacities: Float[Tensor, " n"]

    def rows(self, mask: Bool[Tensor, " n"]) -> "Surface":
        """Select splats."""
        return Surface(self.means[mask], self.quats[mask], self.scales[mask], self.opacities[mask])


def occupied_space(surface: Surface, spacing: float) -> tuple[np.ndarray, Float[Tensor, " 3"], float]:
    """Mask of lattice cells that splats cover or enclose, the corner of the lattice [m], and its cell size [m]."""
    lattice = _Lattice.around(surface.means, spacing / SUBCELLS)
    depth = lattice.zeros()
    for points, weights, _ in lattice.held(_samples(surface, lattice.step)):
        depth.index_add_(0, lattice.numbers(points), weights / lattice.step**2)
    wall = lattice.volume(depth > _CLOSED)
    _, inside = _flood(wall, None)
    return wall | inside, lattice.low, lattice.step


def fill_surface(
    surface: Surface, spacing: float, floor: tuple[Float[Tensor, " 3"], float] | None = None, seed: int = 0
) -> Filling | None:
    """Particles in and inside splats, 8 per cell; None if the space is empty.

    Uses a lattice of half the grid's spacing (coarser beyond 12 million cells): cells whose optical depth (sum of opacity times
    area over the face of a cell) exceeds 0.25 are walls; cells not reached from outside through gaps of more than two cells are
    inside. A cell at the surface is half inside. Walls without a splat center get a particle as well: nothing connected has
    gaps of more than a lattice cell between its particles, however long its splats are.

    Args:
        surface: Splats of one body.
        spacing: Spacing of the grid [m].
        floor: Unit normal and height of a plane that closes the body from below [m].
        seed: Seed of the jitter.
    """
    lattice = _Lattice.around(surface.means, spacing / SUBCELLS)
    step = lattice.step
    depth, moments, filled = lattice.zeros(), lattice.zeros()[:, None].repeat(1, 3), lattice.zeros()
    for points, weights, thickness in lattice.held(_samples(surface, step)):
        numbers, weights = lattice.numbers(points), weights / step**2
        depth.index_add_(0, numbers, weights)
        filled.index_add_(0, numbers, weights * thickness / step)
        moments.index_add_(0, numbers, weights[:, None] * (points - lattice.low))
    own, counts = lattice.numbers(surface.means), lattice.zeros()
    counts.index_add_(0, own, torch.ones_like(surface.opacities, dtype=torch.float64))
    wall = lattice.volume(depth > _CLOSED)
    ground = None
    if floor is not None:
        ground = (lattice.heights(floor[0]) < floor[1]).numpy()
    outside, inside = _flood(wall, ground)
    if not wall.any():
        return None
    if ground is not None:
        inside, wall = inside & ~ground, wall & ~ground
    # Faint splats do not close surfaces, but own the cells that they are in.
    wall = wall | (lattice.volume(counts > 0) & ~inside)
    near_outside = _dilated(outside & ~wall, _AROUND)
    # Wall cells next to the outside are half inside, others completely; cells below the floor belong to no body.
    share = np.where(wall, np.where(near_outside, 0.5, 1.0), np.where(inside, 1.0, 0.0))
    thin = _thin(wall | inside)
    # Twigs are thinner than the cells that they pass through.
    own_share = lattice.volume(filled.clamp(min=_MIN_SHARE))
    share = np.where(thin & ~inside, np.minimum(share, own_share), share)
    cells = torch.from_numpy(np.flatnonzero(inside | (wall & (thin | (lattice.volume(counts) == 0)))))
    is_inside = torch.from_numpy(inside.ravel())[cells]
    on_surface = lattice.low + moments[cells] / depth[cells, None].clamp(min=1e-30)  # not farther out than the splats
    on_surface = torch.where(depth[cells, None] > 0, on_surface, lattice.centers(cells))
    points = torch.where(is_inside[:, None], _jittered(lattice, cells, seed), on_surface)
    found = _filled(lattice, share, thin, cells, points, is_inside, own)
    return replace(found, thin_share=_share_of(_thin(wall | inside, SUBCELLS), own))


def fill_mesh(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], spacing: float, seed: int = 0) -> Filling:
    """Particles inside a mesh (winding number over 0.5), 8 per cell, and on faces away from vertices.

    Args:
        vertices: [m]; they are particles as well.
        faces: Faces of the mesh.
        spacing: Spacing of the grid [m].
        seed: Seed of the jitter.
    """
    lattice = _Lattice.around(vertices, spacing / SUBCELLS)
    step = lattice.step
    cells = torch.arange(lattice.count)
    points = _jittered(lattice, cells, seed)
    inside = winding_numbers(vertices, faces, points) > 0.5
    own = lattice.numbers(vertices)
    walls, moments = lattice.zeros(), lattice.zeros()[:, None].repeat(1, 3)
    for places in _on_faces(vertices.double()[faces], step):
        passed = lattice.numbers(places)
        walls.index_add_(0, passed, torch.ones_like(places[:, 0]))
        moments.index_add_(0, passed, places - lattice.low)
    counts, is_wall = lattice.zeros(), (walls > 0) & ~inside
    counts.index_add_(0, own, torch.ones(len(own), dtype=torch.float64))
    share = torch.where(inside, 1.0, torch.where(is_wall | (counts > 0), 0.5, 0.0)).view(lattice.shape).numpy()
    thin = _thin(share > 0)
    points = torch.where(inside[:, None], points, lattice.low + moments / walls[:, None].clamp(min=1))
    cells = cells[inside | (is_wall & ((counts == 0) | torch.from_numpy(thin.ravel())))]
    found = _filled(lattice, share, thin, cells, points[cells], inside[cells], own)
    # The total volume is known; for an open mesh it is that of the cells.
    factor = abs(float(mesh_volume(vertices.double(), faces))) / found.volume
    factor = factor if 0.5 < factor < 2 else 1.0
    thin_share = _share_of(_thin(share > 0, SUBCELLS), own)
    return Filling(found.points, factor * found.point_volumes, factor * found.surface_volumes, found.num_enclosed, thin_share)


def _on_faces(corners: Float[Tensor, "f 3 3"], step: float) -> Iterator[Float[Tensor, "n 3"]]:
    """Points of faces at most a step apart, for any shape of the faces."""
    longest = torch.linalg.vector_norm(corners - corners.roll(1, 1), dim=-1).amax(1)
    pieces = 2 ** (longest / step).ceil().clamp(1, _MAX_PIECES).log2().ceil().long()
    for count in torch.unique(pieces).tolist():
        line = torch.arange(count + 1, dtype=torch.float64) / count
        weights = torch.cartesian_prod(line, line)
        weights = weights[weights.sum(1) <= 1 + 1e-9]
        weights = torch.cat([1 - weights.sum(1, keepdim=True), weights], 1)
        for some in corners[pieces == count].split(max(1, 1_000_000 // len(weights))):
            yield (weights @ some).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Cells of a box around points, with three empty layers at the sides; larger cells if there would be too many."""

    low: Float[Tensor, " 3"]
    step: float
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, points: Tensor, step: float) -> "_Lattice":
        low, high = points.double().amin(0), points.double().amax(0)
        while float(((high - low) / step + 7).prod()) > _MAX_CELLS:
            step *= 1.1
        low = low - 3.5 * step  # points at the edge of the box are in the middle of a cell
        counts = (((high - low) / step).floor().long() + 4).tolist()
        return cls(low, step, (counts[0], counts[1], counts[2]))

    @property
    def count(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def zeros(self) -> Tensor:
        return torch.zeros(self.count, dtype=torch.float64)

    def numbers(self, points: Tensor) -> Tensor:
        """The cell of each point, or the nearest one."""
        last = torch.tensor(self.shape) - 1
        cells = torch.minimum(((points.double() - self.low) / self.step).floor().long().clamp(min=0), last)
        return (cells[:, 0] * self.shape[1] + cells[:, 1]) * self.shape[2] + cells[:, 2]

    def held(self, samples: Iterator[tuple[Tensor, Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The samples at most one layer outside the box; two layers around it stay empty to connect the outside."""
        last = torch.tensor(self.shape) - 3
        for points, weights, thickness in samples:
            cells = ((points - self.low) / self.step).floor()
            is_in = ((cells >= 2) & (cells <= last)).all(-1)
            yield points[is_in], weights[is_in], thickness[is_in]

    def centers(self, numbers: Tensor) -> Tensor:
        _, width, depth = self.shape
        places = torch.stack([numbers // (width * depth), numbers // depth % width, numbers % depth], -1)
        return self.low + (places.double() + 0.5) * self.step

    def heights(self, normal: Tensor) -> Float[Tensor, "i j k"]:
        """Height of the center of each cell along a unit vector."""
        lines = [(self.low[a] + (torch.arange(self.shape[a]) + 0.5) * self.step) * normal[a].double() for a in range(3)]
        return lines[0][:, None, None] + lines[1][:, None] + lines[2]

    def volume(self, mask: Bool[Tensor, " c"]) -> np.ndarray:
        return mask.view(self.shape).numpy()


def _samples(surface: Surface, step: float) -> Iterator[tuple[Float[Tensor, "m 3"], Float[Tensor, " m"], Float[Tensor, " m"]]]:
    """Samples along the splats' two longer axes, out to two standard deviations, with opacity times area, and thickness."""
    scales, order = surface.scales.double().sort(-1, descending=True)
    rotmats = quat_to_rotmat(surface.quats.double())
    axes = rotmats.gather(-1, order[:, None, :2].expand(-1, 3, 2))
    means, opacities = surface.means.double(), surface.opacities.double()
    classes = torch.tensor(_SAMPLES, dtype=torch.float64)
    wanted = torch.searchsorted(classes, 2 * _REACH * scales[:, :2] / (0.7 * step)).clamp(max=len(_SAMPLES) - 1)
    for i, j in torch.unique(wanted, dim=0).tolist():
        rows = (wanted == torch.tensor([i, j])).all(-1).nonzero()[:, 0]
        first, second = _line(_SAMPLES[i]), _line(_SAMPLES[j])
        u, v = (grid.flatten() for grid in torch.meshgrid(first[0], second[0], indexing="ij"))
        fade = torch.outer(first[1], second[1]).flatten()
        for some in rows.split(max(1, 2_000_000 // len(u))):
            plane = axes[some] * scales[some, None, :2]
            points = means[some, None] + u[:, None] * plane[:, None, :, 0] + v[:, None] * plane[:, None, :, 1]
            weights = (opacities[some] * scales[some, 0] * scales[some, 1])[:, None] * fade
            thickness = (2 * torch.pi) ** 0.5 * torch.maximum(scales[some, 2], _FLATTEST * scales[some, 1])
            yield points.flatten(0, 1), weights.flatten(), thickness[:, None].expand_as(weights).flatten()


def _line(count: int) -> tuple[Tensor, Tensor]:
    """Positions along an axis in standard deviations, and their weights in a Gaussian's integral."""
    if count == 1:
        return torch.zeros(1, dtype=torch.float64), torch.full((1,), (2 * torch.pi) ** 0.5, dtype=torch.float64)
    line = (torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 * _REACH - _REACH
    return line, torch.exp(-line.square() / 2) * (2 * _REACH / count)


def _flood(wall: np.ndarray, ground: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the outside and the inside, both without walls."""
    from scipy import ndimage

    solid = wall if ground is None else wall | ground
    closed = _dilated(wall, 1) if ground is None else _dilated(wall, 1) | ground
    found: Any = ndimage.label(~closed)
    labels = found[0]
    sides = [labels[index] for index in (0, -1)]
    sides += [labels[:, index] for index in (0, -1)] + [labels[:, :, index] for index in (0, -1)]
    rims = np.unique(np.concatenate([side.ravel() for side in sides]))
    outside: Any = np.isin(labels, rims[rims > 0])
    core = ~closed & ~outside
    # Grow back to the walls: from both sides at once, so that they meet in the middle of a gap.
    cross = ndimage.generate_binary_structure(3, 1)
    for _ in range(_GROWTH):
        free = ~solid & ~outside & ~core
        grown, grown_core = (np.asarray(ndimage.binary_dilation(part, cross)) & free for part in (outside, core))
        outside, core = outside | (grown & ~grown_core), core | grown_core
    return outside, ~outside & ~solid


def _thin(solid: np.ndarray, size: int = _THIN) -> np.ndarray:
    """Parts of a solid thinner than this many lattice cells: not covered by any cube of that size inside it."""
    from scipy import ndimage

    thick = ndimage.binary_opening(solid, np.ones((size,) * 3, bool))
    # Edges and corners, which cubes do not cover, are not thin.
    thick = ndimage.binary_dilation(thick, np.ones((3, 3, 3), bool), iterations=size // 2)
    return solid & np.logical_not(thick)


def _share_of(mask: np.ndarray, own: Tensor) -> float:
    return float(torch.from_numpy(mask.ravel())[own].float().mean())


def _filled(
    lattice: "_Lattice", share: np.ndarray, thin: np.ndarray, cells: Tensor, points: Tensor, is_inside: Tensor, own: Tensor
) -> Filling:
    """Divide the volumes of cells among their contents: one point, or four in thin parts, and splats or vertices.

    Two particles more than about a grid cell apart no longer interact, since quadratic splines reach 1.5 cells. With one
    particle every half cell a stretch of two is enough for that; stems are stretched that much when their body lands, and
    break.
    """
    is_thin = torch.from_numpy(thin.ravel())[cells]
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    split = (points[is_thin, None] + corners * lattice.step / 4).flatten(0, 1)
    points = torch.cat([points[~is_thin], split])
    where = torch.cat([cells[~is_thin], cells[is_thin].repeat_interleave(4)])
    crowd = lattice.zeros().index_add_(0, torch.cat([own, where]), torch.ones(len(own) + len(where), dtype=torch.float64))
    each = torch.from_numpy(share.ravel()) * lattice.step**3 / crowd.clamp(min=1)
    enclosed = int(is_inside[~is_thin].sum()) + 4 * int(is_inside[is_thin].sum())
    return Filling(points, each[where], each[own].clamp(min=1e-6 * lattice.step**3), enclosed)


def _dilated(mask: np.ndarray, times: int) -> np.ndarray:
    from scipy import ndimage

    return ndimage.maximum_filter(mask, size=2 * times + 1, mode="constant", cval=False)


def _jittered(lattice: _Lattice, cells: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shift = (2 * torch.rand(len(cells), 3, generator=generator, dtype=torch.float64) - 1) * _JITTER * lattice.step
    return lattice.centers(cells) + shift
