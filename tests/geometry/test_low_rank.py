"""Low-rank shapes: exact ranks, a bound on the maximum error, and few shapes."""

import pytest
import torch

from vision3d.core.errors import InputError
from vision3d.geometry.low_rank import principal_shapes


def sums(weights, shapes):
    return torch.einsum("tm,mvc->tvc", weights, shapes)


def worst(values, weights, shapes):
    return float((sums(weights, shapes) - values).norm(dim=-1).max())


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_rank_is_found_and_the_result_is_exact(rank):
    values = sums(torch.randn(20, rank, dtype=torch.float64), torch.randn(rank, 30, 3, dtype=torch.float64))
    weights, shapes = principal_shapes(values, 1e-9)
    assert shapes.shape == (rank, 30, 3) and worst(values, weights, shapes) <= 1e-12 * float(values.abs().max()) * 100
    torch.testing.assert_close(weights.abs().amax(0), torch.ones(rank, dtype=torch.float64))


@pytest.mark.parametrize("tolerance", [1.0, 0.1, 0.01])
def test_no_vertex_is_further_away_than_the_tolerance(tolerance):
    """Fewer shapes than a least-squares choice needs for the same bound if a few vertices move differently."""
    values = torch.randn(40, 1, 1, dtype=torch.float64) * torch.randn(1, 200, 3, dtype=torch.float64)
    values[:, 7] += torch.randn(40, 3, dtype=torch.float64)
    values = values + 0.02 * torch.randn(40, 200, 3, dtype=torch.float64)
    weights, shapes = principal_shapes(values, tolerance)
    assert worst(values, weights, shapes) <= tolerance * (1 + 1e-9)
    left, _, _ = torch.linalg.svd(values.flatten(1), full_matrices=False)
    plain = next(
        n for n in range(41) if worst(values, left[:, :n], (left[:, :n].T @ values.flatten(1)).view(n, 200, 3)) <= tolerance
    )
    assert len(shapes) <= plain


def test_maximum():
    values = torch.randn(12, 30, 3)
    weights, shapes = principal_shapes(values, 0.0, most=5)
    assert weights.shape == (12, 5) and shapes.shape == (5, 30, 3)
    more = principal_shapes(values, 0.0, most=9)
    assert worst(values, *more) < worst(values, weights, shapes)
    assert len(principal_shapes(values, 0.0, most=0)[1]) == 0


@pytest.mark.parametrize("shape", [(0, 3, 3), (4, 0, 3), (4, 5, 3)])
def test_no_motion(shape):
    weights, shapes = principal_shapes(torch.zeros(shape), 1e-4)
    assert weights.shape == (shape[0], 0) and shapes.shape == (0, *shape[1:])


def test_wrong_input():
    with pytest.raises(InputError, match=r"^principal_shapes: got tolerance -1, most None; want both >= 0"):
        principal_shapes(torch.zeros(2, 2, 3), -1)
    with pytest.raises(InputError, match="finite displacements"):
        principal_shapes(torch.full((2, 2, 3), torch.nan), 1.0)
