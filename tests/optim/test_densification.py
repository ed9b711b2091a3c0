import math

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import ConfigError, InputError
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.optim.adam import SplatAdam
from vision3d.optim.densification import ADC, MCMC
from vision3d.optim.densification.mcmc import relocated
from vision3d.optim.densification.strategy import draw_rows

GROUPS = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")
STEP, TOTAL = 100, 1000


def make_scene(count=40, seed=0):
    """Parameters with an optimizer whose moments identify their row: exp_avg = 1 + row number."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"means": (3,), "quats": (4,), "log_scales": (3,), "opacity_logits": (), "sh0": (1, 3), "shN": (8, 3)}
    params = {name: torch.randn(count, *shape, generator=generator) for name, shape in shapes.items()}
    params["log_scales"] = params["log_scales"] * 0.3 - 4
    params = {name: p.requires_grad_() for name, p in params.items()}
    optimizer = SplatAdam(params, dict.fromkeys(GROUPS, 1e-3))
    for name in GROUPS:
        rows = torch.arange(1.0, count + 1).view(-1, *[1] * (params[name].ndim - 1))
        optimizer.exp_avgs[name] += rows
        optimizer.exp_avg_sqs[name] += rows
    return params, optimizer


def moment_rows(optimizer, name="means"):
    """Row numbers encoded in the moments, -1 where they are zero."""
    return optimizer.exp_avgs[name].reshape(optimizer.num_rows, -1)[:, 0].long() - 1


def make_info(pulls, *, packed=False, absgrad=False, width=200, height=100):
    """Output of a rasterizer: one camera whose means2d have gradients of these norms in half images."""
    grad = torch.stack([pulls / (width / 2), torch.zeros_like(pulls)], -1)
    is_seen = pulls >= 0
    radii = torch.where(is_seen, 3, 0).unsqueeze(-1).expand(-1, 2)
    info = {"width": width, "height": height, "n_cameras": 1}
    if packed:
        ids = is_seen.nonzero().squeeze(1)
        info |= {"means2d": torch.zeros(len(ids), 2), "gaussian_ids": ids, "radii": radii[ids]}
        grad = grad[ids]
    else:
        info |= {"means2d": torch.zeros(1, len(pulls), 2), "radii": radii[None]}
        grad = grad[None]
    if absgrad:
        info["means2d"].absgrad = grad
    else:
        info["means2d"].grad = grad
    return info


# relocation


@given(st.floats(1e-4, 0.9999), st.integers(1, 51))
def test_relocated_copies_have_the_opacity_of_one(opacity, copies):
    o = torch.tensor([opacity], dtype=torch.float64)
    shared, scales = relocated(o, torch.ones(1, 3, dtype=torch.float64), torch.tensor([copies]))
    through_all = (1 - shared.item()) ** copies
    assert through_all == pytest.approx(1 - opacity, rel=1e-9, abs=1e-12)
    assert 0 < scales.min().item() <= 1 + 1e-9


@given(st.floats(0.01, 0.99), st.integers(1, 12))
def test_relocated_scales_follow_the_double_sum_of_the_paper(opacity, copies):
    o = torch.tensor([opacity], dtype=torch.float64)
    shared, scales = relocated(o, torch.full((1, 3), 0.3, dtype=torch.float64), torch.tensor([copies]))
    p = shared.item()
    terms = (math.comb(i - 1, k) * (-1) ** k * p ** (k + 1) / math.sqrt(k + 1) for i in range(1, copies + 1) for k in range(i))
    assert scales[0, 1].item() == pytest.approx(0.3 * opacity / sum(terms), rel=1e-9)


@given(st.floats(0.05, 0.95), st.integers(2, 51))
def test_relocation_keeps_the_mass_of_a_line(opacity, copies):
    """The scale is chosen so that n copies blended over each other have the same integral along a line as the original."""
    o = torch.tensor([opacity], dtype=torch.float64)
    shared, scales = relocated(o, torch.ones(1, 3, dtype=torch.float64), torch.tensor([copies]))
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    one = torch.trapezoid(o * torch.exp(-0.5 * x**2), x)
    many = torch.trapezoid(1 - (1 - shared * torch.exp(-0.5 * (x / scales[0, 0]) ** 2)) ** copies, x)
    assert many.item() == pytest.approx(one.item(), rel=1e-6)


def test_more_copies_than_the_table_use_its_last_entry():
    o, s = torch.tensor([0.5, 0.5]), torch.ones(2, 3)
    opacities, scales = relocated(o, s, torch.tensor([51, 90]))
    assert opacities[0] == opacities[1]
    assert scales.isfinite().all()


def test_rows_are_drawn_in_proportion():
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0])
    rows = draw_rows(weights, 20000, torch.Generator().manual_seed(3))
    counts = rows.bincount(minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert counts[3].item() / 20000 == pytest.approx(0.75, abs=0.015)


# MCMC


def mcmc_step(params, optimizer, strategy=None, step=STEP, lr=0.0, **options):
    strategy = strategy or MCMC(10**6, TOTAL, generator=torch.Generator().manual_seed(5), **options)
    return strategy.after_step(step, params, optimizer, {}, lr)


def test_mcmc_moves_dead_rows_onto_living_ones():
    params, optimizer = make_scene()
    dead = torch.tensor([3, 17, 30])
    with torch.no_grad():
        params["opacity_logits"][dead] = -9
    before = {name: p.detach().clone() for name, p in params.items()}
    counts = mcmc_step(params, optimizer, grow_factor=1.0)
    assert counts == {"relocated": 3, "added": 0}
    matches = (params["means"][dead][:, None] == before["means"][None]).all(-1)
    assert (matches.sum(1) == 1).all()
    parents = matches.int().argmax(1)
    assert not torch.isin(parents, dead).any()
    touched = torch.cat([dead, parents.unique()])
    untouched = torch.ones(40, dtype=torch.bool).index_fill(0, touched, False)
    for name in GROUPS:
        assert torch.equal(params[name][untouched], before[name][untouched])
        assert torch.equal(params[name][dead], params[name][parents])  # parent and copy are equal
        assert torch.equal(moment_rows(optimizer, name)[untouched], torch.arange(40)[untouched])
        assert (moment_rows(optimizer, name)[touched] == -1).all()
    for parent, hits in zip(*parents.unique(return_counts=True), strict=True):
        shared = torch.sigmoid(params["opacity_logits"][parent]).item()
        old = torch.sigmoid(before["opacity_logits"][parent]).item()
        through_all = (1 - shared) ** (hits.item() + 1)
        assert through_all == pytest.approx(1 - old, abs=1e-5)


def test_mcmc_grows_up_to_its_cap():
    params, optimizer = make_scene(40)
    strategy = MCMC(45, TOTAL, generator=torch.Generator().manual_seed(5))
    sizes = []
    for step in range(100, 800, 100):
        counts = mcmc_step(params, optimizer, strategy, step)
        sizes.append(len(params["means"]))
        assert counts["added"] == sizes[-1] - ([40, *sizes][len(sizes) - 1])
        assert optimizer.num_rows == len(optimizer.exp_avgs["shN"]) == sizes[-1]
    assert sizes[0] == 42
    assert sizes[-1] == 45
    assert max(sizes) <= 45
    assert (moment_rows(optimizer)[40:] == -1).all()
    kept = moment_rows(optimizer)[:40]
    assert ((kept == torch.arange(40)) | (kept == -1)).all()


def test_mcmc_noise_follows_the_covariance_and_skips_the_opaque():
    params, optimizer = make_scene(20000)
    with torch.no_grad():
        params["quats"][:] = torch.tensor([0.9, 0.1, -0.3, 0.3])
        params["log_scales"][:] = torch.tensor([0.0, -1.0, -2.0])
        params["opacity_logits"][:10000] = -20
        params["opacity_logits"][10000:] = 3
    before = params["means"].detach().clone()
    mcmc_step(params, optimizer, step=1, lr=1e-6, noise_scale=1e5)
    moved = (params["means"].detach() - before).double()
    assert moved[10000:].abs().max() == 0
    R = quat_to_rotmat(params["quats"][0].detach().double())
    sigma = R @ torch.diag(torch.tensor([1.0, -1, -3]).exp() * 0 + torch.tensor([0.0, -2, -4]).double().exp()) @ R.T
    strength = 0.1 / (1 + math.exp(-0.5))
    want = strength**2 * sigma @ sigma
    got = moved[:10000].T @ moved[:10000] / 10000
    torch.testing.assert_close(got, want, atol=0.05 * want.max().item(), rtol=0)


def test_mcmc_acts_only_between_its_fractions():
    strategy = MCMC(100, TOTAL, refine_every=10, refine_start=0.1, refine_stop=0.5)
    acted = [s for s in range(TOTAL) if strategy.schedule.acts(s, strategy.schedule.progress(s, None))]
    assert acted == list(range(110, 500, 10))
    assert MCMC(100).schedule.progress(123, 0.25) == 0.25
    params, optimizer = make_scene()
    with pytest.raises(InputError, match="progress: got None without total_steps"):
        MCMC(100).after_step(1, params, optimizer, {}, 0.0)


def test_mcmc_does_not_change_a_scene_of_dead_rows():
    params, optimizer = make_scene(5)
    with torch.no_grad():
        params["opacity_logits"][:] = -30
    assert mcmc_step(params, optimizer, grow_factor=1.0)["relocated"] == 0
    assert mcmc_step(params, optimizer)["added"] == 1
    assert all(p.isfinite().all() for p in params.values())


@pytest.mark.parametrize("kind", ["mcmc", "adc"])
def test_same_seed_same_scene_and_exact_resume(kind):
    def make():
        generator = torch.Generator().manual_seed(7)
        return MCMC(60, TOTAL, generator=generator) if kind == "mcmc" else ADC(1.0, TOTAL, generator=generator)

    def run(params, optimizer, strategy, steps):
        for step in steps:
            pulls = torch.rand(len(params["means"]), generator=torch.Generator().manual_seed(step)) * 4e-4
            strategy.after_step(step, params, optimizer, make_info(pulls), 1e-7)

    whole, again, first = (make_scene(), make()), (make_scene(), make()), (make_scene(), make())
    run(*whole[0], whole[1], range(95, 210))
    run(*again[0], again[1], range(95, 210))
    run(*first[0], first[1], range(95, 150))
    params = {name: p.detach().clone().requires_grad_() for name, p in first[0][0].items()}
    optimizer = SplatAdam(params, dict.fromkeys(GROUPS, 1e-3))
    optimizer.load_state_dict(first[0][1].state_dict())
    strategy = MCMC(60, TOTAL) if kind == "mcmc" else ADC(1.0, TOTAL)
    strategy.load_state_dict(first[1].state_dict())
    run(params, optimizer, strategy, range(150, 210))
    for name in GROUPS:
        assert torch.equal(whole[0][0][name], again[0][0][name])
        assert torch.equal(whole[0][0][name], params[name])
        assert torch.equal(whole[0][1].exp_avgs[name], optimizer.exp_avgs[name])


# ADC


def adc_step(params, optimizer, pulls, step=STEP, packed=False, **options):
    """One refinement with opacities high enough to avoid pruning unless the test changes them."""
    strategy = ADC(1.0, TOTAL, reset_every=1.0, generator=torch.Generator().manual_seed(5), **options)
    info = make_info(pulls, packed=packed, absgrad=options.get("absgrad", False))
    return strategy.after_step(step, params, optimizer, info, 0.0), strategy


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("absgrad", [False, True])
def test_adc_duplicates_the_small_and_splits_the_large(packed, absgrad):
    params, optimizer = make_scene()
    with torch.no_grad():
        params["log_scales"][:] = -6.0
        params["log_scales"][[4, 9], 1] = -2.0
    pulls = torch.zeros(40)
    pulls[[2, 4, 9]] = 1e-3
    pulls[7] = -1  # not visible
    before = {name: p.detach().clone() for name, p in params.items()}
    counts, _ = adc_step(params, optimizer, pulls, packed=packed, absgrad=absgrad)
    assert counts == {"duplicated": 1, "split": 2, "pruned": 0}
    assert len(params["means"]) == 43
    for name in GROUPS:
        assert torch.equal(params[name][40], before[name][2])
        assert torch.equal(params[name][2], before[name][2])
        if name not in ("means", "log_scales"):
            assert torch.equal(params[name][[41, 42]], before[name][[4, 9]])
        rows = moment_rows(optimizer, name)
        assert (rows[[4, 9, 40, 41, 42]] == -1).all()
        others = [i for i in range(40) if i not in (4, 9)]
        assert torch.equal(rows[others], torch.tensor(others))
    shrunk = before["log_scales"][[4, 9]] - math.log(1.6)
    torch.testing.assert_close(params["log_scales"][[41, 42]].detach(), shrunk)
    torch.testing.assert_close(params["log_scales"][[4, 9]].detach(), shrunk)
    assert not torch.equal(params["means"][4], params["means"][41])
    assert params["means"].is_leaf
    assert params["means"].requires_grad


def test_children_of_a_split_are_drawn_from_their_parent():
    count = 4000
    params, optimizer = make_scene(count)
    with torch.no_grad():
        params["means"][:] = torch.tensor([1.0, 2, 3])
        params["quats"][:] = torch.tensor([0.9, 0.1, -0.3, 0.3])
        params["log_scales"][:] = torch.tensor([-1.0, -2, -3])
    adc_step(params, optimizer, torch.ones(count), prune_scale3d=100.0)
    offsets = params["means"].detach().double() - torch.tensor([1.0, 2, 3])
    R = quat_to_rotmat(params["quats"][0].detach().double())
    sigma = R @ torch.diag(torch.tensor([-2.0, -4, -6]).double().exp()) @ R.T
    torch.testing.assert_close(offsets.T @ offsets / (2 * count), sigma, atol=0.05 * sigma.max().item(), rtol=0)


def test_adc_averages_over_the_views_in_which_a_gaussian_is_visible():
    params, optimizer = make_scene(3)
    strategy = ADC(1.0, TOTAL, grow_scale3d=10.0)
    for step, pulls in enumerate([[3e-4, 3e-4, -1.0], [-1.0, 0.0, 1e-4]], 98):
        strategy.after_step(step, params, optimizer, make_info(torch.tensor(pulls)), 0.0)
    torch.testing.assert_close(strategy.pulls, torch.tensor([3e-4, 3e-4, 1e-4]))
    assert strategy.views.tolist() == [1, 2, 1]
    counts = strategy.after_step(100, params, optimizer, make_info(torch.full((3,), -1.0)), 0.0)
    assert counts["duplicated"] == 1  # the first, mean 3e-4 against 1.5e-4
    assert torch.equal(params["means"][3], params["means"][0])


def test_adc_reads_gradients_in_half_images_times_cameras():
    params, optimizer = make_scene(2)
    strategy = ADC(1.0, TOTAL)
    means2d = torch.zeros(3, 2, 2, requires_grad=True)
    info = {"means2d": means2d * 1, "radii": torch.ones(3, 2), "width": 80, "height": 60, "n_cameras": 3}
    strategy.before_backward(info)
    (info["means2d"] * torch.tensor([3e-4, 4e-4])).sum().backward()
    strategy.after_step(1, params, optimizer, info, 0.0)
    want = 3 * 3 * math.hypot(3e-4 * 40, 4e-4 * 30)
    torch.testing.assert_close(strategy.pulls, torch.full((2,), want))


def test_adc_prunes_transparent_and_huge_gaussians():
    params, optimizer = make_scene(6)
    with torch.no_grad():
        params["opacity_logits"][:] = 2
        params["opacity_logits"][1] = -7
        params["log_scales"][4, 2] = math.log(0.2)
    counts, _ = adc_step(params, optimizer, torch.zeros(6))
    assert counts == {"duplicated": 0, "split": 0, "pruned": 1}
    assert moment_rows(optimizer).tolist() == [0, 2, 3, 4, 5]
    strategy = ADC(1.0, TOTAL, reset_every=1.0)
    strategy.resets = 1  # huge ones are pruned only after a reset
    counts = strategy.after_step(100, params, optimizer, make_info(torch.zeros(5)), 0.0)
    assert counts["pruned"] == 1
    assert moment_rows(optimizer).tolist() == [0, 2, 3, 5]


def test_adc_never_prunes_everything():
    params, optimizer = make_scene(4)
    with torch.no_grad():
        params["opacity_logits"][:] = -9
    counts, _ = adc_step(params, optimizer, torch.zeros(4))
    assert counts["pruned"] == 0
    assert len(params["means"]) == 4


def test_adc_respects_its_cap_and_prefers_the_largest_gradients():
    params, optimizer = make_scene(20)
    with torch.no_grad():
        params["opacity_logits"][:] = 2
        params["log_scales"][:] = -6
    pulls = torch.linspace(1e-3, 2e-3, 20)[torch.randperm(20)]
    before = params["means"].detach().clone()
    counts, _ = adc_step(params, optimizer, pulls, cap_max=25)
    assert counts["duplicated"] == 5
    strongest = pulls.argsort(descending=True)[:5].sort().values
    assert torch.equal(params["means"][20:], before[strongest])
    counts, _ = adc_step(params, optimizer, torch.ones(25), cap_max=20)
    assert counts["duplicated"] == 0


def test_adc_resets_opacities_each_tenth_and_not_near_the_end():
    params, optimizer = make_scene(4)
    strategy = ADC(1.0, 200, refine_every=1000)
    resets = []
    for step in range(200):
        with torch.no_grad():
            params["opacity_logits"][:] = 2
        counts = strategy.after_step(step, params, optimizer, make_info(torch.zeros(4)), 0.0)
        if "reset" in counts:
            resets.append(step)
            assert torch.sigmoid(params["opacity_logits"]).max().item() == pytest.approx(0.01, rel=1e-5)
            assert (optimizer.exp_avgs["opacity_logits"] == 0).all()
            assert (optimizer.exp_avgs["means"] != 0).all()
    assert resets == [20, 40, 60, 80]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MCMC(0), "cap_max: got 0, want at least 1"),
        (lambda: MCMC(10, 0), "total_steps: got 0"),
        (lambda: MCMC(10, refine_every=0), "refine_every: got 0"),
        (lambda: MCMC(10, refine_start=0.5, refine_stop=0.2), "refine_start: got 0.5 and stop 0.2"),
        (lambda: MCMC(10, grow_factor=0.9), "grow_factor: got 0.9"),
        (lambda: MCMC(10, min_opacity=0.0), "min_opacity: got 0.0"),
        (lambda: ADC(0.0), "scene_scale: got 0.0, want meters > 0"),
        (lambda: ADC(1.0, cap_max=0), "cap_max: got 0"),
        (lambda: ADC(1.0, reset_every=0.0), "reset_every: got 0.0"),
        (lambda: ADC(1.0, prune_opacity=0.6), "prune_opacity: got 0.6"),
    ],
)
def test_wrong_options_are_rejected(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_wrong_input_is_rejected():
    params, optimizer = make_scene()
    with pytest.raises(InputError, match="params: want the dict of the optimizer"):
        MCMC(100, 10).after_step(0, dict(params), optimizer, {}, 0.0)
    info = {"means2d": torch.zeros(1, 40, 2), "radii": torch.ones(1, 40), "width": 1, "height": 1, "n_cameras": 1}
    with pytest.raises(InputError, match=r"info\['means2d'\]: has no grad \(call before_backward first\)"):
        ADC(1.0, 10).after_step(0, params, optimizer, info, 0.0)
    with pytest.raises(InputError, match=r"has no absgrad \(rasterize with absgrad=True\)"):
        ADC(1.0, 10, absgrad=True).after_step(0, params, optimizer, info, 0.0)
    bare = {"means": torch.zeros(2, 3)}
    with pytest.raises(InputError, match=r"params: got \['means'\], want also \['log_scales', 'opacity_logits', 'quats'\]"):
        MCMC(100, 10).after_step(0, bare, SplatAdam(bare, {"means": 1.0}), {}, 0.0)


def test_adc_refines_equally_in_every_process(monkeypatch):
    """With images split over processes, sums over all are used; here, the second Gaussian is visible in a second process."""
    params, optimizer = make_scene(2)
    others = iter([torch.tensor([0.0, 1e-3]), torch.tensor([0.0, 1.0])])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: sums.add_(next(others)))
    counts, _ = adc_step(params, optimizer, torch.tensor([1e-4, -1.0]), grow_scale3d=10.0)
    assert counts["duplicated"] == 1
    assert torch.equal(params["means"][2], params["means"][1])
