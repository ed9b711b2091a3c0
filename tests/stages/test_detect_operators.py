"""The operators of `detect`: one interface, padded and ragged groups, both directions, sequences in parts."""

import itertools

import pytest
import torch

from tests.support.scans import LENGTHS, attention_inputs, ragged, relative
from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.stages.detect.operators import OPERATORS, make_operator, read_options, scans
from vision3d.stages.detect.operators.convolution import shifted_sum
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.mlstm import mlstm
from vision3d.stages.detect.operators.reference import recurrent

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
    changed[0, 20] += torch.randn(C, dtype=torch.float64)
    for bidirectional in (True, False):
        made = operator(name, bidirectional=bidirectional)
        difference = (made(changed) - made(x)).abs().amax(-1)[0]
        assert bool((difference[20:30] > 0).all())
        assert bool((difference[:20] > 0).any()) == bidirectional


@NAMES
def test_an_operator_begins_near_the_identity(name):
    """Neighbors in a group are alike; what sums them up without a norm must begin small, or nothing behind it learns."""
    torch.manual_seed(0)
    made = make_operator(name, 32)
    x = torch.randn(4, 1, 32) + 0.7 * torch.randn(4, 32, 32).repeat_interleave(16, 1) + 0.5 * torch.randn(4, 512, 32)
    x.requires_grad_()
    y = made(x)
    seen = torch.randn_like(y)
    (grad,) = torch.autograd.grad(y, x, seen)
    assert (y - x).norm() < x.norm()
    assert grad.norm() < 2 * seen.norm()


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
    with pytest.raises(ConfigError, match=r"operator: got 'mambo'; did you mean mamba\?"):
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


@pytest.mark.parametrize("name", ["retnet", "gla", "deltanet", "gated_deltanet", "deltaproduct", "ttt"])
def test_operators_that_share_everything_commute_with_a_flip(name):
    made, x = operator(name), torch.randn(2, 37, C, dtype=torch.float64)
    assert relative(made(x.flip(1)), made(x).flip(1)) < 1e-11


def test_mamba_commutes_with_a_flip_and_exchanged_directions():
    made, x = operator("mamba"), torch.randn(2, 37, C, dtype=torch.float64)
    want = made(x).flip(1)
    made.directions = torch.nn.ModuleList(reversed(made.directions))
    assert relative(made(x.flip(1)), want) < 1e-11


def test_parameters_of_mamba_are_those_of_lion():
    assert sum(value.numel() for value in make_operator("mamba", 64).parameters()) == 40832


@NAMES
def test_strong_decays_and_large_inputs_do_not_overflow(name):
    torch.manual_seed(0)
    made = make_operator(name, C)
    x = (30 * torch.randn(1, 300, C)).requires_grad_()
    y = made(x)
    y.square().sum().backward()
    assert bool(y.isfinite().all()) and bool(x.grad.isfinite().all())
    assert all(bool(value.grad.isfinite().all()) for value in made.parameters())


