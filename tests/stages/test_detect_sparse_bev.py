"""The bird's-eye network on occupied cells, against the same network on all cells."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from vision3d.core.errors import ConfigError
from vision3d.stages.detect.config import BevConfig, GridConfig, ModelConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.network.bev import BevNet
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.norms import folded
from vision3d.stages.detect.network.sparse_bev import CellRows, Cells

CONFIGS = {
    "plain": {"channels": (5, 6), "layers": (2, 2), "up_channels": 4},
    "transposed": {"channels": (5, 6, 7), "layers": (1, 2, 2), "up_channels": 4, "up": "transposed"},
    "residual": {"channels": (5, 6), "layers": (2, 1), "up_channels": 4, "block": "residual"},
    "coarse": {"channels": (5, 6, 7), "layers": (1, 1, 1), "up_channels": 4, "stride": 2},
    "coarse transposed": {"channels": (5, 6, 7), "layers": (1, 1, 1), "up_channels": 4, "stride": 2, "up": "transposed"},
}


def make(config):
    """With batch norms as after some training."""
    torch.manual_seed(0)
    network = BevNet(3, config).double()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            torch.nn.init.uniform_(module.bias, -1, 1)
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def occupied(image):
    return image.abs().sum(1).flatten().nonzero()[:, 0]


def features(network, image, keys, dilate):
    """Those of the network, at some cells of the image and those around them."""
    cells = Cells.of(keys, (len(image), *image.shape[2:])).dilated(dilate)
    rows = image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])[cells.keys]
    return network.at_cells(CellRows(rows, cells)).image()


# In training, batch norms of odd images see different cells: the network on all cells crops its levels behind them.
@pytest.mark.parametrize(
    ("size", "training"), [((8, 12), False), ((7, 9), False), ((16, 5), False), ((8, 12), True), ((16, 8), True)]
)
@pytest.mark.parametrize("name", CONFIGS)
def test_with_all_cells_it_is_the_dense_network(name, size, training):
    network = make(BevConfig(**CONFIGS[name])).train(training)
    image = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    found = []
    for out in (network(image), features(network, image, torch.tensor([0, 5, size[0] * size[1]]), 16)):
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        parameters = list(network.parameters())
        found.append([out, *torch.autograd.grad((out * weights).sum(), [image, *parameters])])
    for want, got in zip(*found):
        assert torch.allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("name", CONFIGS)
def test_far_cells_do_not_matter_and_are_zero(name):
    config = BevConfig(**CONFIGS[name])
    network = make(config).eval()
    image = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    image[0, :, 4:6, 5] = torch.randn(3, 2, dtype=torch.float64)
    near = features(network, image, occupied(image), 1)
    assert bool(near.any())
    cells = 32 // config.stride
    active = functional.max_pool2d(image.abs().sum(1), 3, 1, 1)
    active = functional.max_pool2d(active, config.stride, config.stride) > 0
    assert not bool(near.abs().sum(1)[~active].any())
    image[0, :, 28, 28] = 5.0
    both = features(network, image, occupied(image), 1)
    assert torch.allclose(both[..., : cells // 2, : cells // 2], near[..., : cells // 2, : cells // 2], atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_folded_norms_give_the_same_features(name):
    network = make(BevConfig(**CONFIGS[name])).eval()
    image = torch.randn(2, 3, 12, 8, dtype=torch.float64) * (torch.rand(2, 1, 12, 8) < 0.3)
    other = folded(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in other.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert torch.allclose(other(image), network(image), atol=1e-12)
    got, want = (features(each, image, occupied(image), 2) for each in (other, network))
    assert torch.allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("head", ["center", "anchor"])
@pytest.mark.parametrize("method", ["pillars", "lion"])
def test_detectors_with_all_cells_predict_as_dense_ones(method, head):
    grid = GridConfig(low=(0, -6.4, -3), high=(12.8, 6.4, 1), voxel=(0.8, 0.8, 1))
    config = ModelConfig(method=method, grid=grid, channels=8, head=head, head_channels=8)
    config = replace(config, bev=BevConfig(channels=(8, 8), layers=(1, 1), up_channels=8))
    torch.manual_seed(0)
    dense = make_network(config).double()
    sparse = make_network(replace(config, bev=replace(config.bev, sparse=True, dilate=16))).double()
    sparse.load_state_dict(dense.state_dict())
    points = (torch.rand(300, 4) * torch.tensor([12.8, 12.8, 4, 1]) - torch.tensor([0, 6.4, 3, 0])).double()
    batch, found = PointBatch.of([points, points[:40]]), []
    for network in (dense, sparse):
        outputs = [value for value in vars(network(batch)).values() if isinstance(value, torch.Tensor)]
        total = torch.stack([(value * torch.linspace(-1, 1, value.numel()).view_as(value)).sum() for value in outputs]).sum()
        found.append([*outputs, *torch.autograd.grad(total, list(network.parameters()))])
    for want, got in zip(*found):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-9)


def test_an_empty_image_has_zero_features():
    network = BevNet(3, BevConfig(**CONFIGS["plain"]))
    assert not bool(features(network, torch.zeros(2, 3, 8, 8), torch.zeros(0, dtype=torch.int64), 3).any())


def test_gradients_reach_only_computed_cells():
    network = BevNet(3, BevConfig(**CONFIGS["plain"])).eval()
    image = torch.randn(1, 3, 8, 8, requires_grad=True)
    features(network, image, torch.tensor([9, 10]), 0).sum().backward()
    assert image.grad is not None
    reached = image.grad.abs().sum(1).flatten()
    assert bool((reached[[9, 10]] > 0).all()) and int((reached > 0).sum()) == 2


def test_cells_keep_their_order_and_neighbors():
    cells = Cells.of(torch.tensor([30, 3, 3, 17]), (1, 6, 6))
    assert cells.keys.tolist() == [3, 17, 30]
    grown = copy.copy(cells).dilated(1)
    assert grown.keys.tolist() == [2, 3, 4, 8, 9, 10, 11, 16, 17, 22, 23, 24, 25, 30, 31]
    assert cells.coarser(2, (3, 3)).keys.tolist() == [1, 5, 6]
    batch, x, y = cells.places
    assert cells.rows(batch, x, y).tolist() == [0, 1, 2]
    assert cells.rows(batch, x, y + 1).tolist() == [3, 3, 3]


def test_a_negative_dilation_is_refused():
    with pytest.raises(ConfigError, match=r"bev.dilate: got -1, want at least 0"):
        BevConfig(dilate=-1)
