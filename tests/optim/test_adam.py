import pytest
import torch

from vision3d.core import native
from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.optim.adam import SplatAdam
from vision3d.optim.reference import adam as reference

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
RATES = {"means": 1e-2, "opacity_logits": 5e-2}


def make_params(count=7, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return {
        "means": torch.randn(count, 3, generator=generator).to(dtype).requires_grad_(),
        "opacity_logits": torch.randn(count, generator=generator).to(dtype).requires_grad_(),
    }


def set_grads(params, step, scale=1.0):
    generator = torch.Generator().manual_seed(100 + step)
    for param in params.values():
        param.grad = scale * torch.randn(param.shape, generator=generator).to(param.dtype)


def run(optimizer, first, count):
    for step in range(first, first + count):
        set_grads(optimizer.params, step)
        optimizer.step()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_twenty_steps_equal_torch(dtype, atol, scale):
    ours, theirs = make_params(5000, dtype), make_params(5000, dtype)
    optimizer = SplatAdam(ours, RATES)
    groups = [{"params": [theirs[name]], "lr": rate} for name, rate in RATES.items()]
    want = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-15)
    for step in range(20):
        set_grads(ours, step, scale)
        set_grads(theirs, step, scale)
        optimizer.learning_rates["means"] = want.param_groups[0]["lr"] = 1e-2 * 0.9**step
        optimizer.step()
        want.step()
    for name in RATES:
        torch.testing.assert_close(ours[name].detach(), theirs[name].detach(), atol=atol, rtol=0)


def test_a_group_without_gradient_does_not_step():
    params = make_params()
    before = params["means"].detach().clone()
    optimizer = SplatAdam(params, RATES)
    params["opacity_logits"].grad = torch.ones(7)
    optimizer.step()
    assert torch.equal(params["means"], before)
    assert optimizer.steps == {"means": 0, "opacity_logits": 1}
    optimizer.zero_grad()
    assert params["opacity_logits"].grad is None


def test_only_visible_rows_step():
    params, full = make_params(), make_params()
    before = {name: param.detach().clone() for name, param in params.items()}
    visible = torch.tensor([True, False, True, True, False, False, True])
    selective, dense = SplatAdam(params, RATES), SplatAdam(full, RATES)
    for step in range(3):
        for optimizer, mask in ((selective, visible), (dense, None)):
            set_grads(optimizer.params, step)
            optimizer.step(mask)
    for name in RATES:
        assert torch.equal(params[name][~visible], before[name][~visible])
        torch.testing.assert_close(params[name][visible].detach(), full[name][visible].detach())
        assert (selective.exp_avg_sqs[name][~visible] == 0).all()


def test_rows_keep_their_moments():
    params, reference = make_params(), make_params()
    optimizer, want = SplatAdam(params, RATES), SplatAdam(reference, RATES)
    run(optimizer, 0, 3)
    run(want, 0, 3)
    order = torch.tensor([5, 0, 3])
    optimizer.keep(order)
    set_grads(reference, 9)
    for name in RATES:
        params[name].grad = reference[name].grad[order]
    optimizer.step()
    want.step()
    for name in RATES:
        assert params[name].is_leaf
        assert params[name].requires_grad
        torch.testing.assert_close(params[name].detach(), reference[name].detach()[order])
    optimizer.keep(torch.tensor([False, True, True]))
    torch.testing.assert_close(params["means"].detach(), reference["means"].detach()[order[1:]])


def test_new_rows_have_no_moments_and_old_ones_keep_theirs():
    params = make_params()
    optimizer = SplatAdam(params, RATES)
    run(optimizer, 0, 3)
    moments = optimizer.exp_avgs["means"].clone()
    optimizer.append({name: 2 * param.detach()[:2] for name, param in params.items()})
    assert optimizer.num_rows == 9
    assert torch.equal(params["means"][7:], 2 * params["means"][:2])
    assert torch.equal(optimizer.exp_avgs["means"][:7], moments)
    assert (optimizer.exp_avgs["means"][7:] == 0).all()
    assert (optimizer.exp_avg_sqs["opacity_logits"][7:] == 0).all()
    run(optimizer, 3, 1)


def test_reset_clears_rows_and_groups():
    optimizer = SplatAdam(make_params(), RATES)
    run(optimizer, 0, 3)
    optimizer.reset(torch.tensor([2, 4]))
    assert (optimizer.exp_avgs["means"][[2, 4]] == 0).all()
    assert (optimizer.exp_avgs["means"][[0, 1, 3, 5, 6]] != 0).all()
    optimizer.reset(groups=("opacity_logits",))
    assert (optimizer.exp_avg_sqs["opacity_logits"] == 0).all()
    assert (optimizer.exp_avg_sqs["means"][0] != 0).all()


