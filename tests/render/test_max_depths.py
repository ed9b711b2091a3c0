"""`max_depths`: each pixel shows only the Gaussians in front of a depth."""

import pytest
import torch
from torch import Tensor

from tests.support.band import assert_close_outside_band, assert_same_gradients
from tests.support.gaussians import cameras, random_gaussians
from vision3d import rasterize, rasterize_2dgs
from vision3d.core import native
from vision3d.core.errors import BackendError, ShapeError

W, H = 53, 37
FUNCTIONS = [rasterize, rasterize_2dgs]
both = pytest.mark.parametrize("function", FUNCTIONS)
needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


def scene(count: int = 150, dtype: torch.dtype = torch.float32, images: int = 2) -> dict[str, Tensor]:
    viewmats, Ks = cameras(images, W, H, dtype=dtype)
    return {**random_gaussians(count, size=0.12, dtype=dtype), "viewmats": viewmats, "Ks": Ks}


def uneven(images: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    """Depth limits around the center of the scene, different at each pixel; some show nothing, some everything."""
    limits = 3.9 + torch.randn(images, H, W, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    limits[:, ::7] = torch.inf
    limits[:, :, ::9] = 0
    return limits.to(dtype)


def draw(function, g: dict[str, Tensor], **options) -> list[Tensor]:
    """Images returned by the function."""
    outputs = function(**g, width=W, height=H, render_mode="RGB+D", **options)
    return [value for value in outputs if torch.is_tensor(value)]


@both
def test_one_gaussian_before_a_plane_and_one_behind(function, backend):
    """The image is C = a1 c1 with transmittance 1 - a1, as if the second did not exist."""
    colors = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.3, 0.8]])
    g = {
        "means": torch.tensor([[0.0, 0.0, 2.0], [0.1, 0.0, 4.0]]), "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        "scales": torch.full((2, 3), 0.6), "opacities": torch.tensor([0.6, 0.9]), "colors": colors,
        "viewmats": torch.eye(4)[None], "Ks": torch.tensor([[[30.0, 0, 26.5], [0, 30.0, 18.5], [0, 0, 1]]]),
    }  # fmt: skip
    image, alpha, *_ = draw(function, g, max_depths=torch.full((1, H, W), 3.0), backend=backend)
    assert alpha[0, 18, 26].item() == pytest.approx(0.6, abs=1e-6)
    torch.testing.assert_close(image[0, ..., :3], alpha[0] * colors[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(image[0, ..., 3:], alpha[0] * 2, atol=1e-6, rtol=1e-6)
    swapped = draw(function, g, max_depths=torch.full((1, H, W), 2.0), backend=backend)
    assert not swapped[1].any(), "a depth that equals the limit is not below it"


@both
def test_no_limit_is_the_limit_inf_to_the_last_bit(function, backend):
    g = {name: value.requires_grad_(name != "Ks") for name, value in scene().items()}
    results = []
    for limits in (None, torch.full((2, H, W), torch.inf)):
        images = draw(function, g, max_depths=limits, backend=backend)
        grads = torch.autograd.grad(sum(image.square().sum() for image in images), [v for n, v in g.items() if n != "Ks"])
        results.append([*images, *grads])
    assert all(torch.equal(a, b) for a, b in zip(*results))


@both
def test_a_limit_of_zero_or_nan_shows_only_the_background(function, backend):
    background = torch.rand(2, 3)
    for limit in (0.0, -1.0, torch.nan):
        limits = torch.full((2, H, W), limit)
        image, alpha, *_ = draw(function, scene(), max_depths=limits, backgrounds=background, backend=backend)
        assert not alpha.any()
        assert torch.equal(image[..., :3], background[:, None, None].expand(-1, H, W, -1))


@both
def test_a_limit_cuts_the_scene_in_two(function, backend):
    """With a limit, the image is that of the closer Gaussians only, unless a pixel stops early."""
    g = scene()
    g["opacities"] = g["opacities"] * 0.2
    depths = (g["means"] @ g["viewmats"][0, :3, :3].T + g["viewmats"][0, :3, 3])[:, 2]
    one = {**g, "viewmats": g["viewmats"][:1], "Ks": g["Ks"][:1]}
    middle = float(depths.median()) + 1e-3
    nearer = {name: value[depths < middle] if len(value) == len(depths) else value for name, value in one.items()}
    limited = draw(function, one, max_depths=torch.full((1, H, W), middle), backend=backend)
    for got, want in zip(limited, draw(function, nearer, backend=backend)):
        torch.testing.assert_close(got, want, atol=2e-6, rtol=1e-6)


@needs_native
@both
def test_native_equals_the_reference_in_float64(function):
    results = []
    for backend in ("native", "reference"):
        g = {name: value.requires_grad_() for name, value in scene(dtype=torch.float64).items() if name != "Ks"}
        Ks = scene(dtype=torch.float64)["Ks"]
        images = draw(function, {**g, "Ks": Ks}, max_depths=uneven(dtype=torch.float64), backend=backend)
        weights = torch.Generator().manual_seed(0)
        loss = sum((i * torch.randn(i.shape, generator=weights, dtype=torch.float64)).sum() for i in images)
        results.append((images, dict(zip(g, torch.autograd.grad(loss, list(g.values()))))))
    (images, grads), (wanted, exact) = results
    assert 0.2 < float((wanted[1] > 0.05).double().mean()) < 0.9
    for got, want in zip(images, wanted):
        torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-9)
    assert_same_gradients(grads, exact)


@needs_native
@pytest.mark.parametrize(("function", "channels"), [*((f, c) for f in FUNCTIONS for c in (1, 3, 4, 6)), (rasterize, 40)])
@pytest.mark.parametrize("name", native.require().available_isas() if native.module() is not None else [])
def test_every_instruction_set_and_number_of_channels(function, channels, name):
    g, limits = scene(), uneven()
    g["colors"] = torch.rand(150, channels, generator=torch.Generator().manual_seed(2))
    exact = {n: v.double() for n, v in g.items()}
    best = native.require().isa()
    try:
        native.require().set_isa(name)
        image, alpha, *_ = function(**g, width=W, height=H, max_depths=limits, backend="native")
    finally:
        native.require().set_isa(best)
    want, want_alpha, *_ = function(**exact, width=W, height=H, max_depths=limits.double(), backend="reference")
    # If a depth is within rounding of a limit, a pixel may differ; with these values, few do.
    assert_close_outside_band(image, want, atol=5e-5, band=2e-3, band_atol=1)
    assert_close_outside_band(alpha, want_alpha, atol=5e-5, band=2e-3, band_atol=1)


@needs_native
@both
def test_bitwise_equal_for_any_number_of_threads(function):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            g = {name: value.requires_grad_() for name, value in scene().items() if name != "Ks"}
            images = draw(function, {**g, "Ks": scene()["Ks"]}, max_depths=uneven(), backend="native")
            results.append([*images, *torch.autograd.grad(sum(i.square().sum() for i in images), list(g.values()))])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results))