@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["usual gates", "gates that overflow without a stabilizer"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_mlstm_equals_its_recurrence(scale, reverse):
    groups = ragged()
    q, k, v, _ = attention_inputs(groups.rows)
    i, f = (scale * torch.randn(2, groups.rows, 2, dtype=torch.float64)).unbind()
    f = torch.nn.functional.logsigmoid(f)
    got, after = mlstm(q, k, v, i, f, groups, reverse=reverse)
    for index, (begin, end) in enumerate(zip(groups.starts[:-1], groups.starts[1:])):
        if begin == end:
            continue
        part = [(value[begin:end].flip(0) if reverse else value[begin:end])[None] for value in (q, k, v, i, f)]
        first = torch.zeros(1, 2, 5, 7).double(), torch.zeros(1, 2, 5).double(), torch.full((1, 2), -torch.inf).double()
        want, (memory, n, m) = recurrent.mlstm(*part, *first)
        assert relative(got[begin:end], want[0].flip(0) if reverse else want[0]) < 1e-11
        assert relative(after["memory"][index], torch.cat([memory, n[..., None]], -1)[0]) < 1e-11
        assert relative(after["max"][index], m[0]) < 1e-11


def test_rwkv_counts_every_token_once():
    """The bidirectional sum as LION writes it: decays of the tokens between two, a bonus for the token itself."""
    made, rows = operator("rwkv6", heads=2), 9
    seen = {}
    made.head_norm = torch.nn.Identity()
    original = scans.decayed_attention

    def recorded(q, k, v, log_decay, groups, **options):
        seen.update(q=q, k=k, v=v, w=log_decay.exp())
        y, last = original(q, k, v, log_decay, groups, **options)
        seen[options["reverse"]] = y
        return y, last

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vision3d.stages.detect.operators.rwkv6.decayed_attention", recorded)
        made(torch.randn(1, rows, C, dtype=torch.float64))
    q, k, v, w = (seen[name].detach() for name in "qkvw")
    for t in range(rows):
        total = torch.zeros(2, 8, 8, dtype=torch.float64)
        for i in range(rows):
            between = w[min(i, t) + 1 : max(i, t)].prod(0)
            total += 0 if i == t else (between * k[i])[..., None] * v[i][:, None]
        assert relative(seen[False][t] + seen[True][t], (q[t][..., None] * total).sum(-2)) < 1e-11


@pytest.mark.parametrize("head", [0, 1])
def test_impulse_response_of_retnet(head):
    made = operator("retnet", bidirectional=False, heads=2, expand_k=1 / 8, expand_v=1 / 8)
    captured = {}

    def recorded(q, k, v, log_decay, groups, **options):
        ones = torch.ones_like(q)
        impulse = torch.zeros_like(v)
        impulse[0, head] = 1
        captured["y"], _ = scans.decayed_attention(ones, ones, impulse, log_decay, groups)
        return scans.decayed_attention(q, k, v, log_decay, groups, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vision3d.stages.detect.operators.retnet.decayed_attention", recorded)
        made(torch.randn(1, 50, C, dtype=torch.float64))
    gamma = 1 - 2.0 ** (-5 - head)
    assert relative(captured["y"][:, head, 0], gamma ** torch.arange(50, dtype=torch.float64)) < 1e-12


def test_one_delta_step_is_deltanet():
    one, other = operator("deltaproduct", steps=1, max_beta=1.0), operator("deltanet")
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 20, C, dtype=torch.float64)
    assert torch.equal(one(x), other(x))


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("gla", {"heads": 3}, "heads: got 3, want a divisor of the 8 channels of the keys"),
        ("deltaproduct", {"steps": 0}, "steps: got 0, want at least 1"),
        ("deltaproduct", {"max_beta": 3.0}, "max_beta: got 3.0, want above 0 and at most 2"),
        ("ttt", {"heads": 16}, "heads: got 16 for 16 channels, want an even number"),
        ("mamba", {"state": 0}, "state: got 0, want at least 1"),
    ],
)
def test_wrong_options(name, options, text):
    with pytest.raises(InputError, match=text):
        make_operator(name, C, **options)


def test_channels_of_mlstm():
    with pytest.raises(InputError, match="expand: got 18 inner channels, want a multiple of 4"):
        make_operator("mlstm", 9, heads=2)


@pytest.mark.parametrize("reverse", [False, True])
def test_convolution_of_ragged_groups_is_that_of_each_group(reverse):
    lengths = (5, 0, 1, 2, 9, 3)
    groups = Groups(torch.tensor([0, *itertools.accumulate(lengths)]))
    x = torch.randn(groups.rows, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, dtype=torch.float64)
    found = shifted_sum(x, weight, bias, groups, reverse)
    for part, got in zip(x.split(lengths), found.split(lengths)):
        whole = part.flip(0) if reverse else part
        padded = torch.nn.functional.pad(whole.T[None], (3, 0))
        want = torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=3)[0].T if len(part) else part
        assert torch.allclose(got, want.flip(0) if reverse else want, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x, w: shifted_sum(x, w, bias, groups, reverse), (x, weight))
    for dtype in (torch.float64, torch.float32):  # the native one
        with torch.no_grad():
            broken = x.to(dtype).clone()
            broken[8:17] = torch.nan  # the fifth group
            found = shifted_sum(broken, weight.to(dtype), bias.to(dtype), groups, reverse)
        assert bool(found[:8].isfinite().all()) and bool(found[17:].isfinite().all()) and not bool(found[8:17].isfinite().any())


def test_options_from_texts():
    assert read_options("deltaproduct", ["steps=3", "gated=False", "mlp_ratio=1.5"]) == {
        "steps": 3,
        "gated": False,
        "mlp_ratio": 1.5,
    }
    assert read_options("deltaproduct", ["gated=true"]) == {"gated": True}
    for text, words in (
        ("gated=1", "want gated=bool"),
        ("steps=x", "want steps=int"),
        ("channels=3", "has steps"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_options("deltaproduct", [text])
