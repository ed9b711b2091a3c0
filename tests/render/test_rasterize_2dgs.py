import math

import pytest
import torch
from torch import Tensor

from tests.support.band import assert_close_outside_band, assert_same_gradients
from tests.support.gaussians import cameras, random_gaussians, random_sh
from vision3d import rasterize_2dgs
from vision3d.core.errors import BackendError, InputError
from vision3d.geometry.quaternion import multiply, quat_to_rotmat, rotmat_to_quat
from vision3d.render.splats.kernels import kernels
from vision3d.render.splats.records import Camera, Gaussians

INPUTS = ("means", "quats", "scales", "opacities", "colors")
W, H = 61, 45


def render(g: dict[str, Tensor], viewmats: Tensor, Ks: Tensor, width: int = W, height: int = H, **options):
    return rasterize_2dgs(*(g[name] for name in INPUTS), viewmats, Ks, width, height, **options)


def intrinsics(focal: float, width: int, height: int) -> Tensor:
    return torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]])


def disc(normal: tuple[float, float, float], z: float = 2.0, scale: float = 0.2, opacity: float = 0.8) -> dict[str, Tensor]:
    """One disc on the axis of the camera, twice as long as wide."""
    axis = torch.nn.functional.normalize(torch.tensor(normal), dim=0)
    side = torch.nn.functional.normalize(torch.linalg.cross(axis, torch.tensor([0.3, 1.0, 0.2])), dim=0)
    rotmat = torch.stack([side, torch.linalg.cross(axis, side), axis], -1)
    return {
        "means": torch.tensor([[0.0, 0.0, z]]),
        "quats": rotmat_to_quat(rotmat)[None],
        "scales": torch.tensor([[scale, 2 * scale, 1.0]]),
        "opacities": torch.tensor([opacity]),
        "colors": torch.tensor([[0.2, 0.5, 0.9]]),
    }


def by_the_ray(g: dict[str, Tensor], K: Tensor, row: int, column: int) -> float:
    """Alpha of a single disc at a pixel whose ray hits its plane, without the low-pass filter."""
    K, mean = K[0].double(), g["means"][0].double()
    ray = torch.linalg.inv(K) @ torch.tensor([column + 0.5, row + 0.5, 1.0], dtype=torch.float64)
    axes = quat_to_rotmat(g["quats"][0].double())
    hit = ray * (axes[:, 2] @ mean) / (axes[:, 2] @ ray)
    u, v = (axes[:, :2].T @ (hit - mean)) / g["scales"][0, :2].double()
    radius = float(u * u + v * v) if hit[2] > 0 else math.inf
    return float(g["opacities"][0]) * math.exp(-0.5 * radius)


@pytest.mark.parametrize("normal", [(0.0, 0.0, 1.0), (0.0, 0.0, -1.0), (0.5, 0.3, 1.0), (1.0, -0.2, 0.3)])
def test_one_disc_equals_ray_intersection_at_each_pixel(backend, normal):
    g, K = disc(normal), intrinsics(80.0, 41, 41)
    _, alpha, *_ = render(g, torch.eye(4)[None], K, 41, 41, backend=backend)
    compared = 0
    for row in range(0, 41, 3):
        for column in range(0, 41, 2):
            want = by_the_ray(g, K, row, column)
            if (row - 20) ** 2 + (column - 20) ** 2 < 9 or abs(want - 1 / 255) < 1e-4:
                continue  # the low-pass filter dominates, or alpha is near the threshold
            assert alpha[0, row, column, 0].item() == pytest.approx(want if want >= 1 / 255 else 0, abs=2e-5)
            compared += want > 0.05
    assert compared > 20


def test_a_disc_seen_edge_on_is_as_wide_as_the_low_pass_filter(backend):
    """Its plane contains the camera, so no ray hits it: alpha = o exp(-|d|^2) around the center of its outline."""
    g, K = disc((1.0, 0.0, 0.0), scale=0.02), intrinsics(80.0, 41, 41)
    _, alpha, *_, info = render(g, torch.eye(4)[None], K, 41, 41, backend=backend)
    center = info["means2d"][0, 0]
    torch.testing.assert_close(center, torch.tensor([20.5, 20.5]), atol=0.1, rtol=0)
    y, x = torch.meshgrid(torch.arange(41) + 0.5, torch.arange(41) + 0.5, indexing="ij")
    want = 0.8 * torch.exp(-((x - center[0]) ** 2) - (y - center[1]) ** 2)
    outside = (x - center[0]).abs() > 0.6  # in the column of the disc, a ray may graze its plane
    torch.testing.assert_close(alpha[0, ..., 0][outside], torch.where(want < 1 / 255, 0, want)[outside], atol=1e-5, rtol=0)
    assert alpha[0, 20, 20, 0] >= want[20, 20] - 1e-5


