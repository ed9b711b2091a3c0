"""Voxels: orders and groups, merging, expanding, generation, and submanifold convolution against the dense one."""

import itertools
import math

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.stages.detect.config import GridConfig, LionConfig, ModelConfig
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.lion import LionBackbone
from vision3d.stages.detect.network.points import PointBatch
from vision3d.stages.detect.voxels.convolution import SubmanifoldConv, neighbors, submanifold_conv
from vision3d.stages.detect.voxels.grid import Voxels, coords_of, keys_of, starts_of
from vision3d.stages.detect.voxels.resize import DIAGONALS, coarser, expand, generated, merge, merge_rows
from vision3d.stages.detect.voxels.windows import equal_groups, padded_rows, window_order

SHAPE = (13, 9, 5)


def some_voxels(count=60, samples=(0, 2), shape=SHAPE, channels=4, seed=0, dtype=torch.float32, num_samples=3):
    generator = torch.Generator().manual_seed(seed)
    cells = math.prod(shape)
    keys = torch.cat([s * cells + torch.randperm(cells, generator=generator)[:count] for s in samples]).sort().values
    features = torch.randn(len(keys), channels, generator=generator, dtype=torch.float64).to(dtype)
    return Voxels(features, coords_of(keys, shape), shape, num_samples)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("shifted", [False, True])
def test_orders_follow_windows(axis, shifted):
    voxels, window = some_voxels(), (4, 3, 2)
    order = window_order(voxels.coords, SHAPE, window, axis, shifted)
    assert order.sort().values.tolist() == list(range(len(voxels)))
    cells = voxels.coords[order]
    place = cells[:, 1:] + (torch.tensor(window) // 2 if shifted else 0)
    first, second = (0, 1) if axis == "x" else (1, 0)

    def key(i):
        w, r = place[i] // torch.tensor(window), place[i] % torch.tensor(window)
        parts = (w[first], w[second], w[2], r[first], r[second], r[2])
        return (int(cells[i, 0]), *(int(part) for part in parts))

    keys = [key(i) for i in range(len(cells))]
    assert keys == sorted(keys)


def test_moving_all_voxels_by_whole_windows_keeps_the_order():
    voxels, window = some_voxels(shape=(8, 6, 4), num_samples=3), (4, 3, 2)
    moved = voxels.coords + torch.tensor([0, 4, 3, 2])
    for axis, shifted in itertools.product("xy", (False, True)):
        a = window_order(voxels.coords, (16, 12, 8), window, axis, shifted)
        assert torch.equal(a, window_order(moved, (16, 12, 8), window, axis, shifted))


@given(st.lists(st.integers(0, 23), min_size=1, max_size=5), st.integers(1, 9))
def test_groups_cover_each_sample_once(counts, size):
    samples = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    starts = equal_groups(samples, len(counts), size)
    lengths = starts.diff()
    assert starts[0] == 0 if sum(counts) else len(starts) == 1
    assert int(lengths.sum()) == sum(counts)
    assert lengths.tolist() == [n for c in counts for n in [size] * (c // size) + ([c % size] if c % size else [])]
    for first, last in itertools.pairwise(starts.tolist()):
        assert len(set(samples[first:last].tolist())) == 1


def test_the_last_group_is_padded_as_published():
    samples = torch.zeros(10, dtype=torch.int64)
    assert padded_rows(equal_groups(samples, 1, 4), samples, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 6, 7]]
    samples = torch.tensor([0, 0, 0, 1, 1])
    assert padded_rows(equal_groups(samples, 2, 4), samples, 4).tolist() == [[0, 1, 2, 0], [3, 4, 3, 4]]


def test_keys_do_not_overflow_for_large_grids():
    shape = (1000, 1000, 32)
    coords = torch.tensor([[0, 0, 0, 0], [15, 999, 999, 31]])
    assert torch.equal(coords_of(keys_of(coords, shape), shape), coords)
    assert window_order(coords, shape, (13, 13, 32), "x", True).tolist() == [0, 1]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 10))
def test_samples_without_voxels_have_no_rows(a, b, c):
    samples = torch.repeat_interleave(torch.arange(3), torch.tensor([a, b, c]))
    assert starts_of(samples, 3).tolist() == [0, a, a + b, a + b + c]


