"""The backbone of LION: any number of voxels, and samples that do not influence each other."""

import math

import pytest
import torch

from vision3d.stages.detect.config import GridConfig, LionConfig, ModelConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.lion import LionBackbone
from vision3d.stages.detect.operators import OPERATORS
from vision3d.stages.detect.voxels import Voxels
from vision3d.stages.detect.voxels.voxels import coords_of, keys_of

GRID = (13, 9, 5)


def some_voxels(count, channels=16, samples=(0, 2)):
    generator = torch.Generator().manual_seed(0)
    cells = math.prod(GRID)
    keys = torch.cat([s * cells + torch.randperm(cells, generator=generator)[:count] for s in samples]).sort().values
    return Voxels(coords_of(keys, GRID), torch.randn(len(keys), channels, generator=generator), GRID, 3)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
@pytest.mark.parametrize("options", [{}, {"generate": 0.0, "descriptor": False}, {"operator": "gla", "bidirectional": False}])
def test_backbones_take_any_number_of_voxels(count, options):
    config = LionConfig(groups=(8, 4), last_group=4, window=(3, 3), **options)
    backbone = LionBackbone(16, GRID, config).eval()
    voxels = some_voxels(count)
    found = backbone(voxels)
    assert found.grid == (13, 9, 2)
    assert bool(found.features.isfinite().all())
    assert (keys_of(found.coords, found.grid).diff() > 0).all()


@pytest.mark.parametrize("operator", OPERATORS)
def test_generated_voxels_do_not_dominate_the_gradient(operator):
    """They are zeros, and norms multiply gradients at zeros: DeltaNet's were infinite."""
    torch.manual_seed(0)
    backbone = LionBackbone(16, GRID, LionConfig(operator=operator, groups=(8, 4), last_group=4, window=(3, 3)))
    backbone(some_voxels(40)).features.square().mean().backward()
    norms = {name: float(p.grad.norm()) for name, p in backbone.named_parameters() if p.grad is not None}
    generated = max(value for name, value in norms.items() if name.startswith("norms."))
    assert math.isfinite(sum(norms.values()))
    assert generated < 100


def test_samples_of_a_batch_do_not_influence_each_other():
    grid = GridConfig(low=(0, -4, -3), high=(8, 4, 1), voxel=(0.5, 0.5, 0.5))
    config = ModelConfig(grid=grid, channels=16, head_channels=8, lion=LionConfig(groups=(16, 8), last_group=8))
    network = make_network(config).eval()
    clouds = [torch.rand(n, 4) * torch.tensor([8, 8, 4, 1]) + torch.tensor([0, -4, -3, 0]) for n in (90, 0, 40)]
    with torch.no_grad():
        together = network(PointBatch.of(clouds))
        for i, cloud in enumerate(clouds):
            alone = network(PointBatch.of([cloud]))
            assert torch.allclose(together.heat[i : i + 1], alone.heat, atol=1e-4)
            assert torch.allclose(together.boxes[i : i + 1], alone.boxes, atol=1e-4)
        turned = network(PointBatch.of([clouds[2][torch.randperm(40)], clouds[0]]))
    assert torch.allclose(turned.heat, together.heat[[2, 0]], atol=1e-4)