@both
def test_gradients_before_the_limit_ignore_gaussians_behind_it(function, backend):
    g = {name: value[:1] if name in ("viewmats", "Ks") else value for name, value in scene().items()}
    g["opacities"] = g["opacities"] * 0.2
    depths = (g["means"] @ g["viewmats"][0, :3, :3].T + g["viewmats"][0, :3, 3])[:, 2]
    is_near = depths < depths.median()
    limits = torch.full((1, H, W), float(depths.median()))
    names = ("means", "quats", "scales", "opacities", "colors")
    grads = []
    for keep, options in ((torch.ones_like(is_near), {"max_depths": limits}), (is_near, {})):
        leaves = {name: g[name][keep].requires_grad_() for name in names}
        images = draw(function, {**g, **leaves}, backend=backend, **options)
        grads.append(dict(zip(names, torch.autograd.grad(sum(i.square().sum() for i in images), list(leaves.values())))))
    for name in names:
        assert not grads[0][name][~is_near].any(), name
        atol = 1e-4 * float(grads[1][name].abs().max())
        torch.testing.assert_close(grads[0][name][is_near], grads[1][name], rtol=1e-4, atol=atol)
        assert grads[1][name].any()


@both
def test_gradcheck(function, backend):
    viewmats, Ks = cameras(1, 9, 8, dtype=torch.float64)
    g = random_gaussians(5, size=0.5, dtype=torch.float64)
    g["opacities"] = 0.3 + 0.4 * g["opacities"]
    depths = (g["means"] @ viewmats[0, :3, :3].T + viewmats[0, :3, 3])[:, 2].sort().values
    limits = torch.full((1, 8, 9), float(depths[2:4].mean()), dtype=torch.float64)
    limits[:, :, 4:] = float(depths[3:].mean())

    def images(means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor) -> tuple[Tensor, ...]:
        drawn = function(
            means, quats, scales, opacities, colors, viewmats, Ks, 9, 8, render_mode="RGB+D", max_depths=limits, backend=backend
        )
        return drawn[0], drawn[1]

    assert torch.autograd.gradcheck(images, [value.requires_grad_() for value in g.values()], atol=2e-5, rtol=1e-3)


def test_masks_and_limits_can_be_combined(backend):
    masks = torch.ones(2, 3, 4, dtype=torch.bool)
    masks[:, :, 0] = False
    g, limits = scene(), uneven()
    _, alpha, _ = rasterize(**g, width=W, height=H, max_depths=limits, masks=masks, backend=backend)
    _, whole, _ = rasterize(**g, width=W, height=H, max_depths=limits, backend=backend)
    assert not alpha[:, :, :16].any()
    assert torch.equal(alpha[:, :, 16:], whole[:, :, 16:])


def test_each_batch_has_its_limits(backend):
    g = {name: torch.stack([value, value.flip(0)]) for name, value in scene().items()}
    limits = torch.stack([uneven(), uneven().flip(1)])
    both_scenes = rasterize(**g, width=W, height=H, max_depths=limits, backend=backend)[0]
    for i in range(2):
        alone = rasterize(
            **{name: value[i] for name, value in g.items()}, width=W, height=H, max_depths=limits[i], backend=backend
        )[0]
        torch.testing.assert_close(both_scenes[i], alone, atol=1e-6, rtol=1e-6)


@both
def test_wrong_limits_are_rejected(function, backend):
    with pytest.raises(ShapeError, match=r"max_depths: got shape \(2, 37, 50\), want shape \(2, 37, 53\)"):
        draw(function, scene(), max_depths=torch.ones(2, H, 50), backend=backend)
    with pytest.raises(ShapeError, match=r"max_depths: got .*float64, want .*float32 as means"):
        draw(function, scene(), max_depths=torch.ones(2, H, W, dtype=torch.float64), backend=backend)


@both
def test_gsplat_has_no_limits(function, monkeypatch):
    from vision3d.render.splats import kernels

    monkeypatch.setattr(kernels, "resolve", lambda backend, device: "gsplat")
    with pytest.raises(BackendError, match=r"max_depths: gsplat.rasterization.* takes none; use backend='native'"):
        draw(function, scene(), max_depths=torch.ones(2, H, W), backend="gsplat")
