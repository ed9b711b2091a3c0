"""Particles inside of hollow bodies, and what volume each particle stands for.

Splats are on surfaces; a shell of particles crumples. PhysGaussian fills by rays along the axes from thresholds of a density;
here space is inside where the outside does not flow to, so there are no directions and no thresholds to be found.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.geometry.mesh import volume as mesh_volume
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.solids import winding_numbers

SUBCELLS = 2  # of the lattice in a cell of the grid, along each axis: 8 particles a cell
_REACH = 2.0  # standard deviations to which a splat closes a surface
_MOST_SAMPLES = 9  # of a splat along each of its two axes, whatever its size
_CLOSED = 0.25  # optical depth from which a cell is a wall
_JITTER = 0.3  # of particles about the middle of their cell, in cells
_GROWTH = 4  # cells that the outside and the inside grow towards walls
_AROUND = 2  # cells within which a wall has the outside beside it, or is inside
_MOST_CELLS = 12_000_000  # of a lattice: about 0.8 GB


@dataclass(frozen=True, eq=False)
class Filling:
    """What a body is made of beside its splats."""

    points: Float[Tensor, "m 3"]
    """Particles inside [m]."""
    point_volumes: Float[Tensor, " m"]
    """[m^3]."""
    surface_volumes: Float[Tensor, " n"]
    """Of the splats, or vertices [m^3]."""

    @property
    def volume(self) -> float:
        """Of all [m^3]."""
        return float(self.point_volumes.sum() + self.surface_volumes.sum())


@dataclass(frozen=True, eq=False)
class Surface:
    """Splats that enclose something."""

    means: Float[Tensor, "n 3"]
    """[m]."""
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    """Standard deviations [m]."""
    opacities: Float[Tensor, " n"]

    def rows(self, mask: Bool[Tensor, " n"]) -> "Surface":
        """Some of the splats."""
        return Surface(self.means[mask], self.quats[mask], self.scales[mask], self.opacities[mask])


def occupied_space(surface: Surface, spacing: float) -> tuple[np.ndarray, Float[Tensor, " 3"], float]:
    """Which cells of a lattice splats cover or enclose, the corner of the lattice [m], and the side of its cells [m]."""
    lattice = _Lattice.around(surface.means, spacing / SUBCELLS)
    depth = lattice.zeros()
    for points, weights in _samples(surface, lattice.step):
        lattice.add(depth, points, weights / lattice.step**2)
    wall = lattice.volume(depth > _CLOSED)
    _, inside = _flood(wall, None)
    return wall | inside, lattice.low, lattice.step


def fill_surface(
    surface: Surface, spacing: float, floor: tuple[Float[Tensor, " 3"], float] | None = None, seed: int = 0
) -> Filling | None:
    """Particles where the splats enclose space, 8 a cell; None where they enclose nothing.

    A lattice of half the grid's spacing (coarser from 12 million cells on): cells whose optical depth (sum of opacity times
    area over the face of a cell) is over 0.25 are walls; what the outside does not reach through gaps of up to two cells is
    inside. A cell at the surface is half inside.

    Args:
        surface: Of one body.
        spacing: Of the grid [m].
        floor: Unit normal and height of a plane that closes the body from below [m].
        seed: Of the jitter.
    """
    lattice = _Lattice.around(surface.means, spacing / SUBCELLS)
    step = lattice.step
    depth = lattice.zeros()
    for points, weights in _samples(surface, step):
        lattice.add(depth, points, weights / step**2)
    own, counts = lattice.numbers(surface.means), lattice.zeros()
    counts.index_add_(0, own, torch.ones_like(surface.opacities, dtype=torch.float64))
    wall = lattice.volume(depth > _CLOSED)
    ground = None
    if floor is not None:
        ground = (lattice.heights(floor[0]) < floor[1]).numpy()
    outside, inside = _flood(wall, ground)
    if not inside.any():
        return None
    # Faint splats close nothing, but the cells that they are in are theirs.
    wall = wall | (lattice.volume(counts > 0) & ~inside)
    near_outside = _dilated(outside & ~wall, _AROUND)
    # Of a wall with the outside beside it half is inside, of others all; what is below the floor belongs to nobody.
    share = np.where(wall, np.where(near_outside, 0.5, 1.0), 0.0)
    wall_volume = float(share.sum()) * step**3
    cells = torch.from_numpy(np.flatnonzero(inside))
    points = _jittered(lattice, cells, seed)
    shares = torch.from_numpy(np.where(inside, 1.0, share).ravel())
    crowd = counts.clone()
    crowd[cells] += 1
    each = shares * step**3 / crowd.clamp(min=1)
    surface_volumes, point_volumes = each[own], each[cells]
    # Walls without a splat's centre in them are stood for by the splats of the others.
    is_wall = torch.from_numpy(wall.ravel())[own]
    given = float(surface_volumes[is_wall].sum())
    if given > 0:
        surface_volumes = torch.where(is_wall, surface_volumes * (wall_volume / given), surface_volumes)
    return Filling(points, point_volumes, surface_volumes.clamp(min=1e-6 * step**3))


def fill_mesh(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], spacing: float, seed: int = 0) -> Filling | None:
    """Particles inside of a mesh (winding number over 0.5), 8 a cell; None where there are none.

    Args:
        vertices: [m]; they are the particles at the surface.
        faces: Of the mesh.
        spacing: Of the grid [m].
        seed: Of the jitter.
    """
    lattice = _Lattice.around(vertices, spacing / SUBCELLS)
    step = lattice.step
    cells = torch.arange(lattice.count)
    points = _jittered(lattice, cells, seed)
    inside = winding_numbers(vertices, faces, points) > 0.5
    if not bool(inside.any()):
        return None
    cells, points = cells[inside], points[inside]
    own = lattice.numbers(vertices)
    crowd, shares = lattice.zeros(), lattice.zeros()
    shares[own] = 0.5
    shares[cells] = 1.0
    crowd.index_add_(0, own, torch.ones(len(own), dtype=torch.float64))
    crowd[cells] += 1
    each = shares * step**3 / crowd.clamp(min=1)
    point_volumes, surface_volumes = each[cells], each[own]
    # The whole volume is known; of an open mesh it is that of the cells.
    wanted = abs(float(mesh_volume(vertices.double(), faces)))
    found = float(point_volumes.sum() + surface_volumes.sum())
    factor = wanted / found if 0.5 < wanted / found < 2 else 1.0
    return Filling(points, factor * point_volumes, factor * surface_volumes)


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Cells of a box around points, with three empty layers at the sides; larger ones where they would be too many."""

    low: Float[Tensor, " 3"]
    step: float
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, points: Tensor, step: float) -> "_Lattice":
        low, high = points.double().amin(0), points.double().amax(0)
        while float(((high - low) / step + 7).prod()) > _MOST_CELLS:
            step *= 1.1
        low = low - 3.5 * step  # whoever is at the edge of the box is in the middle of a cell
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

    def add(self, values: Tensor, points: Tensor, weights: Tensor) -> None:
        values.index_add_(0, self.numbers(points), weights.double())

    def centers(self, numbers: Tensor) -> Tensor:
        _, width, depth = self.shape
        places = torch.stack([numbers // (width * depth), numbers // depth % width, numbers % depth], -1)
        return self.low + (places.double() + 0.5) * self.step

    def heights(self, normal: Tensor) -> Float[Tensor, "i j k"]:
        """Of the middle of each cell along a unit vector."""
        lines = [(self.low[a] + (torch.arange(self.shape[a]) + 0.5) * self.step) * normal[a].double() for a in range(3)]
        return lines[0][:, None, None] + lines[1][:, None] + lines[2]

    def volume(self, mask: Bool[Tensor, " c"]) -> np.ndarray:
        return mask.view(self.shape).numpy()


def _samples(surface: Surface, step: float):
    """Points of the splats' two longer axes, out to two standard deviations, with opacity times area."""
    scales, order = surface.scales.double().sort(-1, descending=True)
    rotmats = quat_to_rotmat(surface.quats.double())
    axes = rotmats.gather(-1, order[:, None, :2].expand(-1, 3, 2))
    means, opacities = surface.means.double(), surface.opacities.double()
    wanted = (2 * _REACH * scales[:, 0] / (0.7 * step)).ceil().clamp(max=_MOST_SAMPLES)
    for low, count in ((0, 1), (1, 3), (3, 5), (5, _MOST_SAMPLES)):
        rows = ((wanted > low) & (wanted <= count)).nonzero()[:, 0]
        if not len(rows):
            continue
        if count == 1:
            yield means[rows], opacities[rows] * 2 * torch.pi * scales[rows, 0] * scales[rows, 1]
            continue
        line = (torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 * _REACH - _REACH
        u, v = (grid.flatten() for grid in torch.meshgrid(line, line, indexing="ij"))
        fade = torch.exp(-(u.square() + v.square()) / 2) * (2 * _REACH / count) ** 2
        for some in rows.split(max(1, 2_000_000 // len(u))):
            plane = axes[some] * scales[some, None, :2]
            points = means[some, None] + u[:, None] * plane[:, None, :, 0] + v[:, None] * plane[:, None, :, 1]
            weights = (opacities[some] * scales[some, 0] * scales[some, 1])[:, None] * fade
            yield points.flatten(0, 1), weights.flatten()


def _flood(wall: np.ndarray, ground: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """What the outside reaches, and what is inside, walls excepted."""
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
    # Back to the walls themselves: from both sides at once, so that they meet in the middle of a gap.
    cross = ndimage.generate_binary_structure(3, 1)
    for _ in range(_GROWTH):
        free = ~solid & ~outside & ~core
        grown, grown_core = (np.asarray(ndimage.binary_dilation(part, cross)) & free for part in (outside, core))
        outside, core = outside | (grown & ~grown_core), core | grown_core
    return outside, ~outside & ~solid


def _dilated(mask: np.ndarray, times: int) -> np.ndarray:
    from scipy import ndimage

    return ndimage.maximum_filter(mask, size=2 * times + 1, mode="constant", cval=False)


def _jittered(lattice: _Lattice, cells: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shift = (2 * torch.rand(len(cells), 3, generator=generator, dtype=torch.float64) - 1) * _JITTER * lattice.step
    return lattice.centers(cells) + shift
