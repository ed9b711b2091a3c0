import math

import pytest
import torch
from torch import Tensor

from tests.support.band import assert_same_gradients
from tests.support.gaussians import cameras, random_gaussians
from vision3d.geometry import cameras as camera_models
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.render.splats.kernels import kernels
from vision3d.render.splats.records import Camera, Gaussians

MODELS = ["pinhole", "ortho", "fisheye"]
DEFAULTS = {"near_plane": 0.01, "far_plane": 1e10, "radius_clip": 0.0}
NAMES = ["radii", "means2d", "depths", "conics", "compensations"]


def project(g: dict[str, Tensor], viewmats: Tensor, Ks: Tensor, width: int, height: int, **options) -> dict[str, Tensor]:
    """One scene, without the leading axis of scenes."""
    options = {**DEFAULTS, "camera_model": "pinhole", "backend": "reference", "eps2d": 0.3, **options}
    covars, model, backend = options.pop("covars", None), options.pop("camera_model"), options.pop("backend")
    camera = Camera(viewmats[None], Ks[None], width, height, model, *(options.pop(name) for name in DEFAULTS))
    quats, scales = (None if covars is not None else g[name][None] for name in ("quats", "scales"))
    covars = None if covars is None else covars[None]
    shapes = (g["means"][None], quats, scales, covars, g["opacities"][None])
    _, out = kernels(backend).project(Gaussians(*shapes), camera, **options)
    return {name: value[0] for name, value in zip(NAMES, out)}


def upper(covars: Tensor) -> Tensor:
    return covars[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]


def covariances(g: dict[str, Tensor]) -> Tensor:
    axes = quat_to_rotmat(g["quats"]) * g["scales"][:, None]
    return axes @ axes.mT


def test_one_isotropic_gaussian_on_the_axis_has_its_closed_form(backend):
    g = {
        "means": torch.tensor([[0.0, 0.0, 2.0]]),
        "quats": torch.tensor([[0.3, -2.0, 0.5, 1.0]]),
        "scales": torch.full((1, 3), 0.1),
        "opacities": torch.tensor([0.8]),
    }
    K = torch.tensor([[[100.0, 0, 32], [0, 50.0, 20], [0, 0, 1]]])
    out = project(g, torch.eye(4)[None], K, 64, 40, backend=backend)
    sxx, syy = (100 * 0.1 / 2) ** 2 + 0.3, (50 * 0.1 / 2) ** 2 + 0.3
    torch.testing.assert_close(out["means2d"], torch.tensor([[[32.0, 20.0]]]))
    torch.testing.assert_close(out["depths"], torch.tensor([[2.0]]))
    torch.testing.assert_close(out["conics"], torch.tensor([[[1 / sxx, 0.0, 1 / syy]]]), atol=1e-7, rtol=1e-5)
    k = math.sqrt(2 * math.log(255 * 0.8))
    assert out["radii"].tolist() == [[[math.ceil(k * math.sqrt(sxx)), math.ceil(k * math.sqrt(syy))]]]
    sharp = (sxx - 0.3) * (syy - 0.3)
    torch.testing.assert_close(out["compensations"], torch.tensor([[math.sqrt(sharp / (sxx * syy))]]))


@pytest.mark.parametrize("model", MODELS)
def test_projection_is_the_camera_model_and_its_jacobian(backend, model):
    g = {name: value[:40] for name, value in random_gaussians(40, dtype=torch.float64).items()}
    viewmats, Ks = cameras(2, 64, 48, model=model, dtype=torch.float64)
    out = project(
        {k: v.float() for k, v in g.items()}, viewmats.float(), Ks.float(), 64, 48, camera_model=model, backend=backend
    )
    seen = out["radii"][..., 0] > 0
    assert seen.sum() > 40
    covars = covariances(g)
    for c in range(2):
        for i in torch.nonzero(seen[c])[:, 0].tolist():

            def pixel(point: Tensor, c: int = c) -> Tensor:
                return camera_models.project((viewmats[c, :3, :3] @ point + viewmats[c, :3, 3])[None], Ks[c], model)[0]

            J = torch.autograd.functional.jacobian(pixel, g["means"][i])
            S = J @ covars[i] @ J.T + 0.3 * torch.eye(2)
            conic = torch.linalg.inv(S)
            torch.testing.assert_close(out["means2d"][c, i].double(), pixel(g["means"][i]), atol=2e-4, rtol=1e-5)
            want = torch.stack([conic[0, 0], conic[0, 1], conic[1, 1]])
            assert (out["conics"][c, i].double() - want).norm() <= 1e-4 * want.norm()