def test_a_small_far_disc_does_not_vanish_between_pixels(backend):
    g, K = disc((0.2, 0.1, 1.0), z=50.0, scale=0.001), intrinsics(80.0, 41, 41)
    _, alpha, *_ = render(g, torch.eye(4)[None], K, 41, 41, backend=backend)
    assert alpha[0, 20, 20, 0].item() == pytest.approx(0.8, abs=1e-5)
    assert alpha[0, 20, 22, 0].item() == pytest.approx(0.8 * math.exp(-4), abs=1e-5)


def test_a_floor_under_the_camera_ends_at_the_horizon(backend):
    """A disc that extends below and behind the camera: its mirror image behind the camera must not be visible."""
    g = disc((0.0, 1.0, 0.0), scale=2.0, opacity=0.9)
    g["means"] = torch.tensor([[0.0, 1.0, 2.0]])
    K = intrinsics(30.0, W, H)
    _, alpha, *_ = render(g, torch.eye(4)[None], K, backend=backend)
    rows = alpha[0, :, W // 2, 0]
    for row in (25, 30, 40, 44):
        want = by_the_ray(g, K, row, W // 2)
        assert rows[row].item() == pytest.approx(want if want >= 1 / 255 else 0, abs=1e-4)
    assert rows[44] > 0.3
    assert not alpha[0, : H // 2 - 3].any()


@pytest.mark.parametrize("mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_maps_of_one_wall(backend, mode):
    """A facing disc: depth and median are its distance, normals point towards the camera, no distortion."""
    g, K = disc((0.0, 0.0, 1.0), scale=3.0), intrinsics(50.0, W, H)
    image, alpha, normals, surf_normals, distortion, median, info = render(
        g, torch.eye(4)[None], K, render_mode=mode, distloss=True, backgrounds=torch.ones(1, 3), backend=backend
    )
    assert image.shape[-1] == {"RGB": 3, "D": 1, "ED": 1}.get(mode, 4)
    torch.testing.assert_close(normals, alpha * torch.tensor([0.0, 0.0, -1.0]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(median, torch.full_like(median, 2.0))
    assert not distortion.abs().gt(1e-6).any()
    if mode.startswith("RGB"):
        torch.testing.assert_close(image[..., :3], alpha * g["colors"][0] + 1 - alpha, atol=1e-5, rtol=1e-5)
    if mode != "RGB":
        want = 2 * alpha if mode.endswith("+D") or mode == "D" else torch.full_like(alpha, 2.0)
        torch.testing.assert_close(image[..., -1:], want, atol=1e-5, rtol=1e-5)
        inner = surf_normals[0, 1:-1, 1:-1]
        torch.testing.assert_close(inner, torch.tensor([0.0, 0.0, -1.0]).expand_as(inner), atol=1e-4, rtol=0)
        assert not surf_normals[0, 0].any()
    else:
        assert surf_normals is None
    assert info["render_distort"] is distortion


def layers(opacities: list[float], depths: list[float]) -> dict[str, Tensor]:
    parts = [disc((0.0, 0.0, 1.0), z=z, scale=5.0, opacity=o) for o, z in zip(opacities, depths)]
    return {name: torch.cat([part[name] for part in parts]) for name in INPUTS}


def test_distortion_and_median_of_layers(backend):
    opacities, depths = [0.3, 0.2, 0.6, 0.6], [1.0, 2.0, 4.0, 5.0]
    out = render(
        layers(opacities, depths),
        torch.eye(4)[None],
        intrinsics(1e3, 1, 1),
        1,
        1,
        render_mode="ED",
        distloss=True,
        backend=backend,
    )
    weights, T = [], 1.0
    for o in opacities:
        weights.append(o * T)
        T *= 1 - o
    distortion = sum(2 * weights[i] * weights[j] * (depths[i] - depths[j]) for i in range(4) for j in range(i))
    assert out[4].item() == pytest.approx(distortion, rel=1e-4)
    # T before the layers is 1, 0.7, 0.56, 0.224: the third is the last one with T above one half.
    assert out[5].item() == pytest.approx(4.0)
    assert out[6]["median_ids"].item() == 2
    assert out[6]["last_ids"].item() == 3
    without = render(layers(opacities, depths), torch.eye(4)[None], intrinsics(1e3, 1, 1), 1, 1, backend=backend)
    assert without[4].item() == 0
    assert without[5].item() == pytest.approx(4.0)  # also without a depth channel


def test_normals_of_a_slope_come_from_2dgs_and_from_depth(backend):
    """Discs that tile an inclined plane: both maps show its normal, oriented towards the camera."""
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.4, -1.0]), dim=0)
    quat = disc(tuple(normal.tolist()))["quats"]
    places = torch.cartesian_prod(torch.linspace(-2, 2, 60), torch.linspace(-2, 2, 60))
    z = 3 - (places @ normal[:2]) / normal[2]
    count = len(places)
    g = {
        "means": torch.cat([places, z[:, None]], -1), "quats": quat.expand(count, 4),
        "scales": torch.full((count, 3), 0.07), "opacities": torch.full((count,), 0.95), "colors": torch.rand(count, 3),
    }  # fmt: skip
    viewmats = torch.eye(4)[None].clone()
    turn = quat_to_rotmat(torch.nn.functional.normalize(torch.tensor([1.0, 0.1, -0.05, 0.2]), dim=0))
    viewmats[0, :3, :3] = turn
    K = intrinsics(120.0, W, H)
    for mode in ("expected", "median"):
        _, alpha, normals, surf_normals, *_ = render(
            g, viewmats, K, render_mode="RGB+ED", depth_mode=mode, backend=backend, near_plane=0.5
        )
        window = (0, slice(12, 33), slice(18, 43))
        assert alpha[window].min() > 0.9
        torch.testing.assert_close(normals[window] / alpha[window], normal.expand(21, 25, 3), atol=1e-4, rtol=0)
        if mode == "expected":
            # The depth of a disc is that of its center, so the surface is stepped; on average its slope is right.
            mean = torch.nn.functional.normalize(surf_normals[window].mean((0, 1)), dim=0)
            assert mean @ normal > 0.97


@pytest.mark.parametrize("packed", [False, True])
def test_layouts_and_batches_are_the_same(backend, packed):
    g = random_gaussians(60, batch=(2,))
    viewmats, Ks = cameras(3, W, H)
    viewmats, Ks = viewmats.repeat(2, 1, 1, 1), Ks.repeat(2, 1, 1, 1)
    sh = torch.stack([random_sh(60, 2, seed=seed) for seed in range(2)])
    backgrounds = torch.rand(2, 3, 3)
    options = {"sh_degree": 2, "render_mode": "RGB+ED", "distloss": True, "backend": backend}
    *maps, info = render({**g, "colors": sh}, viewmats, Ks, packed=packed, backgrounds=backgrounds, **options)
    for i in range(2):
        scene = {name: value[i] for name, value in {**g, "colors": sh}.items()}
        *want, _ = render(scene, viewmats[i], Ks[i], packed=not packed, backgrounds=backgrounds[i], **options)
        for got, one in zip(maps, want):
            torch.testing.assert_close(got[i], one, atol=2e-5, rtol=1e-5)
    count = len(info["gaussian_ids"]) if packed else None
    lead = (count,) if packed else (2, 3, 60)
    shapes = {"radii": 2, "means2d": 2, "normals": 3, "gradient_2dgs": 2}
    assert all(info[name].shape == (*lead, size) for name, size in shapes.items())
    assert info["ray_transforms"].shape == (*lead, 3, 3)
    assert info["depths"].shape == info["opacities"].shape == info["tiles_per_gauss"].shape == lead


@pytest.mark.parametrize("size", [0.15, 0.003])
def test_boxes_contain_every_visible_pixel(backend, size):
    """With one tile for the whole image, the boxes do not matter; the image must be the same."""
    g = random_gaussians(300, size=size)
    viewmats, Ks = cameras(2, W, H, distance=1.2)  # some cross the plane of the camera
    image, alpha, *_ = render(g, viewmats, Ks, tile_size=8, backend=backend)
    whole, whole_alpha, *_ = render(g, viewmats, Ks, tile_size=64, backend="reference")
    assert_close_outside_band(image, whole, atol=1e-4, band=2e-3)
    assert_close_outside_band(alpha, whole_alpha, atol=1e-4, band=2e-3)


def test_moving_the_scene_and_the_camera_together_changes_nothing(backend):
    g = random_gaussians(300, size=0.1)
    viewmats, Ks = cameras(1, W, H)
    turn, shift = (
        torch.nn.functional.normalize(torch.tensor([0.8, 0.3, -0.4, 0.2]), dim=0),
        torch.tensor([0.4, -1, 0.7]),
    )
    motion = torch.eye(4)
    motion[:3, :3], motion[:3, 3] = quat_to_rotmat(turn), shift
    moved = {**g, "means": g["means"] @ motion[:3, :3].T + shift, "quats": multiply(turn.expand(300, 4), g["quats"])}
    image, _, normals, *_ = render(g, viewmats, Ks, backend=backend)
    other, _, other_normals, *_ = render(moved, viewmats @ torch.linalg.inv(motion), Ks, backend=backend)
    assert_close_outside_band(other, image, atol=3e-5, band=2e-3)
    assert_close_outside_band(other_normals, normals @ motion[:3, :3].T, atol=3e-5, band=2e-3, band_atol=0.1)


def test_gradcheck_of_projection():
    g = random_gaussians(4, size=0.1, dtype=torch.float64)
    g["means"] = g["means"] * 0.5
    viewmats, Ks = cameras(2, 60, 44, dtype=torch.float64)

    def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
        means, quats, scales, views = inputs
        gaussians = Gaussians(means[None], quats[None], scales[None], None, g["opacities"][None])
        camera = Camera(views[None], Ks[None], 60, 44, "pinhole", 0.01, 1e10, 0.0)
        _, (radii, *out) = kernels("reference").project_2dgs(gaussians, camera)
        assert (radii > 0).all()
        return tuple(out)

    inputs = [tensor.clone().requires_grad_() for tensor in (g["means"], g["quats"], g["scales"], viewmats)]
    assert torch.autograd.gradcheck(outputs, inputs, atol=1e-6, rtol=1e-6)


def test_gradients_of_the_rasterizer_equal_finite_differences():
    g = {**random_gaussians(30, size=0.15, dtype=torch.float64), "colors": random_sh(30, 1, dtype=torch.float64)}
    viewmats, Ks = cameras(1, 24, 20, dtype=torch.float64)
    inputs = {**g, "viewmats": viewmats, "backgrounds": torch.rand(1, 3, dtype=torch.float64)}
    weights = None

    def loss(values: dict[str, Tensor]) -> Tensor:
        nonlocal weights
        *maps, _ = render(
            values, values["viewmats"], Ks, 24, 20, sh_degree=1, render_mode="RGB+ED", distloss=True,
            backgrounds=values["backgrounds"], backend="reference",
        )  # fmt: skip
        maps[3] = maps[3][..., :1] * 0  # normals of a depth map are discontinuous where the map is
        weights = [torch.randn_like(value) for value in maps] if weights is None else weights
        return sum((value * weight).sum() for value, weight in zip(maps, weights))

    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    grads = dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values()))))
    for name, value in inputs.items():
        direction = torch.randn_like(value)
        with torch.no_grad():
            slopes = []
            for step in (0.7e-7, 1e-7, 1.4e-7):
                ahead, behind = (loss({**inputs, name: value + sign * step * direction}) for sign in (1, -1))
                slopes.append((ahead - behind) / (2 * step))
        want = (grads[name] * direction).sum().item()
        assert torch.stack(slopes).median().item() == pytest.approx(want, rel=2e-5, abs=2e-5), name