def test_resume_is_exact():
    whole, first = SplatAdam(make_params(), RATES), SplatAdam(make_params(), RATES)
    run(whole, 0, 6)
    run(first, 0, 3)
    second = SplatAdam({name: p.detach().clone().requires_grad_() for name, p in first.params.items()}, RATES)
    second.load_state_dict(first.state_dict())
    run(second, 3, 3)
    for name in RATES:
        assert torch.equal(whole.params[name], second.params[name])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 4, 6])
def test_the_group_that_is_not_finite_is_named(bad, place):
    params = make_params()
    optimizer = SplatAdam(params, RATES)
    assert optimizer.nonfinite_group() is None
    set_grads(params, 0)
    assert optimizer.nonfinite_group() is None
    params["opacity_logits"].grad[place] = bad
    assert optimizer.nonfinite_group() == "opacity_logits"
    params["means"].grad[place, 1] = bad
    assert optimizer.nonfinite_group() == "means"


def test_wrong_input_is_rejected():
    with pytest.raises(ConfigError, match="learning_rates: got \\['means'\\], want one for each of"):
        SplatAdam(make_params(), {"means": 1.0})
    with pytest.raises(ConfigError, match="betas: got"):
        SplatAdam(make_params(), RATES, betas=(0.9, 1.0))
    with pytest.raises(ShapeError, match=r"params: got row counts .*'means': 7, 'opacity_logits': 3"):
        SplatAdam({"means": torch.zeros(7, 3), "opacity_logits": torch.zeros(3)}, RATES)
    optimizer = SplatAdam(make_params(), RATES)
    with pytest.raises(ShapeError, match=r"visible: got torch.bool of shape \(6,\), want bool of \(7,\)"):
        optimizer.step(torch.ones(6, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"rows\['opacity_logits'\]: got shape \(1,\), want shape \(2,\)"):
        optimizer.append({"means": torch.zeros(2, 3), "opacity_logits": torch.zeros(1)})
    with pytest.raises(ShapeError, match=r"rows: got shape \(3,\), want shape \(7,\)"):
        optimizer.keep(torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match=r"groups: \['colour'\] unknown; valid: \['means', 'opacity_logits'\]"):
        optimizer.reset(groups=("colour",))
    with pytest.raises(InputError, match=r"unexpected or missing entries .*means\.step"):
        optimizer.load_state_dict({})
    state = SplatAdam(make_params(3), RATES).state_dict()
    with pytest.raises(ShapeError, match=r"means.exp_avg: got shape \(3, 3\), want shape \(7, 3\)"):
        optimizer.load_state_dict(state)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_native_step_equals_reference(dtype, masked):
    tensors = [torch.randn(300, 5, dtype=dtype) for _ in range(3)]
    state = [tensors[0], tensors[1], tensors[2], torch.rand(300, 5, dtype=dtype)]
    visible = torch.rand(300) < 0.5 if masked else None
    got, want = ([t.clone() for t in state] for _ in range(2))
    options = visible, 1e-2, 0.9, 0.999, 1e-15, 3
    torch.ops.vision3d.adam_step(*got, *options)
    reference.adam_step(*want, *options)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)
    assert torch.equal(got[1], state[1])


@needs_native
def test_registered_op():
    state = [torch.randn(20, 3), torch.randn(20, 3), torch.randn(20, 3), torch.rand(20, 3)]
    for visible in (None, torch.rand(20) < 0.5):
        arguments = (*(t.clone() for t in state), visible, 1e-2, 0.9, 0.999, 1e-15, 3)
        torch.library.opcheck(torch.ops.vision3d.adam_step.default, arguments)


@needs_native
def test_bitwise_equal_for_any_number_of_threads():
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            optimizer = SplatAdam(make_params(40000), RATES)
            run(optimizer, 0, 3)
            results.append(optimizer)
    finally:
        torch.set_num_threads(before)
    for name in RATES:
        assert torch.equal(results[0].params[name], results[1].params[name])
        assert torch.equal(results[0].exp_avg_sqs[name], results[1].exp_avg_sqs[name])


def test_sparse_gradients_step_like_dense_ones():
    dense, sparse = SplatAdam(make_params(), RATES), SplatAdam(make_params(), RATES)
    for optimizer in (dense, sparse):
        set_grads(optimizer.params, 0)
        for param in optimizer.params.values():
            param.grad[2:] = 0
    for param in sparse.params.values():
        param.grad = param.grad.to_sparse()
    assert sparse.nonfinite_group() is None
    dense.step()
    sparse.step()
    for name in RATES:
        assert torch.equal(dense.params[name], sparse.params[name])


def test_without_the_native_module_torch_is_used(monkeypatch):
    ours, theirs = SplatAdam(make_params(), RATES), SplatAdam(make_params(), RATES)
    run(ours, 0, 3)
    monkeypatch.setattr(native, "module", lambda: None)
    run(theirs, 0, 3)
    assert theirs.nonfinite_group() is None
    for name in RATES:
        torch.testing.assert_close(ours.params[name], theirs.params[name])