def test_fisheye_is_smooth_on_and_near_the_axis(backend):
    # The axis itself, both sides of the switch from series to arctangent in the reference, and far out.
    tangents = torch.tensor([0.0, 1e-8, 1e-4, 0.0999, 0.1001, 0.5, 3.0, 20.0], dtype=torch.float64)
    means = torch.stack([tangents * 0.6, tangents * 0.8, torch.ones_like(tangents)], -1)
    covars = torch.diag(torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64)).repeat(len(means), 1, 1)
    K = torch.tensor([[[30.0, 0, 50], [0, 30.0, 50], [0, 0, 1]]], dtype=torch.float64)
    g = {"means": means.float(), "opacities": torch.ones(len(means))}
    out = project(
        g,
        torch.eye(4)[None],
        K.float(),
        100,
        100,
        camera_model="fisheye",
        covars=upper(covars).float(),
        eps2d=0.0,
        backend=backend,
    )
    assert (out["radii"] > 0).all()
    theta = torch.atan(tangents)
    radial = out["means2d"][0].double() - 50
    torch.testing.assert_close(radial.norm(dim=-1), 30 * theta, atol=1e-4, rtol=1e-5)
    for i, point in enumerate(means):
        if i == 0:
            J = torch.tensor([[30.0, 0, 0], [0, 30.0, 0]], dtype=torch.float64)
        else:
            J = torch.autograd.functional.jacobian(lambda p: camera_models.project(p[None], K[0], "fisheye")[0], point)
        want = torch.linalg.inv(J @ covars[i] @ J.T)[[0, 0, 1], [0, 1, 1]]
        assert (out["conics"][0, i].double() - want).norm() <= 1e-4 * want.norm(), i


def test_jacobian_of_a_pinhole_stays_at_its_bound_far_outside_the_image(backend):
    """0.15 image widths outside, the Jacobian is clamped, and the direction gets no gradient through it."""
    K = torch.tensor([[[50.0, 0, 32], [0, 50.0, 32], [0, 0, 1]]], dtype=torch.float64)
    mean = torch.tensor([[2.0, 0.1, 2.0]])  # pixel x = 82, the bound is 64 + 9.6
    g = {"means": mean.requires_grad_(), "opacities": torch.ones(1)}
    covar = torch.diag(torch.tensor([0.5, 0.02, 0.3], dtype=torch.float64))[None]
    out = project(g, torch.eye(4)[None], K.float(), 64, 64, covars=upper(covar).float(), backend=backend)
    u = (1.15 * 64 - 32) / 50
    J = torch.tensor([[25.0, 0, -25 * u], [0, 25.0, -25 * 0.05]], dtype=torch.float64)
    want = torch.linalg.inv(J @ covar[0] @ J.T + 0.3 * torch.eye(2))[[0, 0, 1], [0, 1, 1]].float()
    torch.testing.assert_close(out["conics"][0, 0], want, rtol=1e-4, atol=1e-7)
    (grad,) = torch.autograd.grad(out["conics"][0, 0, 0], mean)
    assert grad[0, 0] == 0
    assert grad[0, 2] != 0


def test_covars_and_quats_with_scales_are_the_same(backend):
    g = random_gaussians(60)
    viewmats, Ks = cameras(3, 50, 40)
    a = project(g, viewmats, Ks, 50, 40, backend=backend)
    b = project(g, viewmats, Ks, 50, 40, covars=upper(covariances(g)), backend=backend)
    for name in NAMES:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("antialiased", [False, True])
