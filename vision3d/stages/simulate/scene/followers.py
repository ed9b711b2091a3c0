"""Points that are not simulated and follow the simulated ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry.neighbors import knn
from vision3d.stages.simulate.world.particles import Particles

_NEIGHBORS = 4
_MAX_STRETCH = 2.0


@dataclass(frozen=True, eq=False)
class Followers:
    """Points that follow the simulated points around them: x = sum w_j (x_j + F_j (X - X_j)), F = sum w_j F_j.

    Exact for affine motions. Weights are (1 - d_j / d_last)^2 of the four nearest in the rest state, 0 at the fifth. Fluids
    have no shape to follow: singular values of F_j are clamped to 1/2 ... 2, so that on average a follower stays within twice
    its rest distance of its particles.
    """

    rows: Int64[Tensor, " f"]
    """Indices into the scene."""
    parents: Int64[Tensor, "f k"]
    """Indices into the particles."""
    weights: Float[Tensor, "f k"]
    offsets: Float[Tensor, "f k 3"]
    """X - X_j [m]."""

    @classmethod
    def around(cls, rows: Int64[Tensor, " f"], points: Float[Tensor, "f 3"], particles: Float[Tensor, "c 3"]) -> "Followers":
        """Bind `points`, the rest positions [m] of `rows`, to the particles in their rest state."""
        count = min(_NEIGHBORS + 1, len(particles))
        if len(rows) == 0:
            empty = points.new_zeros(0, 1)
            return cls(rows, empty.long(), empty, points.new_zeros(0, 1, 3))
        distances, parents = knn(particles, points, count)
        raw = (1 - distances / distances[:, -1:].clamp(min=torch.finfo(points.dtype).tiny)).square()
        raw = torch.where(raw.sum(1, keepdim=True) > 0, raw, 1)  # all equally far, or only one
        return cls(rows, parents, raw / raw.sum(1, keepdim=True), points[:, None] - particles[parents])

    @classmethod
    def of(
        cls,
        rows: Int64[Tensor, " f"],
        points: Float[Tensor, "f 3"],
        particles: Float[Tensor, "c 3"],
        parents: Int64[Tensor, " f"],
    ) -> "Followers":
        """Bind each point to one particle: the published hierarchy, but with the full deformation of the parent."""
        weights = points.new_ones(len(rows), 1)
        return cls(rows, parents[:, None], weights, (points - particles[parents])[:, None])

    def joined(self, other: "Followers") -> "Followers":
        """Concatenate, padded to the same number of parents."""
        width = max(self.parents.shape[1], other.parents.shape[1])

        def wide(value: Tensor) -> Tensor:
            pad = value.new_zeros(len(value), width - value.shape[1], *value.shape[2:])
            return torch.cat([value, pad], 1)

        names = ("parents", "weights", "offsets")
        parts = [torch.cat([wide(getattr(self, name)), wide(getattr(other, name))]) for name in names]
        return Followers(torch.cat([self.rows, other.rows]), *parts)

    def positions(self, particles: Particles) -> tuple[Float[Tensor, "f 3"], Float[Tensor, "f 3 3"]]:
        """Current positions [m] and deformation gradients."""
        F = bounded(particles.F_total)[self.parents]
        moved = particles.x[self.parents] + (F @ self.offsets.to(F)[..., None])[..., 0]
        weights = self.weights.to(F)
        return (weights[..., None] * moved).sum(1), (weights[..., None, None] * F).sum(1)


def bounded(F: Float[Tensor, "n 3 3"], stretch: float = _MAX_STRETCH) -> Float[Tensor, "n 3 3"]:
    """Deformation gradients with their singular values clamped to 1 / stretch ... stretch."""
    # The squares of the singular values are within |F^T F - 1| of 1, so only few need a decomposition.
    off = torch.linalg.matrix_norm(F.mT @ F - torch.eye(3, dtype=F.dtype, device=F.device))
    rows = (off > 1 - 1 / stretch**2).nonzero()[:, 0]
    if not len(rows):
        return F
    U, sizes, Vh = torch.linalg.svd(F[rows].double())
    return F.index_copy(0, rows, (U @ (sizes.clamp(1 / stretch, stretch)[:, :, None] * Vh)).to(F))


def clusters(points: Float[Tensor, "n 3"], count: int) -> tuple[Float[Tensor, "c 3"], Int64[Tensor, " n"]]:
    """Centers of about `count` clusters, and the cluster of each point: the cells of a lattice.

    GASP uses BIRCH with a threshold in scene units, which does not determine the number of clusters; here the cell size is
    found by bisection.
    """
    low = points.amin(0)
    longest = float((points.amax(0) - low).max()) or 1.0
    fine, coarse = longest * 1e-4, longest * 1.001
    cells = torch.zeros_like(points, dtype=torch.int64)
    for _ in range(24):
        side = (fine * coarse) ** 0.5
        cells = ((points - low) / side).floor().long()
        if len(torch.unique(_keys(cells))) > count:
            fine = side
        else:
            coarse = side
    cells = ((points - low) / coarse).floor().long()
    _, which = torch.unique(_keys(cells), return_inverse=True)
    sizes = torch.bincount(which).to(points)
    centers = torch.zeros(len(sizes), 3, dtype=points.dtype).index_add_(0, which, points) / sizes[:, None]
    return centers, which


def _keys(cells: Tensor) -> Tensor:
    return (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
