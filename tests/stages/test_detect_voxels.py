"""Sparse voxels: voxelization, orders, groups, merging and generation against brute force and their defining properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.stages.detect.voxels import (
    Voxels,
    apply_padded,
    apply_ragged,
    describe_points,
    dilate,
    equal_groups,
    expand,
    foreground,
    generate,
    merge,
    segment_max,
    segment_mean,
    segment_sum,
    voxelize,
    window_order,
)
from vision3d.stages.detect.voxels.generation import candidates
from vision3d.stages.detect.voxels.segments import Segments, sort_keys
from vision3d.stages.detect.voxels.voxels import Triple, coords_of, keys_of

LOW, SIZE, GRID = (-3.0, -2.0, -1.0), (0.5, 0.4, 0.25), (13, 11, 7)
F64 = torch.float64


@pytest.fixture(params=["native", "reference"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "reference":
        monkeypatch.setattr(native, "is_plain", lambda *tensors: False)
        monkeypatch.setattr(native, "runs_on", lambda tensor: False)
    elif native.module() is None:
        pytest.skip("the native module is not built")
    return request.param


def random_voxels(
    grid: Triple = GRID, batch_size: int = 3, fraction: float = 0.3, channels: int = 5, seed: int = 0, dtype: torch.dtype = F64
) -> Voxels:
    """Occupied cells at random; the second sample is empty."""
    generator = torch.Generator().manual_seed(seed)
    occupied = torch.rand(batch_size, *grid, generator=generator) < fraction
    if batch_size > 1:
        occupied[1] = False
    coords = occupied.nonzero()
    return Voxels(coords, torch.randn(len(coords), channels, generator=generator, dtype=dtype), grid, batch_size)


def some_points(count: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """x y z intensity, some outside of the grid; no point in sample 1."""
    generator = torch.Generator().manual_seed(seed)
    points = (torch.rand(count, 4, generator=generator) - 0.4) * torch.tensor([8.0, 6, 3, 1])
    return points, torch.randint(0, 2, (count,), generator=generator) * 2


def put(points: Tensor, batch: Tensor):
    return voxelize(points, batch, low=LOW, voxel_size=SIZE, grid=GRID, batch_size=3)


def cells_of(points: Tensor, batch: Tensor) -> dict[tuple[int, ...], list[int]]:
    found: dict[tuple[int, ...], list[int]] = {}
    for i, (point, sample) in enumerate(zip(points.tolist(), batch.tolist())):
        cell = [math.floor((p - low) / size) for p, low, size in zip(point, LOW, SIZE)]
        if all(0 <= c < n for c, n in zip(cell, GRID)):
            found.setdefault((sample, *cell), []).append(i)
    return found


def test_keys_are_numbers_of_cells():
    coords = torch.ones(3, *GRID).nonzero()
    keys = keys_of(coords, GRID)
    assert torch.equal(keys, torch.arange(len(coords)))
    assert torch.equal(coords_of(keys, GRID), coords)
    far = torch.tensor([[2**19, 2**15 - 1, 2**15 - 1, 2**9 - 1]])
    assert torch.equal(coords_of(keys_of(far, (2**15, 2**15, 2**9)), (2**15, 2**15, 2**9)), far)


@pytest.mark.usefixtures("backend")
def test_voxelization_against_a_dictionary():
    points, batch = some_points()
    found, cells = put(points, batch), cells_of(points, batch)
    assert [tuple(row) for row in found.coords.tolist()] == sorted(cells)
    members = [cells[key] for key in sorted(cells)]
    assert found.kept.tolist() == sorted(i for rows in members for i in rows)
    assert len(found.kept) < len(points) and max(map(len, members)) > 1
    own = points[found.kept]
    np.testing.assert_allclose(
        segment_mean(own, found.segments), [np.mean(points[rows].numpy(), 0) for rows in members], atol=1e-6
    )
    np.testing.assert_array_equal(segment_max(own, found.segments), [points[rows].numpy().max(0) for rows in members])
    assert found.segments.sizes.tolist() == [len(rows) for rows in members]


@pytest.mark.usefixtures("backend")
def test_features_of_points():
    points, batch = some_points(50)
    found = put(points, batch)
    features = describe_points(points, found)
    assert features.shape == (len(found.kept), 10)
    torch.testing.assert_close(features[:, :4], points[found.kept])
    torch.testing.assert_close(
        segment_sum(features[:, 4:7], found.segments), torch.zeros(len(found.coords), 3), atol=1e-5, rtol=0
    )
    assert bool((features[:, 7:].abs() <= torch.tensor(SIZE) / 2 + 1e-5).all())


@pytest.mark.usefixtures("backend")
def test_order_of_points_does_not_matter():
    points, batch = some_points()
    shuffled = torch.randperm(len(points))
    first, second = put(points, batch), put(points[shuffled], batch[shuffled])
    assert torch.equal(first.coords, second.coords)
    means = [segment_mean(p[f.kept], f.segments) for p, f in ((points, first), (points[shuffled], second))]
    torch.testing.assert_close(*means)


@pytest.mark.parametrize("points", [torch.zeros(0, 4), torch.full((5, 4), 90.0), torch.zeros(1, 4)])
@pytest.mark.usefixtures("backend")
def test_few_points(points):
    found = put(points, torch.zeros(len(points), dtype=torch.int64))
    assert len(found.coords) == int(len(points) == 1) == len(found.kept)
    assert describe_points(points, found).shape == (len(found.kept), 10)
    voxels = Voxels(found.coords, segment_mean(points[found.kept], found.segments), GRID, 3)
    assert len(merge(voxels, (2, 2, 2)).voxels) == len(generate(voxels).voxels) == len(voxels)
    groups = equal_groups(window_order(voxels.coords, GRID, (4, 4, 4), axis="x"), voxels.counts, 8)
    assert apply_padded(lambda x: 2 * x, voxels.features, groups).shape == voxels.features.shape


def test_points_at_borders_of_cells():
    """Multiples of 0.1 in float32 are in the cells of their float64 values."""
    points = torch.stack([torch.arange(600) * 0.1 + 1e-4, torch.zeros(600), torch.zeros(600)], 1)
    found = voxelize(points, torch.zeros(600).long(), low=(0, -1, -1), voxel_size=(0.1, 2, 2), grid=(600, 1, 1), batch_size=1)
    assert found.coords[:, 1].tolist() == list(range(600))


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.tensor([[0.0, math.nan, 0, 1]])}, r"points: point 0 is \[0.0, nan, 0.0\] in sample 0, want finite"),
        ({"points": torch.tensor([[0.0, 0, -math.inf, 1]])}, "points: point 0 is .*-inf"),
        ({"batch": torch.tensor([3])}, "in sample 3, want finite coordinates and samples 0 to 2"),
        ({"voxel_size": (0.1, 0.0, 1.0)}, r"voxel_size: got \(0.1, 0.0, 1.0\), want positive sizes"),
        ({"grid": (4, 0, 4)}, "grid: got 4 x 0 x 4 cells, want at least 1 along each axis and at most 2.40"),
        ({"grid": (2**20, 2**20, 2)}, "grid: got 1048576 x 1048576 x 2 cells"),
        ({"batch_size": -1}, "batch_size: got -1, want 0 to 2.20"),
        ({"points": torch.zeros(1, 2)}, r"points: got shape \(1, 2\), want \(N, 3 or more\) floats"),
        ({"batch": torch.zeros(1)}, r"batch: got torch.float32, want \(1,\) int64"),
    ],
)
def test_errors_of_voxelization(change, message):
    given = {
        "points": torch.zeros(1, 4),
        "batch": torch.zeros(1, dtype=torch.int64),
        "low": LOW,
        "voxel_size": SIZE,
        "grid": GRID,
    }
    with pytest.raises(InputError, match=message):
        voxelize(**{**given, "batch_size": 3, **change})


@pytest.mark.wrong_types
def test_errors_of_voxels():
    coords, features = torch.zeros(2, 4).long(), torch.zeros(2, 3)
    with pytest.raises(ShapeError, match=r"coords: got shape \(2, 3\), want \(M, 4\) int64"):
        Voxels(coords[:, :3], features, GRID, 1)
    with pytest.raises(ShapeError, match=r"features: got shape \(1, 3\), want \(2, channels\)"):
        Voxels(coords, features[:1], GRID, 1)


def written_key(cell: list[int], grid: Triple, window: Triple, axis: str, shifted: bool) -> int:
    """The key as LION writes it."""
    batch, *at = cell
    at = [a + (w // 2 if shifted else 0) for a, w in zip(at, window)]
    (wx, wy, wz), (rx, ry, rz) = [a // w for a, w in zip(at, window)], [a % w for a, w in zip(at, window)]
    nx, ny, nz = (math.ceil(g / w) + 1 for g, w in zip(grid, window))
    sx, sy, sz = window
    if axis == "x":
        return (batch * nx * ny * nz + wx * ny * nz + wy * nz + wz) * sx * sy * sz + rx * sy * sz + ry * sz + rz
    return (batch * nx * ny * nz + wy * nx * nz + wx * nz + wz) * sx * sy * sz + ry * sx * sz + rx * sz + rz


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", [(4, 4, 4), (5, 3, 7), (13, 13, 32), (1, 1, 1)])
def test_window_order_as_written(axis, shifted, window):
    coords = random_voxels().coords
    keys = [written_key(row, GRID, window, axis, shifted) for row in coords.tolist()]
    assert len(set(keys)) == len(keys)
    order = window_order(coords, GRID, window, axis=axis, shifted=shifted)
    assert order.tolist() == sorted(range(len(keys)), key=keys.__getitem__)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_moving_by_whole_windows_keeps_the_order(axis):
    coords, window = random_voxels((10, 10, 8)).coords, (3, 4, 2)
    moved = coords + torch.tensor([0, 6, 8, 4])
    orders = [window_order(c, (40, 40, 20), window, axis=axis, shifted=True) for c in (coords, moved)]
    assert torch.equal(*orders)
    assert not torch.equal(
        orders[0], window_order(coords + torch.tensor([0, 1, 0, 0]), (40, 40, 20), window, axis=axis, shifted=True)
    )


def test_order_of_a_large_grid_does_not_overflow():
    coords = torch.tensor([[2000, 0, 0, 0], [2000, 999, 999, 31], [1999, 999, 999, 31]])
    assert window_order(coords, (1000, 1000, 32), (13, 13, 32), axis="x").tolist() == [2, 0, 1]


def test_the_last_group_is_filled_up():
    groups = equal_groups(torch.arange(10), torch.tensor([10]), 4)
    assert groups.padded.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 6, 7]]
    assert groups.starts.tolist() == [0, 4, 8, 10] and groups.slots.tolist() == list(range(10))
    groups = equal_groups(torch.tensor([2, 0, 1, 3]), torch.tensor([3, 0, 1]), 8)
    assert groups.padded.tolist() == [[2, 0, 1, 2, 0, 1, 2, 0], [3] * 8]
    assert groups.starts.tolist() == [0, 3, 4] and groups.slots.tolist() == [1, 2, 0, 8]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 23), max_size=4), st.integers(1, 9), st.integers(0, 99))
def test_groups_are_a_partition(counts, size, seed):
    sizes, generator = torch.tensor(counts, dtype=torch.int64), torch.Generator().manual_seed(seed)
    firsts = np.cumsum([0, *counts])
    parts = [torch.randperm(n, generator=generator) + int(first) for n, first in zip(counts, firsts)]
    order = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
    sample = torch.repeat_interleave(torch.arange(len(counts)), sizes)
    groups = equal_groups(order, sizes, size)
    assert groups.padded.shape == (sum(math.ceil(n / size) for n in counts), size)
    assert torch.equal(groups.padded.flatten()[groups.slots], torch.arange(len(order)))  # a bijection of the real places
    for row, begin, end in zip(groups.padded, groups.starts[:-1].tolist(), groups.starts[1:].tolist()):
        assert torch.equal(row[: end - begin], order[begin:end]) and 1 <= end - begin <= size
        assert len(sample[row].unique()) == 1
    assert groups.starts[-1] == len(order)


@pytest.mark.parametrize("size", [1, 4, 7, 1000])
@pytest.mark.usefixtures("backend")
def test_operators_on_groups(size):
    voxels = random_voxels()
    groups = equal_groups(window_order(voxels.coords, GRID, (4, 5, 7), axis="y"), voxels.counts, size)
    features = voxels.features.requires_grad_()

    def ragged(x: Tensor, starts: Tensor) -> Tensor:  # causal: the sums so far
        return torch.cat([part.cumsum(0) for part in x.split(starts.diff().tolist())])

    outs = [apply_padded(lambda x: x.cumsum(1), features, groups), apply_ragged(ragged, features, groups)]
    torch.testing.assert_close(*outs)
    upstream = torch.randn_like(features)
    grads = [torch.autograd.grad(out, features, upstream)[0] for out in outs]
    torch.testing.assert_close(*grads)
    plain = features.detach()
    torch.testing.assert_close(apply_padded(lambda x: x.cumsum(1), plain, groups), outs[0])
    torch.testing.assert_close(apply_ragged(lambda x, starts: 3 * x, plain, groups), 3 * plain)


def test_errors_of_orders_and_groups():
    coords = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(InputError, match=r"window: got \(3, 0, 3\), want at least one cell along each axis"):
        window_order(coords, GRID, (3, 0, 3), axis="x")
    with pytest.raises(InputError, match="size: got 0, want at least one voxel a group"):
        equal_groups(torch.arange(1), torch.tensor([1]), 0)


def dense(voxels: Voxels) -> Tensor:
    out = voxels.features.new_zeros(voxels.batch_size, *voxels.grid, voxels.features.shape[1])
    out[tuple(voxels.coords.T)] = voxels.features
    return out


@pytest.mark.parametrize("scale", [(2, 2, 2), (1, 1, 2), (3, 2, 1), (1, 1, 1), (20, 20, 20)])
@pytest.mark.usefixtures("backend")
def test_merging_against_dense_sums(scale):
    voxels = random_voxels()  # 13 x 11 x 7: no scale but 1 divides it
    merged = merge(voxels, scale)
    padding = [pad for cells, step in zip(GRID[::-1], scale[::-1]) for pad in (0, -cells % step)]

    def pooled(features: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(dense(voxels.with_features(features)).movedim(-1, 1), padding)
        return torch.nn.functional.avg_pool3d(padded, scale, divisor_override=1).movedim(1, -1)

    want = pooled(voxels.features)
    assert merged.voxels.grid == want.shape[1:4]
    torch.testing.assert_close(dense(merged.voxels), want)
    assert torch.equal(merged.voxels.coords, pooled(torch.ones_like(voxels.features))[..., 0].nonzero())
    torch.testing.assert_close(merged.voxels.features.sum(0), voxels.features.sum(0))  # conserved
    parents = merged.voxels.coords[merged.segments.inverse]
    assert torch.equal(parents[:, 1:], voxels.coords[:, 1:].div(torch.tensor(scale), rounding_mode="floor"))


@pytest.mark.usefixtures("backend")
def test_expanding_is_the_transpose_of_merging():
    voxels = random_voxels()
    merged = merge(voxels, (2, 2, 2))
    other = torch.randn_like(merged.voxels.features)
    torch.testing.assert_close((merged.voxels.features * other).sum(), (voxels.features * expand(other, merged.segments)).sum())
    fine = voxels.features.requires_grad_()
    torch.autograd.backward(segment_sum(fine, merged.segments), other)
    assert fine.grad is not None
    torch.testing.assert_close(fine.grad, expand(other, merged.segments))


@pytest.mark.usefixtures("backend")
def test_foreground():
    voxels = random_voxels(batch_size=4)
    found = foreground(voxels, 0.2)
    response, batch = voxels.features.mean(1), voxels.coords[:, 0]
    for sample, count in enumerate(voxels.counts.tolist()):
        rows = found[batch[found] == sample]
        assert len(rows) == count // 5
        own = (batch == sample).nonzero()[:, 0]
        assert rows.tolist() == own[response[own].argsort(descending=True)][: count // 5].tolist()
    flat = voxels.with_features(torch.zeros_like(voxels.features))
    assert foreground(flat, 1.0).tolist() == list(range(len(voxels)))
    assert len(foreground(voxels, 0.0)) == 0
    thirty = Voxels(torch.ones(1, 30, 1, 1).nonzero(), torch.zeros(30, 2), (30, 1, 1), 1)
    assert [len(foreground(thirty, k / 10)) for k in range(11)] == [3 * k for k in range(11)]
    with pytest.raises(InputError, match=r"fraction: got 1\.5, want 0 to 1"):
        foreground(voxels, 1.5)


@pytest.mark.usefixtures("backend")
def test_generation():
    voxels = random_voxels(fraction=0.05)
    new = candidates(voxels, 0.2)
    assert len(new) == 4 * sum(int(n) // 5 for n in voxels.counts)
    chosen = voxels.coords[foreground(voxels, 0.2)].tolist()
    want = [
        (b, min(max(x + dx, 0), GRID[0] - 1), min(max(y + dy, 0), GRID[1] - 1), z)
        for dx, dy in ((-1, 1), (1, 1), (-1, -1), (1, -1)) for b, x, y, z in chosen
    ]  # fmt: skip
    assert [tuple(row) for row in new.tolist()] == want
    merged = generate(voxels, (1, 1, 2))
    old = merge(voxels, (1, 1, 2)).voxels
    cells = {(b, x, y, z // 2) for b, x, y, z in [*want, *map(tuple, voxels.coords.tolist())]}
    assert [tuple(row) for row in merged.voxels.coords.tolist()] == sorted(cells)
    assert len(merged.voxels) > len(old) and merged.voxels.grid == (13, 11, 4)
    before = {tuple(row): feature for row, feature in zip(old.coords.tolist(), old.features)}
    for row, feature in zip(merged.voxels.coords.tolist(), merged.voxels.features):
        torch.testing.assert_close(feature, before.get(tuple(row), torch.zeros_like(feature)))


@pytest.mark.parametrize("size", [(3, 3, 1), (1, 5, 3), (1, 1, 1)])
@pytest.mark.usefixtures("backend")
def test_dilation(size):
    voxels = random_voxels(fraction=0.05)
    ones = dense(voxels.with_features(torch.ones_like(voxels.features)))[..., 0]
    grown = torch.nn.functional.max_pool3d(ones, size, 1, [n // 2 for n in size])
    got = dilate(voxels, size)
    assert torch.equal(got.coords, grown.nonzero()) and got.grid == GRID
    torch.testing.assert_close(dense(got), dense(voxels))
    with pytest.raises(InputError, match=r"size: got \(2, 3, 1\), want odd and positive numbers"):
        dilate(voxels, (2, 3, 1))


def some_segments(rows: int = 20, seed: int = 0) -> Segments:
    keys = torch.randint(0, 6, (rows,), generator=torch.Generator().manual_seed(seed)) * 5
    values, segments = Segments.of_keys(keys)
    assert torch.equal(values, keys.unique()) and torch.equal(values[segments.inverse], keys)
    return segments


@pytest.mark.parametrize("limit", [1, 3, 2**11, 2**22 + 5, 2**62])
@pytest.mark.parametrize("count", [0, 1, 3000])
@pytest.mark.usefixtures("backend")
def test_sorted_keys(count, limit):
    keys = torch.randint(0, limit, (count,))
    ordered, order = sort_keys(keys)
    want = keys.sort(stable=True)
    assert torch.equal(ordered, want.values) and torch.equal(order, want.indices)


@pytest.mark.usefixtures("backend")
def test_gradients_of_segments():
    segments = some_segments()
    values = torch.randn(20, 3, dtype=F64, requires_grad=True)
    for function in (segment_sum, segment_mean, segment_max):
        assert torch.autograd.gradcheck(lambda v, f=function: f(v, segments), values)
    assert torch.autograd.gradcheck(lambda v: expand(v, segments), torch.randn(6, 3, dtype=F64, requires_grad=True))


@pytest.mark.skipif(native.module() is None, reason="the native module is not built")
def test_registered_operations_of_segments():
    segments = some_segments()
    values = torch.randn(20, 3, dtype=F64, requires_grad=True)
    coarse = torch.randn(6, 3, dtype=F64, requires_grad=True)
    torch.library.opcheck(torch.ops.vision3d.segment_sum.default, (values, *segments))
    torch.library.opcheck(torch.ops.vision3d.segment_expand.default, (coarse, *segments))
    torch.library.opcheck(torch.ops.vision3d.segment_max.default, (values, segments.order, segments.starts, True))
    torch.library.opcheck(torch.ops.vision3d.sort_keys.default, (segments.inverse,))
    sums = torch.ops.vision3d.segment_sum
    assert torch.autograd.gradgradcheck(lambda v: sums(v, *segments) ** 2, values)


@pytest.mark.usefixtures("backend")
def test_maximum_of_values_that_are_not_a_number():
    segments = some_segments()
    values = torch.randn(20, 3)
    values[7, 1] = math.nan
    for requires_grad in (False, True):
        got = segment_max(values.requires_grad_(requires_grad), segments)
        assert bool(got[segments.inverse[7], 1].isnan()) and int(got.isnan().sum()) == 1


@pytest.mark.skipif(native.module() is None, reason="the native module is not built")
def test_segments_without_rows_are_refused():
    with pytest.raises(ValueError, match="starts: segment 1 has no rows, want at least one"):
        torch.ops.vision3d.segment_max(torch.rand(3, 2), torch.arange(3), torch.tensor([0, 2, 2, 3]), True)


@pytest.mark.skipif(native.module() is None, reason="the native module is not built")
def test_indices_beyond_the_segments_are_refused():
    rows = torch.arange(3)
    with pytest.raises(InputError, match="inverse: got 0 to 7, want 0 to 2"):
        torch.ops.vision3d.segment_expand(torch.rand(3, 2), rows, torch.arange(4), torch.tensor([0, 1, 7]))
