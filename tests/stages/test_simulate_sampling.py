"""Few particles that represent many."""

import pytest
import torch

from vision3d.geometry.neighbors import knn
from vision3d.stages.simulate.engines.mpm import weights
from vision3d.stages.simulate.scene.sampling import matched_volumes, spread_out
from vision3d.stages.simulate.world.particles import Grid

SPACING = 0.1


def density(x, volumes):
    """Density at the nodes of a grid of half cells from -1 to 2."""
    grid = Grid((-1.0, -1.0, -1.0), SPACING / 2, (60, 60, 60))
    nodes, w, _ = weights(x.double(), grid)
    return torch.zeros(60**3, dtype=torch.float64).index_add_(0, nodes.flatten(), (w * volumes.double()[:, None]).flatten())


def shell(count=20_000):
    """Points of a curved sheet, denser on one side, each with its volume."""
    u, v = torch.rand(2, count)
    x = torch.stack([u.square(), v, 0.3 * torch.sin(3 * u)], 1)
    return x, 1e-6 * (0.5 + torch.rand(count))


def test_few_points_have_the_density_of_all():
    x, volumes = shell()
    chosen = x[spread_out(x, 2000, torch.Generator().manual_seed(0))]
    found = matched_volumes(x, volumes, chosen, SPACING)
    assert found.min() > 0 and found.sum() == pytest.approx(float(volumes.sum()), rel=1e-6)
    want = density(x, volumes)
    nearest = torch.zeros(len(chosen)).index_add_(0, knn(chosen, x)[1][:, 0], volumes)
    error, of_nearest = (float((density(chosen, v) - want).abs().sum() / want.sum()) for v in (found, nearest))
    assert error < 0.03 and error < of_nearest / 2


def test_all_points_keep_the_density():
    x, volumes = shell(3000)
    want = density(x, volumes)
    assert (density(x, matched_volumes(x, volumes, x, SPACING)) - want).abs().sum() < 0.01 * want.sum()


@pytest.mark.parametrize("which", ["one", "same place", "plane"])
def test_degenerate_clouds_keep_their_volume(which):
    x, volumes = shell(100)
    if which == "same place":
        x = x[:1].expand(100, 3)
    if which == "plane":
        x = x * torch.tensor([1.0, 1.0, 0.0])
    count = 1 if which == "one" else 10
    chosen = x[spread_out(x, count, torch.Generator())]
    found = matched_volumes(x, volumes, chosen, SPACING)
    assert found.shape == (count,) and found.min() >= 0
    assert found.sum() == pytest.approx(float(volumes.sum()), rel=1e-5)