def test_single_precision_gradients_agree_with_double(backend):
    viewmats, Ks = cameras(2, W, H)
    sh = random_sh(250, 2)
    weights = None

    def gradients(dtype: torch.dtype, backend: str) -> tuple[list[Tensor], dict[str, Tensor]]:
        nonlocal weights
        g = {**random_gaussians(250, size=0.1), "colors": sh}
        leaves = {name: value.to(dtype, copy=True).requires_grad_() for name, value in g.items()}
        leaves["viewmats"] = viewmats.to(dtype, copy=True).requires_grad_()
        leaves["backgrounds"] = torch.tensor([[0.2, 0.4, 0.9]] * 2, dtype=dtype, requires_grad=True)
        image, alpha, normals, _, distortion, median, info = render(
            leaves, leaves["viewmats"], Ks.to(dtype), sh_degree=2, render_mode="RGB+D", distloss=True,
            backgrounds=leaves["backgrounds"], backend=backend,
        )  # fmt: skip
        maps = [image, alpha, normals, distortion, median]
        weights = [torch.randn_like(value) for value in maps] if weights is None else weights
        sum((value * weight).sum() for value, weight in zip(maps, weights)).backward()
        return maps, {**{name: leaf.grad for name, leaf in leaves.items()}, "centres": info["gradient_2dgs"].grad}

    maps, got = gradients(torch.float32, backend)
    want_maps, want = gradients(torch.float64, "reference")
    for value, other in zip(maps[:4], want_maps[:4]):
        assert_close_outside_band(value, other, atol=1e-4, band=2e-3, band_atol=0.2)
    assert_same_gradients(got, want, least=0.9999)
    assert not got["scales"][:, 2].any()