def test_radii_follow_from_conics_and_opacities(backend, antialiased):
    g = random_gaussians(400, size=0.02)
    g["opacities"][:50] = torch.linspace(0, 0.02, 50)
    viewmats, Ks = cameras(1, 64, 64)
    out = project(g, viewmats, Ks, 64, 64, antialiased=antialiased, backend=backend)
    seen = out["radii"][0, :, 0] > 0
    opacity = g["opacities"] * (out["compensations"][0] if antialiased else 1)
    assert (opacity[seen] >= 1 / 255).all()
    assert not seen[: int(50 / 0.02 / 255)].any()
    a, b, c = out["conics"][0, seen].double().unbind(-1)
    S = torch.stack([c, a], -1) / (a * c - b * b)[:, None]
    k = (2 * torch.log(255 * opacity[seen].double())).sqrt().clamp(max=3.33)
    exact = k[:, None] * S.sqrt()
    radii = out["radii"][0, seen].double()
    assert ((radii - exact > -1e-3) & (radii - exact < 1 + 1e-3)).all()


def test_compensation_gradient_has_its_closed_form(backend):
    """d rho / d S = ((1 - rho^2) conic - eps det(conic) I) / (2 rho) (splatting with Mip-Splatting's compensation)."""
    g = random_gaussians(30, size=0.02)
    covars = upper(covariances(g)).requires_grad_()
    viewmats, Ks = cameras(1, 200, 200, model="ortho")
    # Looking along z without rotation, S = f^2 Sigma + eps I with the same f in x and y.
    viewmats[:, :3, :3], Ks[:, 1, 1] = torch.eye(3), Ks[0, 0, 0]
    out = project(g, viewmats, Ks, 200, 200, covars=covars, camera_model="ortho", backend=backend)
    seen = out["radii"][0, :, 0] > 0
    rho, conic = out["compensations"][0, seen].double(), out["conics"][0, seen].double()
    (grad,) = torch.autograd.grad(out["compensations"].sum(), covars)
    det = conic[:, 0] * conic[:, 2] - conic[:, 1] ** 2
    by_S = ((1 - rho**2)[:, None] * conic - 0.3 * det[:, None] * torch.tensor([1.0, 0, 1])) / (2 * rho[:, None])
    want = by_S * torch.tensor([1.0, 2.0, 1.0]) * Ks[0, 0, 0] ** 2
    got = grad[seen][:, [0, 1, 3]].double()
    floored = rho < 0.00501
    assert (~floored).sum() > 10
    torch.testing.assert_close(got[~floored], want[~floored], rtol=2e-2, atol=1e-3)


def test_compensation_has_a_floor_without_gradient(backend):
    g = {"means": torch.tensor([[0.0, 0, 1]]), "quats": torch.tensor([[1.0, 0, 0, 0]]), "opacities": torch.ones(1)}
    scales = torch.full((1, 3), 1e-6, requires_grad=True)
    K = torch.tensor([[[10.0, 0, 8], [0, 10.0, 8], [0, 0, 1]]])
    out = project({**g, "scales": scales}, torch.eye(4)[None], K, 16, 16, backend=backend)
    assert out["compensations"].item() == pytest.approx(0.005)
    assert torch.autograd.grad(out["compensations"].sum(), scales)[0].abs().sum() == 0


