from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.geometry import neighbors
from vision3d.geometry.neighbors import knn, neighbor_distance

METHODS = ["kdtree", "brute"]


def naive(points, queries, k, skip_self):
    distances = (queries[:, None] - points).norm(dim=-1)
    if skip_self:
        distances.fill_diagonal_(torch.inf)
    return distances.sort(dim=-1, stable=True).values[:, :k]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 4])
def test_agrees_with_the_definition(method, dtype, k):
    points, queries = torch.randn(200, 3, dtype=dtype), torch.randn(50, 3, dtype=dtype)
    distances, idx = knn(points, queries, k, method)
    assert idx.shape == (50, k)
    torch.testing.assert_close(distances, naive(points, queries, k, False))
    torch.testing.assert_close((points[idx] - queries[:, None]).norm(dim=-1), distances)
    distances, idx = knn(points, k=k, method=method)
    torch.testing.assert_close(distances, naive(points, points, k, True))
    assert (idx != torch.arange(200)[:, None]).all()


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_methods_agree_where_points_coincide(count, seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(0, 3, (count, 3), generator=generator).double()
    k = min(3, count - 1)
    found = [knn(points, k=k, method=method) for method in METHODS]
    torch.testing.assert_close(found[0][0], found[1][0])
    for _, idx in found:
        assert (idx != torch.arange(count)[:, None]).all()
        assert all(len(set(row)) == k for row in idx.tolist())


@pytest.mark.parametrize("method", METHODS)
def test_duplicates_are_neighbors_at_distance_zero(method):
    points = torch.zeros(30, 3, requires_grad=True)
    distances, _ = knn(points, k=3, method=method)
    assert (distances == 0).all()
    assert torch.autograd.grad(distances.sum(), points)[0].isfinite().all()


def test_brute_force_in_blocks():
    points = torch.randn(100, 3)
    whole = neighbors._brute(points, points, 3, True)
    parts = neighbors._brute(points, points, 3, True, block_numbers=700)
    assert torch.equal(whole, parts)


def test_brute_force_is_precise_far_from_the_origin():
    points = (torch.rand(300, 3, dtype=torch.float64) + 1000).float()
    torch.testing.assert_close(knn(points, k=3, method="brute")[0], knn(points, k=3, method="kdtree")[0])


def test_distances_have_gradients():
    points, queries = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (20, 5))
    assert torch.autograd.gradcheck(lambda p, q: knn(p, q, 3)[0], (points, queries))
    assert torch.autograd.gradcheck(neighbor_distance, points)


def test_other_dimensions_and_no_queries():
    assert knn(torch.randn(10, 5), torch.randn(3, 5), 2)[0].shape == (3, 2)
    for method in METHODS:
        assert knn(torch.randn(10, 3), torch.zeros(0, 3), 2, method)[1].shape == (0, 2)


def test_root_mean_square_distance_on_a_grid():
    axis = torch.arange(5.0)
    grid = 0.5 * torch.cartesian_prod(axis, axis, axis)
    torch.testing.assert_close(neighbor_distance(grid), torch.full((125,), 0.5))
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]])
    torch.testing.assert_close(neighbor_distance(line)[0], torch.tensor((1 + 9) / 2).sqrt())  # there are only two others


def test_bad_input_is_named():
    with pytest.raises(ShapeError, match="points: got 3 points, want at least k = 3 other points"):
        knn(torch.randn(3, 3), k=3)
    with pytest.raises(ShapeError, match="points: got 3 points, want at least k = 4 points"):
        knn(torch.randn(3, 3), torch.randn(1, 3), k=4)
    with pytest.raises(ShapeError, match="got 1 points, want at least k = 1 other"):
        neighbor_distance(torch.randn(1, 3))
    with pytest.raises(ShapeError, match=r"queries: got shape \(1, 2\)"):
        unwrap(knn)(torch.randn(3, 3), torch.randn(1, 2))
    with pytest.raises(InputError, match=r"points: row 1 is not finite: \[0.0, nan, 0.0\]"):
        knn(torch.tensor([[0.0, 0, 0], [0, torch.nan, 0]]))
    with pytest.raises(ConfigError, match="method: 'tree'; valid: auto, kdtree, brute"):
        unwrap(knn)(torch.randn(3, 3), method="tree")
