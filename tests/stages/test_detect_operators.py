"""The operators of `detect`: one interface, padded and ragged groups, both directions, sequences in parts."""

import pytest
import torch

from tests.support.scans import LENGTHS, ragged, relative
from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.stages.detect.operators import OPERATORS, make_operator
from vision3d.stages.detect.operators.groups import Groups

C = 16
NAMES = pytest.mark.parametrize("name", OPERATORS)
BOTH = pytest.mark.parametrize("bidirectional", [True, False], ids=["bidirectional", "causal"])


def operator(name, **options):
    """An operator in float64 whose parameters are all random, so that none hides another."""
    torch.manual_seed(0)
    made = make_operator(name, C, **options).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return made


@NAMES
@BOTH
def test_ragged_groups_equal_each_group_alone(name, bidirectional):
    made, groups = operator(name, bidirectional=bidirectional), ragged()
    x = torch.randn(groups.rows, C, dtype=torch.float64)
    got = made.forward_ragged(x, groups.starts)
    want = torch.cat([made(part[None])[0] for part in x.split(list(LENGTHS))])
    assert relative(got, want) < 1e-11


@NAMES
@BOTH
def test_equal_groups(name, bidirectional):
    made = operator(name, bidirectional=bidirectional)
    x = torch.randn(3, 10, C, dtype=torch.float64)
    want = made.forward_ragged(x.flatten(0, 1), Groups.equal(3, 10).starts)
    assert relative(made(x).flatten(0, 1), want) < 1e-11
    assert made(x[:0]).shape == (0, 10, C) and made(x[:, :0]).shape == (3, 0, C)


@NAMES
def test_directions(name):
    x = torch.randn(1, 40, C, dtype=torch.float64)
    changed = x.clone()
    changed[0, 20] += 1
    for bidirectional in (True, False):
        made = operator(name, bidirectional=bidirectional)
        difference = (made(changed) - made(x)).abs().amax(-1)[0]
        assert bool((difference[20:30] > 0).all())
        assert bool((difference[:20] > 0).any()) == bidirectional


@NAMES
@pytest.mark.parametrize("length", [1, 3, 20])
def test_a_causal_operator_in_parts(name, length):
    made = operator(name, bidirectional=False)
    x = torch.randn(2, 60, C, dtype=torch.float64)
    outputs, states = [], None
    for part in x.split(length, 1):
        y, states = made.forward_part(part.flatten(0, 1), Groups.equal(2, part.shape[1]), states)
        outputs.append(y.view(2, -1, C))
    assert relative(torch.cat(outputs, 1), made(x)) < 1e-11
    with pytest.raises(InputError, match="bidirectional: got True, want False"):
        operator(name).forward_part(x.flatten(0, 1), Groups.equal(2, 60), None)


@NAMES
@BOTH
def test_gradients(name, bidirectional):
    made, groups = operator(name, bidirectional=bidirectional), ragged((3, 0, 1, 20))
    x = torch.randn(groups.rows, C, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(x)
    (made.forward_ragged(x, groups.starts) * weights).sum().backward()
    for value in (x, *made.parameters()):
        assert value.grad is not None and bool(value.grad.any())
        step = torch.randn_like(value)

        def at(by, value=value, step=step):
            with torch.no_grad():
                value += by * step
                found = (made.forward_ragged(x, groups.starts) * weights).sum()
                value -= by * step
            return found

        want = (at(1e-5) - at(-1e-5)) / 2e-5
        assert float((value.grad * step).sum()) == pytest.approx(float(want), rel=1e-4, abs=1e-6)


@NAMES
def test_float32_equals_float64(name):
    made = operator(name)
    x = torch.randn(2, 200, C, dtype=torch.float64)
    want = made(x)
    assert relative(made.float()(x.float()), want) < 2e-5


@NAMES
def test_not_a_number_stays_one(name):
    x = torch.randn(1, 8, C, dtype=torch.float64)
    x[0, 3, 0] = torch.nan
    assert bool(operator(name)(x)[0, 3].isnan().any())


@NAMES
def test_dropped_groups_keep_their_input(name):
    made = operator(name, drop_path=0.5).train()
    x = torch.randn(40, 6, C, dtype=torch.float64)
    same = (made(x) == x).flatten(1).all(-1)
    assert 0 < int(same.sum()) < 40


def test_unknown_operator():
    with pytest.raises(ConfigError, match=r"operator: got 'mambo', did you mean mamba\? want mamba, "):
        make_operator("mambo", 8)


@NAMES
def test_wrong_shapes(name):
    made = operator(name)
    with pytest.raises(ShapeError, match=r"x: got shape \(2, 16\), want \(groups, size, 16\)"):
        made(torch.randn(2, C))
    with pytest.raises(ShapeError, match=r"x: got shape \(2, 3\), want \(T, 16\)"):
        made.forward_ragged(torch.randn(2, 3), torch.tensor([0, 2]))
    with pytest.raises(ShapeError, match="want 3 rows, the last value of starts"):
        made.forward_ragged(torch.randn(2, C, dtype=torch.float64), torch.tensor([0, 3]))
    with pytest.raises(InputError, match="drop_path: got 1"):
        make_operator(name, C, drop_path=1)