def test_gradient_of_centers_is_that_of_moving_each_disc_in_the_image(backend):
    """M33 dL/d(M13, M23), for a center moved by a pixel: for a facing disc it agrees with the gradient of the mean."""
    g, K = disc((0.0, 0.0, 1.0), scale=0.3), intrinsics(50.0, 33, 33)
    leaf = g["means"].requires_grad_()
    image, *_, info = render(g, torch.eye(4)[None], K, 33, 33, backend=backend)
    loss = (image * torch.linspace(0, 1, 33)[None, None, :, None]).sum()
    loss.backward()
    got = info["gradient_2dgs"].grad.flatten()
    # Pixels per meter at the center: f / z. The few pixels of the low-pass filter only affect the mean.
    torch.testing.assert_close(got[0], leaf.grad[0, 0] * 2 / 50, rtol=0.02, atol=1e-4)


def test_nothing_to_see_shows_the_background_and_can_be_differentiated(backend):
    viewmats, Ks = cameras(1, W, H)
    for count, shift in ((0, 0.0), (30, 1000.0)):
        g = random_gaussians(30)
        g["means"] += shift
        leaves = {name: value[:count].requires_grad_() for name, value in g.items()}
        image, alpha, normals, _, distortion, median, _ = render(
            leaves, viewmats, Ks, backgrounds=torch.tensor([[0.1, 0.2, 0.3]]), distloss=True, backend=backend
        )
        assert torch.equal(image, torch.tensor([0.1, 0.2, 0.3]).expand(1, H, W, 3))
        assert not any(value.any() for value in (alpha, normals, distortion, median))
        (image.sum() + normals.sum() + median.sum()).backward()


