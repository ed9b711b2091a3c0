"""The bird's-eye network on occupied cells, against the same network on all cells."""

import copy

import pytest
import torch
from torch.nn import functional

from vision3d.core.errors import ConfigError
from vision3d.stages.detect.config import BevConfig
from vision3d.stages.detect.network.bev import BevNet
from vision3d.stages.detect.network.norms import folded
from vision3d.stages.detect.network.sparse_bev import Cells

CONFIGS = {
    "plain": {"channels": (5, 6), "layers": (2, 2), "up_channels": 4},
    "transposed": {"channels": (5, 6, 7), "layers": (1, 2, 2), "up_channels": 4, "up": "transposed"},
    "residual": {"channels": (5, 6), "layers": (2, 1), "up_channels": 4, "block": "residual"},
    "coarse": {"channels": (5, 6, 7), "layers": (1, 1, 1), "up_channels": 4, "stride": 2},
    "coarse transposed": {"channels": (5, 6, 7), "layers": (1, 1, 1), "up_channels": 4, "stride": 2, "up": "transposed"},
}


def networks(config, sparse):
    torch.manual_seed(0)
    dense = BevNet(3, config).double()
    for module in dense.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.bias, -1, 1)
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    other = BevNet(3, sparse).double()
    other.load_state_dict(dense.state_dict())
    return dense, other


def occupied(image):
    return image.abs().sum(1).flatten().nonzero()[:, 0]


# In training, batch norms of odd images see different cells: the network on all cells crops its levels behind them.
@pytest.mark.parametrize(
    ("size", "training"), [((8, 12), False), ((7, 9), False), ((16, 5), False), ((8, 12), True), ((16, 8), True)]
)
@pytest.mark.parametrize("name", CONFIGS)
def test_with_all_cells_it_is_the_dense_network(name, size, training):
    config = BevConfig(**CONFIGS[name])
    dense, sparse = networks(config, BevConfig(**CONFIGS[name], sparse=True, dilate=16))
    image = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    found = []
    for network in (dense.train(training), sparse.train(training)):
        out = network(image, torch.tensor([0, 5, size[0] * size[1]]))
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        parameters = list(network.parameters())
        found.append([out, *torch.autograd.grad((out * weights).sum(), [image, *parameters])])
    for want, got in zip(*found):
        assert torch.allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("name", CONFIGS)
def test_far_cells_do_not_matter_and_are_zero(name):
    config = BevConfig(**CONFIGS[name], sparse=True, dilate=1)
    network = networks(config, config)[1].eval()
    image = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    image[0, :, 4:6, 5] = torch.randn(3, 2, dtype=torch.float64)
    near = network(image, occupied(image))
    assert bool(near.any())
    cells = 32 // config.stride
    active = functional.max_pool2d(image.abs().sum(1), 3, 1, 1)
    active = functional.max_pool2d(active, config.stride, config.stride) > 0
    assert not bool(near.abs().sum(1)[~active].any())
    image[0, :, 28, 28] = 5.0
    both = network(image, occupied(image))
    assert torch.allclose(both[..., : cells // 2, : cells // 2], near[..., : cells // 2, : cells // 2], atol=1e-12)


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_folded_norms_give_the_same_features(name, is_sparse):
    config = BevConfig(**CONFIGS[name], sparse=is_sparse, dilate=2)
    network = networks(config, config)[1].eval()
    image = torch.randn(2, 3, 12, 8, dtype=torch.float64) * (torch.rand(2, 1, 12, 8) < 0.3)
    other = folded(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in other.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert torch.allclose(other(image, occupied(image)), network(image, occupied(image)), atol=1e-12)


def test_an_empty_image_has_zero_features():
    network = BevNet(3, BevConfig(**CONFIGS["plain"], sparse=True))
    assert not bool(network(torch.zeros(2, 3, 8, 8), torch.zeros(0, dtype=torch.int64)).any())


def test_gradients_reach_only_computed_cells():
    network = BevNet(3, BevConfig(**CONFIGS["plain"], sparse=True, dilate=0)).eval()
    image = torch.randn(1, 3, 8, 8, requires_grad=True)
    network(image, torch.tensor([9, 10])).sum().backward()
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