@pytest.mark.parametrize("shape", [(13, 9, 5), (12, 8, 4), (1, 1, 1), (3, 7, 2)])
def test_merging_conserves_the_sum_and_odd_grids_do_not_collide(shape):
    voxels = some_voxels(min(30, math.prod(shape)), shape=shape, dtype=torch.float64)
    merged = merge(voxels, (2, 2, 2))
    assert merged.voxels.shape == coarser(shape, (2, 2, 2))
    assert torch.allclose(merged.voxels.features.sum(0), voxels.features.sum(0))
    assert torch.equal(merged.voxels.coords[merged.parents, 1:], voxels.coords[:, 1:] // 2)
    assert torch.equal(merged.voxels.coords[merged.parents, 0], voxels.coords[:, 0])
    assert len(merged.voxels.coords.unique(dim=0)) == len(merged.voxels)
    assert (keys_of(merged.voxels.coords, merged.voxels.shape).diff() > 0).all()


def test_expanding_is_the_adjoint_of_merging():
    voxels = some_voxels(dtype=torch.float64)
    merged = merge(voxels, (2, 2, 2))
    other = torch.randn_like(merged.voxels.features)
    back = expand(voxels.with_features(torch.zeros_like(voxels.features)), other, merged.parents)
    assert torch.allclose((merged.voxels.features * other).sum(), (voxels.features * back).sum())


def test_voxels_are_generated_around_the_strongest():
    voxels = some_voxels(60, samples=(0, 2))
    features, coords = generated(voxels, 0.2)
    new = coords[len(voxels) :]
    assert len(new) == 4 * 12 * 2
    assert features[len(voxels) :].abs().max() == 0
    assert (new[:, 1:] >= 0).all()
    assert (new[:, 1:] < torch.tensor(SHAPE)).all()
    for sample in (0, 2):
        own = (voxels.coords[:, 0] == sample).nonzero()[:, 0]
        strong = own[voxels.features[own].mean(1).topk(12).indices]
        wanted = {
            (sample, min(max(int(x) + dx, 0), 12), min(max(int(y) + dy, 0), 8), int(z))
            for x, y, z in voxels.coords[strong, 1:]
            for dx, dy in DIAGONALS
        }
        assert {tuple(row) for row in new[new[:, 0] == sample].tolist()} == wanted
    merged = merge_rows(features, coords, SHAPE, (1, 1, 1), 3).voxels
    assert torch.allclose(merged.features.sum(0), voxels.features.sum(0), atol=1e-5)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 3, 1)])
def test_submanifold_convolution_is_the_dense_one_at_occupied_voxels(kernel):
    voxels = some_voxels(200, dtype=torch.float64)
    layer = SubmanifoldConv(4, 6, kernel).double()
    dense = torch.zeros(3, 4, *SHAPE, dtype=torch.float64)
    sample, x, y, z = voxels.coords.unbind(1)
    dense[sample, :, x, y, z] = voxels.features
    weight = layer.weight.reshape(*kernel, 4, 6).permute(4, 3, 0, 1, 2)
    wanted = torch.nn.functional.conv3d(dense, weight, padding=[size // 2 for size in kernel])[sample, :, x, y, z]
    found = layer(voxels.features, neighbors(voxels.coords, SHAPE, kernel))
    assert torch.allclose(found, wanted, atol=1e-12)


def test_submanifold_convolution_has_the_right_gradient():
    voxels = some_voxels(12, samples=(0,), shape=(4, 3, 2), dtype=torch.float64, channels=2)
    rules = neighbors(voxels.coords, voxels.shape)
    weight = torch.randn(27, 2, 3, dtype=torch.float64, requires_grad=True)
    features = voxels.features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, w: submanifold_conv(f, rules, w), (features, weight))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_convolution_of_few_voxels(count):
    voxels = some_voxels(count, samples=(0,))
    found = SubmanifoldConv(4, 6)(voxels.features, neighbors(voxels.coords, SHAPE))
    assert found.shape == (count, 6)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
@pytest.mark.parametrize("options", [{}, {"generate": 0.0, "descriptor": False}, {"operator": "gla", "bidirectional": False}])
def test_backbones_take_any_number_of_voxels(count, options):
    config = LionConfig(groups=(8, 4), last_group=4, window=(3, 3), **options)
    backbone = LionBackbone(16, SHAPE, config).eval()
    voxels = some_voxels(count, channels=16)
    found = backbone(voxels)
    assert found.shape == (13, 9, 2)
    assert bool(found.features.isfinite().all())
    assert (keys_of(found.coords, found.shape).diff() > 0).all()


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
