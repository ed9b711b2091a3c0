"""The published sizes of LION: geometry, numbers of parameters, and a forward pass of each on a part of its region."""

import math
from dataclasses import replace

import pytest
import torch

from vision3d.core.config import load_yaml
from vision3d.core.errors import ConfigError
from vision3d.stages.detect.config import BevConfig, GridConfig, LionConfig, LossConfig, ModelConfig, TrainConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.data.sweeps import LabelledSweep
from vision3d.stages.detect.data.targets import make_targets
from vision3d.stages.detect.network.bev import BevNet
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.lion import LionBackbone
from vision3d.stages.detect.voxels import Voxels
from vision3d.stages.detect.voxels.voxels import coords_of

PUBLISHED = {
    # cells of the grid, cells of the head along x, features, classes
    "lion_kitti": ((352, 400, 32), 352, 64, 3),
    "lion_waymo": ((472, 472, 32), 472, 64, 3),
    "lion_nuscenes": ((360, 360, 32), 180, 128, 10),
    "lion_argoverse2": ((1000, 1000, 32), 1000, 128, 26),
    "lion_once": ((376, 376, 32), 376, 128, 5),
}


def preset(name):
    return load_yaml(TrainConfig, name, stage="detect").model


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def part(model, cells=48):
    """The same network for the middle of the region (KITTI: its front), in cells of the same size."""
    grid = model.grid
    low, high = list(grid.low), list(grid.high)
    for i in range(2):
        low[i] = grid.low[i] if grid.low[i] >= 0 else -cells / 2 * grid.voxel[i]
        high[i] = low[i] + cells * grid.voxel[i]
    return replace(model, grid=replace(grid, low=tuple(low), high=tuple(high)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_geometry(name):
    model = preset(name)
    cells, width, channels, classes = PUBLISHED[name]
    assert model.grid.shape == cells
    assert model.cells[0] == width
    assert model.channels == channels
    assert len(model.classes) == classes
    assert model.lion.groups == (4096, 2048, 1024, 512)
    assert model.lion.last_group == 256
    assert model.lion.window == (13, 13)
    assert (model.lion.operator, model.lion.generate, model.lion.bidirectional) == ("mamba", 0.2, True)
    assert model.lion.drop_path == (0 if name == "lion_waymo" else 0.2)
    assert model.grid.low[2] < -1.73 < model.grid.high[2]


def test_the_network_of_kitti_has_the_published_number_of_parameters():
    """By layers: the operators of Mamba have 40 832 each, of which there are 34."""
    network = make_network(preset("lion_kitti"))
    assert network.backbone is not None
    operators = [operator for module in network.backbone.modules() for operator in getattr(module, "operators", [])]
    assert [count(operator) for operator in operators] == [40832] * 34
    assert count(network.backbone) == pytest.approx(2.76e6, abs=5e3)
    assert count(network.bev) == pytest.approx(4.43e6, abs=5e3)
    assert count(network.head) == 512 * 6 * (3 + 7 + 2) + 6 * (3 + 7 + 2)
    assert count(network) == pytest.approx(7.2e6, abs=5e4)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_run_and_learn(name):
    """On random points of a part of the region: a forward pass, the loss of an object, and its gradient."""
    torch.manual_seed(0)
    model = part(preset(name))
    network = make_network(model)
    low, high = torch.tensor(model.grid.low), torch.tensor(model.grid.high)
    points = torch.cat([low + torch.rand(600, 3) * (high - low), torch.rand(600, 1)], 1)
    middle = ((low + high) / 2).tolist()
    box = torch.tensor([[middle[0], middle[1], -1.0, 3.9, 1.6, 1.5, 0.3]])
    targets = make_targets([LabelledSweep(points, box, torch.tensor([0]))], model.grid, len(model.classes), model.cells)
    loss, _ = network.head.loss(network(PointBatch.of([points])), targets, LossConfig())
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
    with torch.no_grad():
        outputs = network.eval()(PointBatch.of([points]))
        peaks = network.head.decode(outputs, lowest=0.0)[0]
    maps = list(vars(outputs).values())
    assert all(value.shape[-2:] == model.cells and bool(value.isfinite().all()) for value in maps)
    assert 0 < len(peaks.boxes) <= 200
    assert bool(peaks.boxes.isfinite().all())


@pytest.mark.parametrize("up", ["nearest", "transposed"])
@pytest.mark.parametrize("kind", ["plain", "residual"])
@pytest.mark.parametrize(("stride", "size"), [(1, (12, 9)), (2, (12, 8)), (4, (12, 8))])
def test_images_have_the_stride_of_the_output(up, kind, stride, size):
    config = BevConfig(channels=(4, 6, 8), layers=(2, 1, 1), block=kind, up=up, up_channels=5, stride=stride)
    image = torch.randn(2, 3, *size)
    found = BevNet(3, config)(image)
    assert found.shape == (2, 15, size[0] // stride, size[1] // stride)
    found.square().sum().backward()


def test_strides_of_levels():
    assert BevConfig().level_strides == (1, 2, 4)
    assert BevConfig(strides=(2, 2, 1)).level_strides == (2, 4, 4)
    image = torch.randn(1, 3, 16, 16)
    net = BevNet(3, BevConfig(channels=(4, 4), layers=(1, 1), strides=(2, 2), up_channels=4, stride=2))
    assert net(image).shape == (1, 8, 8, 8)


def test_a_residual_block_adds_its_input():
    """With the last norm at zero a block without stride is the identity of what is positive."""
    net = BevNet(4, BevConfig(channels=(4,), layers=(2,), block="residual", up_channels=4)).eval()
    last = net.levels[0][1]
    torch.nn.init.zeros_(last.second[1].weight)
    image = torch.randn(1, 4, 6, 6)
    assert torch.equal(last(image), image.relu())


def test_transposed_convolutions_keep_places():
    """A single cell of a coarse level fills its own cells of the image and no others."""
    config = BevConfig(channels=(1, 1), layers=(1, 1), up="transposed", up_channels=1)
    net = BevNet(1, config).eval()
    coarse = torch.zeros(1, 1, 4, 4)
    coarse[0, 0, 1, 2] = 1
    torch.nn.init.ones_(net.ups[1][0].weight)
    found = net.ups[1](coarse)
    assert found.shape[-2:] == (8, 8)
    assert (found[0, 0, 2:4, 4:6] > 0).all()
    assert int((found > 0).sum()) == 4


@pytest.mark.parametrize("number", [0, 1, 30])
def test_layers_of_the_whole_height(number):
    grid = (9, 7, 5)
    config = LionConfig(groups=(8,), last_group=4, window=(3, 3), flat_groups=(4, 8), flat_windows=(3, 5))
    backbone = LionBackbone(16, grid, config).eval()
    assert backbone.height == 1
    keys = torch.randperm(math.prod(grid), generator=torch.Generator().manual_seed(0))[:number].sort().values
    found = backbone(Voxels(coords_of(keys, grid), torch.randn(number, 16), grid, 1))
    assert found.grid == (9, 7, 1)
    assert len(found) >= min(number, 1)
    assert bool(found.features.isfinite().all())


def test_wrong_options_are_refused():
    grid = GridConfig(low=(0, -4, -3), high=(8, 4.5, 1), voxel=(0.5, 0.5, 0.5))
    with pytest.raises(ConfigError, match=r"bev\.stride: got 2 for 17 cells along y, want a divisor"):
        ModelConfig(grid=grid, bev=BevConfig(stride=2))
    with pytest.raises(ConfigError, match=r"got 3 with a level of stride 2"):
        BevConfig(stride=3)
    with pytest.raises(ConfigError, match=r"bev\.strides: got 2, want none or 3"):
        BevConfig(strides=(1, 2))
    with pytest.raises(ConfigError, match=r"bev\.strides: want at least 1"):
        BevConfig(strides=(1, 0, 2))
    with pytest.raises(ConfigError, match=r"flat_groups: got \[4\] with flat_windows \[\]"):
        LionConfig(flat_groups=(4,))
