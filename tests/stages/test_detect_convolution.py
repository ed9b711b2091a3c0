"""Submanifold convolution against dense convolution; its neighbors against a dictionary."""

import time

import pytest
import torch
from torch import Tensor

from tests.stages.test_detect_voxels import F64, backend, dense, random_voxels  # noqa: F401
from vision3d.core import native
from vision3d.core.errors import InputError
from vision3d.stages.detect.voxels import SubmanifoldConv, Voxels, submanifold_conv, voxel_neighbors
from vision3d.stages.detect.voxels.reference import sparse as reference
from vision3d.stages.detect.voxels.voxels import Triple

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
SIZES = [(3, 3, 3), (3, 3, 1), (1, 5, 3), (1, 1, 1), (7, 7, 7)]


def dense_conv(voxels: Voxels, weights: Tensor, size: Triple) -> Tensor:
    """Dense convolution, read at the occupied cells."""
    kernel = weights.view(*size, *weights.shape[1:]).permute(4, 3, 0, 1, 2)
    out = torch.nn.functional.conv3d(dense(voxels).movedim(-1, 1), kernel, padding=[n // 2 for n in size])
    return out.movedim(1, -1)[tuple(voxels.coords.T)]


def case(
    size: Triple = (3, 3, 3), c_in: int = 5, c_out: int = 7, dtype: torch.dtype = F64, **options
) -> tuple[Voxels, Tensor, Tensor]:
    voxels = random_voxels(channels=c_in, dtype=dtype, **options)
    weights = torch.randn(size[0] * size[1] * size[2], c_in, c_out, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return voxels, weights, voxel_neighbors(voxels.coords, voxels.grid, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [(13, 11, 7), (1, 1, 9), (5, 1, 1), (4, 30, 2)])
@pytest.mark.usefixtures("backend")
def test_neighbors_against_a_dictionary(size, grid):
    coords = random_voxels(grid, fraction=0.4).coords
    index = {tuple(row): i for i, row in enumerate(coords.tolist())}
    neighbors = voxel_neighbors(coords, grid, size)
    offsets = [(x, y, z) for x in range(size[0]) for y in range(size[1]) for z in range(size[2])]
    for column, (dx, dy, dz) in zip(neighbors.tolist(), offsets):
        moved = [(b, x + dx - size[0] // 2, y + dy - size[1] // 2, z + dz - size[2] // 2) for b, x, y, z in coords.tolist()]
        assert column == [index.get(at, -1) for at in moved]
    assert neighbors.dtype == torch.int32 and neighbors.shape == (len(offsets), len(coords))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.usefixtures("backend")
def test_dense_convolution(size, dtype):
    voxels, weights, neighbors = case(size, dtype=dtype)
    got, limit = submanifold_conv(voxels.features, neighbors, weights), 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(got, dense_conv(voxels, weights, size), rtol=limit, atol=limit)


@pytest.mark.parametrize("isa", [pytest.param(isa, marks=needs_native) for isa in ("portable", "avx2", "avx512")])
@pytest.mark.parametrize(("c_in", "c_out"), [(1, 1), (10, 48), (64, 64), (3, 130), (17, 33)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_channels_and_instruction_sets(isa, c_in, c_out, dtype):
    module = native.require()
    if isa not in module.available_isas():
        pytest.skip(f"this CPU has no {isa}")
    before = module.isa()
    voxels, weights, neighbors = case(c_in=c_in, c_out=c_out, dtype=dtype)
    features, upstream = voxels.features.requires_grad_(), torch.randn(len(voxels), c_out, dtype=dtype)
    weights.requires_grad_()
    want = reference.submanifold_conv(features, neighbors, weights)
    want_grads = torch.autograd.grad(want, (features, weights), upstream)
    module.set_isa(isa)
    try:
        got = submanifold_conv(features, neighbors, weights)
        grads = torch.autograd.grad(got, (features, weights), upstream)
    finally:
        module.set_isa(before)
    for a, b in zip((got, *grads), (want, *want_grads)):
        torch.testing.assert_close(
            a, b, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-5 * float(b.detach().abs().max())
        )


@needs_native
@pytest.mark.parametrize("threads", [1, 2])
def test_repeats_and_threads(threads):
    """20 calls on the same tensors, forward and backward: no wrong row, and always the same bits."""
    voxels, weights, _ = case(grid=(60, 50, 12), fraction=0.2, c_in=16, c_out=16, dtype=torch.float32)
    want, upstream = dense_conv(voxels, weights, (3, 3, 3)), torch.randn(len(voxels), 16)
    features, before = voxels.features.requires_grad_(), torch.get_num_threads()
    weights.requires_grad_()

    def call() -> list[Tensor]:
        found = voxel_neighbors(voxels.coords, voxels.grid)
        out = submanifold_conv(features, found, weights)
        return [out, *torch.autograd.grad(out, (features, weights), upstream)]

    first = call()
    torch.set_num_threads(threads)
    try:
        for _ in range(20):
            assert all(map(torch.equal, call(), first))
    finally:
        torch.set_num_threads(before)
    assert int(((first[0] - want).abs() > 1e-4).any(1).sum()) == 0


@pytest.mark.usefixtures("backend")
def test_gradient():
    voxels, weights, neighbors = case((3, 3, 1), c_in=2, c_out=3, grid=(5, 4, 3), fraction=0.4)
    inputs = voxels.features.requires_grad_(), weights.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: submanifold_conv(x, neighbors, w), inputs)


@needs_native
def test_gradient_of_one_input():
    voxels, weights, neighbors = case(c_in=2, c_out=3, grid=(5, 4, 3))
    features = voxels.features
    assert torch.autograd.gradcheck(lambda x: submanifold_conv(x, neighbors, weights), features.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda w: submanifold_conv(features, neighbors, w), weights.clone().requires_grad_())


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.usefixtures("backend")
def test_few_voxels(count):
    coords = torch.zeros(count, 4, dtype=torch.int64)
    neighbors = voxel_neighbors(coords, (5, 5, 5))
    assert neighbors.tolist() == [[0 if k == 13 else -1] * count for k in range(27)]
    layer = SubmanifoldConv(4, 6, bias=True)
    features = torch.rand(count, 4, requires_grad=True)
    out = layer(features, neighbors)
    out.sum().backward()
    assert out.shape == (count, 6) and features.grad is not None and layer.weights.grad is not None
    torch.testing.assert_close(layer.weights.grad.sum(2)[13], 6 * features.detach().sum(0))
    if count and layer.bias is not None:
        torch.testing.assert_close(out, features @ layer.weights[13] + layer.bias)


@needs_native
def test_registered_operations():
    voxels, weights, neighbors = case(c_in=2, c_out=3, grid=(4, 4, 3))
    features = voxels.features.requires_grad_()
    torch.library.opcheck(torch.ops.vision3d.voxel_neighbors.default, (voxels.coords, [4, 4, 3], [3, 3, 3]))
    torch.library.opcheck(torch.ops.vision3d.submanifold_conv.default, (features, neighbors, weights.requires_grad_()))
    arguments = (features.detach(), neighbors, weights.detach(), torch.rand(len(voxels), 3, dtype=F64), True, True)
    torch.library.opcheck(torch.ops.vision3d.submanifold_conv_vjp.default, arguments)


@needs_native
def test_values_that_are_not_a_number_reach_their_neighbors_only():
    voxels, weights, neighbors = case()
    features = voxels.features.clone()
    features[40, 0] = torch.nan
    out = submanifold_conv(features, neighbors, weights)
    assert torch.equal(out.isnan().any(1), (neighbors == 40).any(0))


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        (
            [[0, 1, 0, 0], [0, 0, 0, 0]],
            r"coords: voxel 1 is \(0, 0, 0, 0\), want unique voxels in the grid 5 x 5 x 5, sorted by",
        ),
        ([[0, 1, 0, 0], [0, 1, 0, 0]], "coords: voxel 1 is"),
        ([[0, 1, 0, 5]], r"coords: voxel 0 is \(0, 1, 0, 5\)"),
        ([[-1, 0, 0, 0]], "coords: voxel 0 is"),
        ([[2**40, 0, 0, 0]], "coords: voxel 0 is"),
    ],
)
@needs_native
def test_invalid_voxels(coords, message):
    with pytest.raises(InputError, match=message):
        voxel_neighbors(torch.tensor(coords), (5, 5, 5))


def test_invalid_sizes():
    for size in ((3, 2, 3), (9, 1, 1), (-1, 3, 3)):
        with pytest.raises(InputError, match=r"size: got \(.*\), want odd numbers from 1 to 7"):
            SubmanifoldConv(2, 2, size)


@needs_native
def test_time_of_the_neighbors():
    coords = (torch.rand(1, 352, 400, 16) < 0.01).nonzero()
    times = []
    for _ in range(5):
        start = time.process_time()
        voxel_neighbors(coords, (352, 400, 16))
        times.append(time.process_time() - start)
    assert min(times) < 0.5e-6 * len(coords)
