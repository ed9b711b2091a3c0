"""Subsampling of particles."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.stages.simulate.engines.mpm import weights
from vision3d.stages.simulate.scene.followers import clusters
from vision3d.stages.simulate.world.particles import Grid

_ROUNDS = 60
_WORK = 20_000_000  # points times rounds: about ten seconds
_ROWS = 1 << 16


def spread_out(x: Float[Tensor, "n 3"], count: int, generator: torch.Generator) -> Int64[Tensor, " c"]:
    """This many evenly distributed points: one of each cluster, and a few more at random."""
    centers, which = clusters(x, count)
    distances = (x - centers[which]).norm(dim=-1)
    order = distances.argsort(stable=True)
    order = order[which[order].argsort(stable=True)]  # by cluster, the nearest to its center first
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = which[order][1:] != which[order][:-1]
    chosen, others = order[first], order[~first]
    more = others[torch.randperm(len(others), generator=generator)[: count - len(chosen)]]
    return torch.cat([chosen, more]).sort().values


def matched_volumes(
    x: Float[Tensor, "n 3"], volumes: Float[Tensor, " n"], chosen: Float[Tensor, "c 3"], spacing: float
) -> Float[Tensor, " c"]:
    """Volumes [m^3] of chosen points that reproduce the density of all points, smoothed by splines half a cell wide.

    Equal shares of the nearest points do not: their errors of a few percent act as forces, which folds amplify. Each round
    (Richardson 1972, Lucy 1974) multiplies a volume by the mean ratio of the densities around it, so that none becomes
    negative; the sum is preserved.

    Args:
        x: All points [m].
        volumes: Volumes of all points [m^3].
        chosen: The chosen points [m].
        spacing: Spacing of the grid [m].
    """
    step = spacing / 2
    low = x.amin(0) - 4 * step
    size = ((x.amax(0) - low) / step).ceil().long() + 5
    grid = Grid((float(low[0]), float(low[1]), float(low[2])), step, (int(size[0]), int(size[1]), int(size[2])))
    parts = [weights(some, grid)[:2] for some in chosen.double().split(_ROWS)]
    used, nodes = torch.unique(torch.cat([nodes for nodes, _ in parts]), return_inverse=True)
    w = torch.cat([w for _, w in parts])
    want = w.new_zeros(len(used))
    for some, amounts in zip(x.double().split(_ROWS), volumes.double().split(_ROWS), strict=True):
        near, shares, _ = weights(some, grid)
        places = torch.searchsorted(used, near).clamp(max=len(used) - 1)
        want.index_add_(0, places.flatten(), (shares * amounts[:, None] * (used[places] == near)).flatten())
    found = torch.full_like(w[:, 0], float(volumes.sum()) / len(chosen))
    for _ in range(min(_ROUNDS, 1 + _WORK // len(chosen))):
        have = torch.zeros_like(want).index_add_(0, nodes.flatten(), (w * found[:, None]).flatten())
        found = found * (w * (want / have.clamp(min=torch.finfo(have.dtype).tiny))[nodes]).sum(1)
    return (found * (volumes.sum() / found.sum())).to(volumes)