def test_bad_gaussians_do_not_affect_the_others(backend):
    g, viewmats, Ks = random_gaussians(50, size=0.1), *cameras(2, W, H)
    want, *_ = render(g, viewmats, Ks, backend=backend)
    bad = {name: value[:6].clone() for name, value in g.items()}
    bad["means"][0], bad["means"][1], bad["quats"][2] = torch.nan, torch.inf, torch.nan
    bad["scales"][3], bad["scales"][4, 0], bad["opacities"][5] = torch.inf, torch.nan, torch.nan
    leaves = {name: torch.cat([bad[name], g[name]]).requires_grad_() for name in INPUTS}
    image, alpha, normals, *_ = render(leaves, viewmats, Ks, backend=backend)
    torch.testing.assert_close(image, want, atol=1e-6, rtol=1e-6)
    (image.sum() + alpha.sum() + normals.sum()).backward()
    for name in INPUTS:
        assert leaves[name].grad.isfinite().all()
        assert not leaves[name].grad[:6].any()


def test_unsupported_options_of_2dgs_are_rejected(backend):
    g, viewmats, Ks = random_gaussians(3), *cameras(1, W, H)
    with pytest.raises(InputError, match=r"eps2d: got 0\.1; the low-pass filter of 2D Gaussians is fixed"):
        render(g, viewmats, Ks, eps2d=0.1, backend=backend)
    with pytest.raises(BackendError, match="absgrad: is for 3D Gaussians"):
        render(g, viewmats, Ks, absgrad=True, backend=backend)
    with pytest.raises(InputError, match="depth_mode: got 'mean'"):
        render(g, viewmats, Ks, depth_mode="mean", backend=backend)
