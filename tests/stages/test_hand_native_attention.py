"""Attention with narrow heads, compiled, against torch in float64."""

import pytest
import torch

from vision3d.core.errors import BackendError
from vision3d.stages.hand.network import native_attention
from vision3d.stages.hand.network.native_attention import attend, attend_reference


def rows(queries, keys, heads=8, batch=2, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, queries, 8 * heads), (batch, keys, 8 * heads), (batch, keys, 8 * heads), (batch, queries, 8 * heads))
    return [scale * torch.randn(*shape, generator=generator) for shape in shapes]


def compared(made, v_made, heads):
    """Results and gradients of both."""
    leaves = [row.clone().requires_grad_() for row in made]
    got = attend(*leaves, heads)
    wanted = [row.double().requires_grad_() for row in made]
    want = attend_reference(*wanted, heads)
    yield got.detach(), want.detach()
    yield from zip(torch.autograd.grad(got, leaves, v_made), torch.autograd.grad(want, wanted, v_made.double()))


@pytest.mark.parametrize(("queries", "keys", "heads", "batch"), [
    (1, 1, 1, 1), (21, 21, 8, 3), (336, 336, 8, 1), (16, 33, 3, 2), (37, 5, 2, 2), (0, 4, 2, 2), (3, 4, 1, 0),
])  # fmt: skip
def test_it_is_that_of_torch(isa, queries, keys, heads, batch):
    *made, v_made = rows(queries, keys, heads, batch)
    for got, want in compared(made, v_made, heads):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=5e-6)


def test_large_and_far_scores(isa):
    *made, v_made = rows(40, 40, scale=12.0)
    for got, want in compared(made, v_made, 8):
        torch.testing.assert_close(got.double(), want, rtol=2e-4, atol=2e-4 * float(want.abs().max()))


def test_it_runs_where_a_gradient_is_required(monkeypatch):
    calls = []
    monkeypatch.setattr(native_attention, "attend_reference", lambda *args: calls.append(1) or attend_reference(*args))
    query, key, value, _ = rows(5, 5)
    attend(query.requires_grad_(), key, value, 8)
    assert not calls
    with torch.no_grad():
        attend(query, key, value, 8)
    attend(query, key, value, 4)  # wider heads
    attend(query.double(), key.double(), value.double(), 8)
    assert len(calls) == 3


def test_nan_stays_in_its_rows(isa):
    query, key, value, _ = rows(20, 20, batch=3)
    query[0, 3, 2] = key[1, 5, 0] = value[2, 7, 1] = torch.nan
    got = attend(query.requires_grad_(), key, value, 8).isnan()
    with torch.no_grad():
        want = attend_reference(query, key, value, 8).isnan()
    assert bool(want.any()) and torch.equal(got, want)


def test_the_same_for_any_number_of_threads(isa):
    *made, v_made = rows(60, 50)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append([got for got, _ in compared(made, v_made, 8)])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other))


def test_wrong_shapes_and_second_derivatives():
    query, key, value, _ = rows(5, 6)
    with pytest.raises(Exception, match=r"value|key"):
        attend(query.requires_grad_(), key, value[:, :4], 8)
    grad = torch.autograd.grad(attend(query, key, value, 8).square().sum(), query, create_graph=True)[0]
    with pytest.raises(BackendError, match="has no second derivatives"):
        grad.sum().backward()
