"""The recurrences of the operators of `detect`: every form against the recurrence as written, and closed forms."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.support import scans as support
from tests.support.scans import (
    MAKERS,
    SHAPES,
    attention_inputs,
    by_recurrence,
    delta_inputs,
    grads_of,
    ragged,
    relative,
    selective_inputs,
    states,
)
from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.stages.detect.operators import scans
from vision3d.stages.detect.operators.groups import Groups

EXACT = {torch.float64: 1e-11, torch.float32: 2e-5}
DTYPES = pytest.mark.parametrize("dtype", EXACT, ids=["float64", "float32"])


NATIVE = native.module() is not None


@pytest.fixture(autouse=True, params=[*(["native"] if NATIVE else []), "torch"])
def form(request, monkeypatch):
    """Every test runs the native form and the one in torch."""
    torch.manual_seed(0)
    if request.param == "torch":
        monkeypatch.setattr(scans, "_is_native", lambda rows: False)
    return request.param


@DTYPES
@pytest.mark.parametrize("decay", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_selective_scan(dtype, decay, reverse):
    groups = ragged()
    rows, state = selective_inputs(groups.rows, dtype=dtype, decay=decay), states(groups, 6, 4, dtype=dtype)
    got, want = (
        scans.selective_scan(*rows, groups, state=state, reverse=reverse),
        by_recurrence("selective_scan", groups, rows, state, reverse),
    )
    for a, b in zip(got, want):
        assert a.dtype == dtype and relative(a, b) < EXACT[dtype]


@DTYPES
@pytest.mark.parametrize("decay", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("kind", ["channel", "head"])
@pytest.mark.parametrize("exclusive", [False, True], ids=["inclusive", "exclusive"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_decayed_attention(dtype, decay, kind, exclusive, reverse):
    groups = ragged()
    rows = attention_inputs(groups.rows, dtype=dtype, decay=decay, per_head=kind == "head")
    state = states(groups, 2, 5, 7, dtype=dtype)
    got = scans.decayed_attention(*rows, groups, state=state, reverse=reverse, exclusive=exclusive)
    want = by_recurrence("decayed_attention", groups, rows, state, reverse, exclusive=exclusive)
    for a, b in zip(got, want):
        assert a.dtype == dtype and relative(a, b) < EXACT[dtype]


@DTYPES
@pytest.mark.parametrize("decay", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_delta_rule(dtype, decay, steps, reverse):
    groups = ragged()
    rows = delta_inputs(groups.rows, dtype=dtype, decay=decay, steps=steps)
    state = states(groups, 2, 5, 7, dtype=dtype)
    got = scans.delta_rule(*rows, groups, state=state, reverse=reverse)
    want = by_recurrence("delta_rule", groups, rows, state, reverse)
    for a, b in zip(got, want):
        assert a.dtype == dtype and relative(a, b) < EXACT[dtype]


def check_gradients(function, inputs):
    assert torch.autograd.gradcheck(function, [value.requires_grad_() for value in inputs], atol=1e-7)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_gradients_of_selective_scan(reverse):
    groups = ragged((3, 0, 1, 4))
    rows, state = selective_inputs(groups.rows, 3, 2), states(groups, 3, 2)
    check_gradients(lambda *given: scans.selective_scan(*given[:5], groups, state=given[5], reverse=reverse), [*rows, state])


@pytest.mark.parametrize("kind", ["channel", "head"])
@pytest.mark.parametrize("exclusive", [False, True], ids=["inclusive", "exclusive"])
def test_gradients_of_decayed_attention(kind, exclusive):
    groups = ragged((3, 0, 1, 4))
    rows, state = attention_inputs(groups.rows, 2, 2, 3, per_head=kind == "head"), states(groups, 2, 2, 3)
    check_gradients(
        lambda *given: scans.decayed_attention(*given[:4], groups, state=given[4], exclusive=exclusive), [*rows, state]
    )


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_gradients_of_delta_rule(steps, reverse):
    groups = ragged((3, 0, 1, 4))
    rows, state = delta_inputs(groups.rows, 2, 2, 3, steps=steps), states(groups, 2, 2, 3)

    def scan(*given):
        return scans.delta_rule(*given[:5], groups, state=given[5], reverse=reverse)

    check_gradients(scan, [*rows, state])


@DTYPES
@pytest.mark.parametrize("decay", [0.1, 10.0])
@pytest.mark.parametrize("name", MAKERS)
def test_gradients_equal_those_of_the_recurrence(name, decay, dtype):
    groups = ragged((130, 0, 1, 70))
    rows = MAKERS[name](groups.rows, dtype=dtype, decay=decay)
    state = states(groups, *SHAPES[name], dtype=dtype)
    leaves = [value.requires_grad_() for value in (*rows, state)]
    got = grads_of(getattr(scans, name)(*leaves[:-1], groups, state=leaves[-1]), leaves)
    want = grads_of(by_recurrence(name, groups, leaves[:-1], leaves[-1]), leaves)
    for a, b in zip(got, want):
        assert relative(a, b) < EXACT[dtype]


@pytest.mark.parametrize("length", [1, 2, 31, 64, 200])
@pytest.mark.parametrize("name", MAKERS)
def test_a_sequence_in_parts_with_carried_state(name, length):
    rows, scan = MAKERS[name](200), getattr(scans, name)
    whole, last = scan(*rows, ragged((200,)))
    outputs, state = [], None
    for at in range(0, 200, length):
        part = [value if name == "selective_scan" and i == 2 else value[at : at + length] for i, value in enumerate(rows)]
        y, state = scan(*part, ragged((len(part[0]),)), state=state)
        outputs.append(y)
    assert relative(torch.cat(outputs), whole) < 1e-12 and relative(state, last) < 1e-12


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 70), max_size=4),
    heads=st.integers(1, 3),
    k=st.integers(1, 6),
    v=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_decayed_attention_of_any_shape(lengths, heads, k, v, seed):
    torch.manual_seed(seed)
    groups = ragged(tuple(lengths))
    rows, state = attention_inputs(groups.rows, heads, k, v), states(groups, heads, k, v)
    got = scans.decayed_attention(*rows, groups, state=state)
    want = by_recurrence("decayed_attention", groups, rows, state) if lengths else got
    assert all(a.shape == b.shape and relative(a, b) < 1e-11 for a, b in zip(got, want))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 140), max_size=4), d=st.integers(1, 20), n=st.integers(1, 9), seed=st.integers(0, 99))
def test_selective_scan_of_any_shape(lengths, d, n, seed):
    torch.manual_seed(seed)
    groups = ragged(tuple(lengths))
    rows, state = selective_inputs(groups.rows, d, n), states(groups, d, n)
    got = scans.selective_scan(*rows, groups, state=state)
    want = by_recurrence("selective_scan", groups, rows, state) if lengths else got
    assert all(a.shape == b.shape and relative(a, b) < 1e-11 for a, b in zip(got, want))


def test_impulse_response_is_a_power_of_the_decay():
    length, gamma = 50, 0.9
    impulse = torch.zeros(length, 1, 1, dtype=torch.float64)
    impulse[0] = 1
    ones = torch.ones_like(impulse)
    want = gamma ** torch.arange(length, dtype=torch.float64)
    y, _ = scans.decayed_attention(ones, ones, impulse, torch.full_like(ones, gamma).log(), ragged((length,)))
    assert relative(y[:, 0, 0], want) < 1e-12
    delta = torch.ones(length, 1, dtype=torch.float64)
    rate = torch.tensor([[gamma]], dtype=torch.float64).log()
    y, _ = scans.selective_scan(impulse[:, 0], delta, rate, delta, delta, ragged((length,)))
    assert relative(y[:, 0], want) < 1e-12


def test_no_decay_is_linear_attention():
    groups = ragged()
    q, k, v, _ = attention_inputs(groups.rows)
    y, last = scans.decayed_attention(q, k, v, torch.zeros_like(q[..., :1]), groups)
    for i in range(groups.count):
        part = slice(int(groups.starts[i]), int(groups.starts[i + 1]))
        weights = torch.einsum("ihk,jhk->hij", q[part], k[part]).tril()
        assert relative(y[part], torch.einsum("hij,jhv->ihv", weights, v[part])) < 1e-12
        assert relative(last[i], torch.einsum("ihk,ihv->hkv", k[part], v[part])) < 1e-12


def test_equal_decays_of_all_channels_are_one_of_the_head():
    groups = ragged()
    q, k, v, g = attention_inputs(groups.rows, per_head=True)
    one, all_of_them = (scans.decayed_attention(q, k, v, decay, groups)[0] for decay in (g, g.expand_as(k)))
    assert relative(one, all_of_them) < 1e-12


@pytest.mark.parametrize("starts", [[1, 4], [0, 4, 2], []], ids=["begins late", "decreases", "empty"])
def test_wrong_starts(starts):
    with pytest.raises(InputError, match="starts: got"):
        Groups(torch.tensor(starts, dtype=torch.int64))


def test_wrong_number_of_rows():
    with pytest.raises(ShapeError, match="want 4 rows, the last value of starts"):
        scans.selective_scan(*selective_inputs(5), ragged((4,)))
    with pytest.raises(ShapeError, match="want 4 rows"):
        scans.decayed_attention(*attention_inputs(5), ragged((4,)))


@pytest.mark.parametrize("lengths", [support.LENGTHS, (4, 4, 4)])
def test_groups(lengths):
    groups = ragged(lengths)
    rows = torch.randn(groups.rows, 3)
    same = Groups.equal(3, 4) if lengths == (4, 4, 4) else groups
    parts = rows.split(list(lengths))
    assert torch.equal(same.flipped(rows), torch.cat([part.flip(0) for part in parts]))
    assert torch.equal(same.unpadded(same.padded(rows)), rows)
    before = torch.randn(len(lengths), 6, 3)
    for by in range(-6, 7):
        zeros = [torch.zeros(6, 3)] * len(parts)
        ended = [torch.cat([a, part, a])[6 - by : 6 - by + len(part)] for a, part in zip(zeros, parts)]
        assert torch.equal(same.shifted(rows, by), torch.cat(ended))
        if by > 0:
            continued = [torch.cat([a, part])[6 - by : 6 - by + len(part)] for a, part in zip(before, parts)]
            assert torch.equal(same.shifted(rows, by, before), torch.cat(continued))
    want = torch.stack([torch.cat([a, part])[-6:] for a, part in zip(before, parts)])
    assert torch.equal(same.tail(rows, 6, before), want)


@pytest.mark.parametrize("name", MAKERS)
def test_infinite_and_missing_numbers_are_seen(name):
    for bad in (torch.nan, torch.inf):
        rows = MAKERS[name](8, dtype=torch.float32)
        for index, value in enumerate(rows):
            given = [other.clone() for other in rows]
            given[index].view(-1)[value.numel() // 2] = bad if name != "selective_scan" or index != 2 else torch.nan
            y, _ = getattr(scans, name)(*given, ragged((8,)))
            assert not bool(y.isfinite().all()), (index, bad)


def rotation_free(rows: int, k: int = 4):
    return torch.nn.functional.normalize(torch.randn(rows, 1, 1, k, dtype=torch.float64), dim=-1)


def test_delta_rule_without_steps_changes_nothing():
    q, k, v, beta, _ = delta_inputs(9)
    state = torch.randn(1, 2, 5, 7, dtype=torch.float64)
    y, last = scans.delta_rule(q, k, v, 0 * beta, None, ragged((9,)), state=state)
    assert torch.equal(last, state) and relative(y, torch.einsum("thk,hkv->thv", q, state[0])) < 1e-12


def test_delta_rule_recalls_orthonormal_keys_exactly():
    keys = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    values = torch.randn(8, 1, 1, 5, dtype=torch.float64)
    ones = torch.ones(8, 1, 1, dtype=torch.float64)
    _, last = scans.delta_rule(keys[:, None], keys[:, None, None], values, ones, None, ragged((8,)))
    assert relative(keys @ last[0, 0], values[:, 0, 0]) < 1e-12


@pytest.mark.parametrize("count", [1, 2, 5])
def test_steps_of_two_are_reflections(count):
    keys = rotation_free(count).view(1, count, 1, 4)
    state = torch.eye(4, dtype=torch.float64)[None, None]
    twos, none = torch.full((1, count, 1), 2.0, dtype=torch.float64), torch.zeros(1, count, 1, 4, dtype=torch.float64)
    _, last = scans.delta_rule(keys[:, 0], keys, none, twos, None, ragged((1,)), state=state)
    assert relative(last[0, 0] @ last[0, 0].mT, torch.eye(4)) < 1e-12
    assert float(torch.linalg.det(last[0, 0])) == pytest.approx((-1) ** count, abs=1e-12)


def test_steps_of_a_token_are_tokens_of_one_step():
    q, k, v, beta, _ = delta_inputs(20, steps=3)
    y, last = scans.delta_rule(q, k, v, beta, None, ragged((20,)))
    long = [value.flatten(0, 1)[:, None] for value in (k, v, beta)]
    want, same = scans.delta_rule(q.repeat_interleave(3, 0), *long, None, ragged((60,)))
    assert relative(y, want[2::3]) < 1e-12 and relative(last, same) < 1e-12