BAD = {
    "nan mean": ("means", [torch.nan, 0, 3]), "inf mean": ("means", [0, torch.inf, 3]),
    "behind": ("means", [0, 0, -3.0]), "near": ("means", [0, 0, 0.1]), "far": ("means", [0, 0, 200.0]),
    "beside": ("means", [90, 0, 3.0]), "nan quat": ("quats", [1, torch.nan, 0, 0]),
    "nan scale": ("scales", [0.1, torch.nan, 0.1]), "inf scale": ("scales", [0.1, 0.1, torch.inf]),
    "nan opacity": ("opacities", torch.nan), "inf opacity": ("opacities", torch.inf), "faint": ("opacities", 0.0039),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_invisible_gaussians_are_zero_with_zero_gradient(backend, bad):
    g = {name: value.clone() for name, value in random_gaussians(3).items() if name != "colors"}
    g["means"][:] = torch.tensor([[0.1, 0.1, 3.0], [0.0, 0.0, 3.0], [-0.1, 0.0, 3.0]])
    name, value = BAD[bad]
    g[name][1] = torch.as_tensor(value)
    leaves = {key: tensor.requires_grad_() for key, tensor in g.items()}
    K = torch.tensor([[[30.0, 0, 16], [0, 30.0, 16], [0, 0, 1]]])
    out = project(leaves, torch.eye(4)[None], K, 32, 32, near_plane=0.2, far_plane=100.0, backend=backend)
    assert (out["radii"][0, [0, 2]] > 0).all()
    for key in NAMES:
        assert out[key][0, 1].count_nonzero() == 0, key
    sum(out[key].sum() for key in NAMES[1:]).backward()
    for key in ("means", "quats", "scales"):
        assert leaves[key].grad[1].count_nonzero() == 0
        assert leaves[key].grad[[0, 2]].isfinite().all()
        assert leaves[key].grad[0].any()


def test_radius_clip_drops_gaussians_small_in_both_directions(backend):
    g = random_gaussians(300, size=0.02)
    viewmats, Ks = cameras(1, 64, 64)
    everything, clipped = (project(g, viewmats, Ks, 64, 64, radius_clip=clip, backend=backend)["radii"] for clip in (0.0, 3.0))
    small = (everything <= 3).all(-1)
    assert 20 < small.sum() < 280
    assert not clipped[small].any()
    torch.testing.assert_close(clipped[~small], everything[~small])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("with_covars", [False, True])
def test_gradcheck(model, with_covars):
    g = random_gaussians(5, size=0.1, dtype=torch.float64)
    g["means"] = g["means"] * 0.5
    viewmats, Ks = cameras(2, 60, 44, model=model, dtype=torch.float64)
    covars = upper(covariances(g))

    def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
        means, views, *rest = inputs
        shape = {"covars": rest[0]} if with_covars else {}
        scene = {**g, "means": means} if with_covars else {**g, "means": means, "quats": rest[0], "scales": rest[1]}
        out = project(scene, views, Ks, 60, 44, camera_model=model, **shape)
        assert (out["radii"] > 0).all()
        return tuple(out[name] for name in NAMES[1:])

    inputs = [g["means"], viewmats, *([covars] if with_covars else [g["quats"], g["scales"]])]
    assert torch.autograd.gradcheck(outputs, [tensor.clone().requires_grad_() for tensor in inputs], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_single_precision_gradients_agree_with_double(backend, model):
    viewmats, Ks = cameras(3, 96, 80, model=model)
    weights = {}

    def gradients(dtype: torch.dtype, with_covars: bool, backend: str) -> dict[str, Tensor]:
        g = {name: value.to(dtype) for name, value in random_gaussians(300).items()}
        covars = None if not with_covars else upper(covariances(random_gaussians(300))).to(dtype).requires_grad_()
        leaves = {name: g[name].requires_grad_() for name in ("means", "quats", "scales")}
        views = viewmats.to(dtype, copy=True).requires_grad_()
        out = project(g, views, Ks.to(dtype), 96, 80, camera_model=model, covars=covars, backend=backend)
        for name in NAMES[1:]:
            weights.setdefault(name, torch.randn(out[name].shape))
        sum((out[name] * weights[name]).sum() for name in NAMES[1:]).backward()
        found = {"means": leaves["means"].grad, "viewmats": views.grad}
        extra = {"covars": covars.grad} if with_covars else {"quats": leaves["quats"].grad, "scales": leaves["scales"].grad}
        return {**found, **extra}

    for with_covars in (False, True):
        got = gradients(torch.float32, with_covars, backend)
        assert_same_gradients(got, gradients(torch.float64, with_covars, "reference"))


def test_intrinsics_get_no_gradient(backend):
    g = random_gaussians(5)
    viewmats, Ks = cameras(1, 32, 32)
    out = project(g, viewmats, Ks.requires_grad_(), 32, 32, backend=backend)
    assert not out["means2d"].requires_grad
