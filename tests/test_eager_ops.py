"""Operations called without torch's dispatcher: the same results and gradients, errors and changes that autograd counts."""

import pytest
import torch
from torch.autograd import forward_ad

from tests.support.scenes import ring_cameras, ring_scene
from vision3d.core import native
from vision3d.core.errors import BackendError
from vision3d.core.op_records import flatten
from vision3d.optim import losses, ssim
from vision3d.optim.adam import SplatAdam
from vision3d.optim.densification.noise import add_noise
from vision3d.render import rasterize
from vision3d.render.meshes import native_fragments
from vision3d.render.splats import rasterize_2dgs

pytestmark = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


def nodes(tensor):
    """Names of the functions in the graph of a tensor."""
    found, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [following for following, _ in node.next_functions]
    return {node.name() for node in found}


def gradients(function, absgrad):
    scene, cameras = ring_scene(60), ring_cameras(2)
    leaves = [scene.means, scene.quats, scene.scales, scene.opacities, scene.sh, cameras.viewmats]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    backgrounds = torch.rand(2, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    options = {"sh_degree": 1, "packed": True, "backgrounds": backgrounds, "absgrad": absgrad, "backend": "native"}
    image, alphas, *_ = function(*leaves, cameras.Ks, 40, 30, **options)
    target = torch.rand(image.shape, generator=torch.Generator().manual_seed(2))
    loss = losses.photometric(image, target) + alphas.square().mean()
    return nodes(loss), [image.detach(), *torch.autograd.grad(loss, [*leaves, backgrounds])]


@pytest.mark.parametrize(("function", "kind"), [(rasterize, "splats"), (rasterize_2dgs, "2dgs")])
def test_gradients_without_the_dispatcher_are_the_same(monkeypatch, function, kind):
    names, found = gradients(function, kind == "splats")
    eager = {f"project_{kind}_eagerBackward", "sh_colors_eagerBackward", f"blend_{kind}_eagerBackward", "ssim_eagerBackward"}
    assert eager <= names and not any("GeneratedBackward" in name for name in names)
    monkeypatch.setattr(native, "direct", lambda op, function=None, **_: op)
    others, want = gradients(function, kind == "splats")
    assert not eager & others
    for got, expected in zip(found, want, strict=True):
        assert torch.equal(got, expected)


def test_second_derivatives_are_refused():
    a, b = torch.rand(2, 1, 16, 16, 3).unbind(0)
    a.requires_grad_()
    with torch.no_grad():
        (want,) = torch.autograd.grad(torch.enable_grad()(losses.ssim)(a, b), a)
    (slope,) = torch.autograd.grad(losses.ssim(a, b), a, create_graph=True)
    assert torch.equal(slope, want)
    with pytest.raises(BackendError, match="ssim: has no second derivatives; use backend='reference'"):
        (slope.square().sum() + a.square().sum()).backward()


def test_tangents_are_refused():
    a, b = torch.rand(2, 1, 16, 16, 3).unbind(0)
    for function in (ssim._SSIM, native_fragments._INTERPOLATE):
        values = (a, b, 11, 1.5, False, 1.0, True)
        if function is not ssim._SSIM:
            faces, pixels = torch.zeros(1, 3, dtype=torch.int32), torch.zeros(1, 2, 2, dtype=torch.int32)
            values = (torch.rand(1, 4, 3), faces, pixels, torch.rand(1, 2, 2, 3))
        with forward_ad.dual_level(), pytest.raises(BackendError, match="has no forward-mode derivatives"):
            function.apply(forward_ad.make_dual(values[0], torch.ones_like(values[0])), *values[1:])


def test_changes_in_place_are_counted():
    params = {
        "means": torch.rand(5, 3),
        "log_scales": torch.zeros(5, 3),
        "quats": torch.rand(5, 4),
        "opacity_logits": torch.full((5,), -5.0),
    }
    optimizer = SplatAdam(params, dict.fromkeys(params, 0.1))
    for change in (optimizer.step, lambda: add_noise(params, 0, 1, 1.0)):
        before = params["means"].detach().clone()
        for param in params.values():
            param.grad = torch.ones_like(param)
        saved = (params["means"] * params["means"]).sum()
        change()
        assert not torch.equal(params["means"], before)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            saved.backward()


def test_a_record_is_flattened_for_the_dispatcher(monkeypatch):
    from vision3d.render.splats.native_3dgs import _Harmonics, _HarmonicsVjp, _sh_colors_vjp

    ids = torch.zeros(2, dtype=torch.int64)
    record = _Harmonics(torch.rand(1, 2, 3), torch.rand(1, 1, 2, 4, 3), torch.zeros(1, 1, 3), ids, torch.arange(2), 1)
    record = _HarmonicsVjp(record, torch.rand(2, 3))
    with torch.no_grad():
        found = _sh_colors_vjp.of(record)
        want = _sh_colors_vjp.op(*flatten(record))
    for got, expected in zip(found, want, strict=True):
        assert torch.equal(got, expected)
