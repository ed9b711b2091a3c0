import math

import pytest
import torch
from torch import Tensor

from tests.support.band import assert_close_outside_band, assert_same_gradients
from tests.support.gaussians import cameras, random_gaussians, random_sh
from vision3d import rasterize
from vision3d.geometry.quaternion import multiply, quat_to_rotmat

INPUTS = ("means", "quats", "scales", "opacities", "colors")
W, H = 61, 45  # not multiples of a tile


def render(g: dict[str, Tensor], viewmats: Tensor, Ks: Tensor, width: int = W, height: int = H, **options):
    return rasterize(*(g[name] for name in INPUTS), viewmats, Ks, width, height, **options)


def single(scale: float = 0.1, opacity: float = 0.8, z: float = 2.0) -> dict[str, Tensor]:
    return {
        "means": torch.tensor([[0.0, 0.0, z]]),
        "quats": torch.tensor([[1.0, 0.3, -0.2, 0.5]]),
        "scales": torch.full((1, 3), scale),
        "opacities": torch.tensor([opacity]),
        "colors": torch.tensor([[0.2, 0.5, 0.9]]),
    }


def intrinsics(focal: float, width: int, height: int) -> Tensor:
    return torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]])


# Closed forms.


def test_one_isotropic_gaussian_on_the_axis(backend):
    image, alpha, _ = render(single(), torch.eye(4)[None], intrinsics(120.0, 33, 33), 33, 33, backend=backend)
    variance = (120 * 0.1 / 2) ** 2 + 0.3
    for row, column in ((16, 16), (16, 20), (9, 25), (30, 16)):
        square = (row - 16) ** 2 + (column - 16) ** 2
        want = 0.8 * math.exp(-square / (2 * variance))
        assert alpha[0, row, column, 0].item() == pytest.approx(want, abs=1e-5)
        torch.testing.assert_close(image[0, row, column], want * torch.tensor([0.2, 0.5, 0.9]), atol=1e-5, rtol=0)


def test_two_overlapping_gaussians(backend):
    near, far = single(0.1, 0.7, 2.0), single(0.2, 0.9, 3.0)
    far["colors"] = torch.tensor([[1.0, 0.0, 0.3]])
    g = {name: torch.cat([far[name], near[name]]) for name in INPUTS}
    image, alpha, _ = render(g, torch.eye(4)[None], intrinsics(120.0, 33, 33), 33, 33, backend=backend)
    a1 = 0.7 * math.exp(-(5**2) / (2 * ((120 * 0.1 / 2) ** 2 + 0.3)))
    a2 = 0.9 * math.exp(-(5**2) / (2 * ((120 * 0.2 / 3) ** 2 + 0.3)))
    want = a1 * near["colors"][0] + (1 - a1) * a2 * far["colors"][0]
    torch.testing.assert_close(image[0, 16, 21], want, atol=1e-5, rtol=0)
    assert alpha[0, 16, 21, 0].item() == pytest.approx(1 - (1 - a1) * (1 - a2), abs=1e-5)


# Energy of a Gaussian in the image when the image is rescaled.


def energy(sigma: float, mode: str, backend: str) -> float:
    """Sum of alpha times the area of a pixel, relative to that of the Gaussian itself, for a projected sigma [px]."""
    g = single(scale=0.01, opacity=0.6, z=1.0)
    _, alpha, _ = render(g, torch.eye(4)[None], intrinsics(sigma / 0.01, 41, 41), 41, 41, rasterize_mode=mode, backend=backend)
    return alpha.sum().item() / (2 * math.pi * sigma**2 * 0.6)


def truncated(sigma: float, mode: str) -> float:
    """The same from the formula, pixel by pixel with the threshold at 1/255."""
    rho = sigma**2 / (sigma**2 + 0.3) if mode == "antialiased" else 1.0
    offsets = torch.arange(-20, 21, dtype=torch.float64)
    alpha = 0.6 * rho * torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (sigma**2 + 0.3)))
    return float(alpha[alpha >= 1 / 255].sum() / (2 * math.pi * sigma**2 * 0.6))


def test_antialiasing_preserves_the_energy_and_classic_does_not(backend):
    sigmas = (0.3, 0.42, 0.6, 0.85, 1.2, 1.7, 2.4)
    kept = {mode: [energy(sigma, mode, backend) for sigma in sigmas] for mode in ("antialiased", "classic")}
    # The loss at the threshold of 1/255 is known; corrected for it, the energy is constant within 2 %.
    lost = [truncated(sigma, "antialiased") for sigma in sigmas]
    assert all(abs(got / want - 1) < 0.02 for got, want in zip(kept["antialiased"], lost))
    assert max(kept["antialiased"]) / min(kept["antialiased"]) < 1.05
    assert max(kept["classic"]) / min(kept["classic"]) > 3


@pytest.mark.parametrize("mode", ["antialiased", "classic"])
@pytest.mark.parametrize("sigma", [0.03, 0.06, 0.1, 0.2, 0.29])
def test_loss_at_the_threshold_for_subpixel_gaussians(backend, sigma, mode):
    assert energy(sigma, mode, backend) == pytest.approx(truncated(sigma, mode), rel=1e-3, abs=1e-6)


# Invariances.


def test_the_order_of_gaussians_does_not_matter(backend):
    g = random_gaussians(300)
    viewmats, Ks = cameras(2, W, H)
    order = torch.randperm(300)
    image, alpha, _ = render(g, viewmats, Ks, backend=backend)
    other, other_alpha, _ = render({name: value[order] for name, value in g.items()}, viewmats, Ks, backend=backend)
    # Bitwise if the sums do not depend on which Gaussians are blended side by side; the reference's products do.
    tolerance = 0 if backend == "native" else 1e-6
    torch.testing.assert_close(image, other, atol=tolerance, rtol=0)
    torch.testing.assert_close(alpha, other_alpha, atol=tolerance, rtol=0)


def test_quaternion_sign_and_length_do_not_matter(backend):
    g = random_gaussians(300)
    viewmats, Ks = cameras(1, W, H)
    image, *_ = render(g, viewmats, Ks, backend=backend)
    for factor in (-1.0, 0.01, 70.0):
        other, *_ = render({**g, "quats": g["quats"] * factor}, viewmats, Ks, backend=backend)
        assert_close_outside_band(other, image)


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_moving_the_scene_and_the_camera_together_changes_nothing(backend, model):
    g = random_gaussians(300)
    viewmats, Ks = cameras(1, W, H, model=model)
    image, *_ = render(g, viewmats, Ks, camera_model=model, backend=backend)
    turn, shift = (
        torch.nn.functional.normalize(torch.tensor([0.8, 0.3, -0.4, 0.2]), dim=0),
        torch.tensor([0.4, -1.0, 0.7]),
    )
    rotmat = quat_to_rotmat(turn)
    motion = torch.eye(4)
    motion[:3, :3], motion[:3, 3] = rotmat, shift
    moved = {**g, "means": g["means"] @ rotmat.T + shift, "quats": multiply(turn.expand(300, 4), g["quats"])}
    other, *_ = render(moved, viewmats @ torch.linalg.inv(motion), Ks, camera_model=model, backend=backend)
    assert_close_outside_band(other, image, atol=1e-5, band=1e-3)


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_two_crops_with_shifted_principal_points_are_one_image(backend, model):
    # So small that everything visible is within 15 % of a crop's width around it: the Jacobian is not clamped.
    g = random_gaussians(1500, size=0.01)
    g["scales"] = g["scales"].clamp(max=0.02)
    viewmats, Ks = cameras(1, W, H, model=model)
    image, _, info = render(g, viewmats, Ks, camera_model=model, backend=backend)
    assert info["radii"].max() <= 0.15 * 29
    for left, right in ((0, 29), (29, W)):
        shifted = Ks.clone()
        shifted[:, 0, 2] -= left
        crop, *_ = render(g, viewmats, shifted, right - left, H, camera_model=model, backend=backend)
        assert_close_outside_band(crop, image[:, :, left:right], band=1e-3)


@pytest.mark.parametrize("tile_size", [4, 8, 16, 32, 100])
def test_tiles_are_invisible(backend, tile_size):
    g = random_gaussians(300)
    viewmats, Ks = cameras(1, W, H)
    image, *_ = render(g, viewmats, Ks, backend=backend)
    other, *_ = render(g, viewmats, Ks, tile_size=tile_size, backend=backend)
    assert_close_outside_band(other, image, atol=2e-6)


# Layouts: packed, batches, cameras, colors, chunks.


@pytest.mark.parametrize("mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
@pytest.mark.parametrize("antialiased", [False, True])
def test_packed_and_dense_are_the_same(backend, mode, antialiased):
    g, viewmats, Ks = random_gaussians(200), *cameras(3, W, H)
    viewmats[2, 2, 3] = -2.0  # sees nothing
    backgrounds = torch.rand(3, 3)
    weights = None
    results = []
    for packed in (True, False):
        leaves = {name: value.clone().requires_grad_() for name, value in g.items()}
        views, behind = viewmats.clone().requires_grad_(), backgrounds.clone().requires_grad_()
        image, alpha, info = render(
            leaves, views, Ks, packed=packed, render_mode=mode, backgrounds=behind, backend=backend,
            rasterize_mode="antialiased" if antialiased else "classic",
        )  # fmt: skip
        weights = torch.randn_like(image) if weights is None else weights
        ((image * weights).sum() + alpha.sum()).backward()
        grads = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
        results.append((image, alpha, {**grads, "viewmats": views.grad}, info))
    (image, alpha, grads, packed_info), (image2, alpha2, grads2, dense_info) = results
    torch.testing.assert_close(image, image2, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(alpha, alpha2, atol=1e-6, rtol=1e-6)
    assert_same_gradients(grads, grads2, least=0.999999)
    batch, camera, gaussian = (packed_info[name] for name in ("batch_ids", "camera_ids", "gaussian_ids"))
    assert not batch.any()
    assert torch.equal(torch.stack([camera, gaussian], -1), torch.nonzero(dense_info["radii"][..., 0] > 0))
    for name in ("radii", "means2d", "depths", "conics", "opacities", "tiles_per_gauss"):
        torch.testing.assert_close(packed_info[name], dense_info[name][camera, gaussian], atol=1e-6, rtol=1e-6)
    assert torch.equal(packed_info["isect_ids"], dense_info["isect_ids"])
    assert torch.equal(packed_info["isect_offsets"], dense_info["isect_offsets"])


def test_info_has_the_entries_and_shapes_of_gsplat(backend):
    g, viewmats, Ks = random_gaussians(40, batch=(2,)), *cameras(3, W, H)
    viewmats, Ks = viewmats.repeat(2, 1, 1, 1), Ks.repeat(2, 1, 1, 1)
    image, alpha, info = render(g, viewmats, Ks, packed=False, backend=backend)
    assert image.shape == (2, 3, H, W, 3)
    assert alpha.shape == (2, 3, H, W, 1)
    shapes = {
        "radii": (2, 3, 40, 2), "means2d": (2, 3, 40, 2), "depths": (2, 3, 40), "conics": (2, 3, 40, 3),
        "opacities": (2, 3, 40), "tiles_per_gauss": (2, 3, 40), "isect_offsets": (2, 3, 3, 4), "last_ids": (2, 3, H, W),
    }  # fmt: skip
    assert {name: tuple(info[name].shape) for name in shapes} == shapes
    assert info["radii"].dtype == info["flatten_ids"].dtype == info["isect_offsets"].dtype == torch.int32
    assert info["isect_ids"].dtype == torch.int64
    numbers = {
        "tile_width": 4,
        "tile_height": 3,
        "width": W,
        "height": H,
        "tile_size": 16,
        "n_batches": 2,
        "n_cameras": 3,
    }
    assert {name: info[name] for name in numbers} == numbers
    assert info["batch_ids"] is info["camera_ids"] is info["gaussian_ids"] is None
    info = render(g, viewmats, Ks, packed=True, backend=backend)[2]
    count = len(info["gaussian_ids"])
    assert info["means2d"].shape == (count, 2)
    assert info["isect_offsets"].shape == (2, 3, 3, 4)
    assert info["flatten_ids"].max() < count


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_is_a_loop(backend, packed):
    batch = (2, 2)
    g = random_gaussians(60, batch=batch)
    viewmats, Ks = cameras(2, W, H)
    viewmats, Ks = viewmats.repeat(2, 2, 1, 1, 1).clone(), Ks.repeat(2, 2, 1, 1, 1)
    viewmats[1, 1, :, 0, 3] += 0.3
    backgrounds = torch.rand(2, 2, 2, 3)
    image, alpha, info = render(g, viewmats, Ks, packed=packed, backgrounds=backgrounds, render_mode="RGB+D", backend=backend)
    for i in range(2):
        for j in range(2):
            scene = {name: value[i, j] for name, value in g.items()}
            one, one_alpha, one_info = render(
                scene,
                viewmats[i, j],
                Ks[i, j],
                packed=packed,
                backgrounds=backgrounds[i, j],
                render_mode="RGB+D",
                backend=backend,
            )
            torch.testing.assert_close(image[i, j], one, atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(alpha[i, j], one_alpha, atol=1e-6, rtol=1e-6)
            if packed:
                mine = info["batch_ids"] == 2 * i + j
                assert torch.equal(info["gaussian_ids"][mine], one_info["gaussian_ids"])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("degree", [None, 2])
def test_colors_may_differ_between_cameras(backend, packed, degree):
    # As many Gaussians as cameras and channels: only the number of axes distinguishes the layouts.
    for count in (3, 80):
        g, viewmats, Ks = random_gaussians(count, size=0.3), *cameras(3, W, H)
        one = torch.rand(count, 3) if degree is None else random_sh(count, degree)
        colors = torch.stack([one, one * 0.5, one * 0.1])
        images, *_ = render({**g, "colors": colors}, viewmats, Ks, sh_degree=degree, packed=packed, backend=backend)
        for c in range(3):
            scene = {**g, "colors": colors[c]}
            want, *_ = render(scene, viewmats[c : c + 1], Ks[c : c + 1], sh_degree=degree, packed=packed, backend=backend)
            torch.testing.assert_close(images[c], want[0], atol=1e-6, rtol=1e-6)


def test_a_lower_active_degree_ignores_the_higher_coefficients(backend):
    g, viewmats, Ks = random_gaussians(100), *cameras(2, W, H)
    sh = random_sh(100, 3)
    low, *_ = render({**g, "colors": sh}, viewmats, Ks, sh_degree=1, backend=backend)
    cut, *_ = render({**g, "colors": sh[:, :4]}, viewmats, Ks, sh_degree=1, backend=backend)
    assert torch.equal(low, cut)


@pytest.mark.parametrize("channels", [1, 5, 32, 40])
def test_channels_and_chunks(backend, channels):
    g, viewmats, Ks = random_gaussians(100), *cameras(2, W, H)
    features, backgrounds = torch.rand(100, channels), torch.rand(2, channels)
    image, alpha, _ = render({**g, "colors": features}, viewmats, Ks, backgrounds=backgrounds, backend=backend)
    assert image.shape == (2, H, W, channels)
    chunked, chunked_alpha, _ = render(
        {**g, "colors": features},
        viewmats,
        Ks,
        backgrounds=backgrounds,
        channel_chunk=3,
        render_mode="RGB+ED",
        backend=backend,
    )
    torch.testing.assert_close(chunked[..., :-1], image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(chunked_alpha, alpha, atol=1e-6, rtol=1e-6)
    depth, *_ = render(g, viewmats, Ks, render_mode="ED", backend=backend)
    torch.testing.assert_close(chunked[..., -1:], depth, atol=1e-5, rtol=1e-5)


# Depth.


def test_depth_of_a_wall_is_its_distance(backend):
    """Discs at the same depth: D is alpha times the distance, ED is the distance, wherever alpha > 0."""
    count = 200
    g = random_gaussians(count)
    g["means"] = torch.cat([3 * torch.rand(count, 2) - 1.5, torch.full((count, 1), 3.0)], -1)
    K = intrinsics(50.0, W, H)
    accumulated, alpha, _ = render(g, torch.eye(4)[None], K, render_mode="D", backend=backend)
    expected, *_ = render(g, torch.eye(4)[None], K, render_mode="RGB+ED", backgrounds=torch.ones(1, 3), backend=backend)
    torch.testing.assert_close(accumulated, 3 * alpha, atol=1e-5, rtol=1e-5)
    seen = alpha[..., 0] > 0
    assert seen.float().mean() > 0.5
    torch.testing.assert_close(expected[..., -1][seen], torch.full_like(expected[..., -1][seen], 3.0), atol=1e-4, rtol=0)
    assert not expected[..., -1][~seen].any()


def test_expected_depth_of_two_layers_is_the_weighted_mean(backend):
    near, far = single(0.2, 0.6, 2.0), single(0.3, 0.9, 3.0)
    g = {name: torch.cat([far[name], near[name]]) for name in INPUTS}
    camera = (torch.eye(4)[None], intrinsics(100.0, 33, 33), 33, 33)
    depth, *_ = render(g, *camera, render_mode="ED", backend=backend)
    weights = (0.6, 0.4 * 0.9)
    assert depth[0, 16, 16, 0].item() == pytest.approx((2 * weights[0] + 3 * weights[1]) / sum(weights), abs=1e-5)


# Gradients.


@pytest.mark.parametrize("packed", [False, True])
def test_means2d_hold_their_gradient_and_absgrad(backend, packed):
    g, viewmats, Ks = random_gaussians(100), *cameras(2, W, H)
    leaves = {name: value.requires_grad_() for name, value in g.items()}
    image, _, info = render(leaves, viewmats, Ks, packed=packed, absgrad=True, backend=backend)
    info["means2d"].retain_grad()
    (image * torch.randn_like(image)).sum().backward()
    grad, absgrad = info["means2d"].grad, info["means2d"].absgrad
    assert grad.shape == absgrad.shape == info["means2d"].shape
    assert (absgrad >= grad.abs() - 1e-4 * (1 + absgrad)).all()
    assert absgrad.sum() > 1.2 * grad.abs().sum()


def test_sparse_gradients_equal_dense_ones(backend):
    g, viewmats, Ks = random_gaussians(200), *cameras(2, W, H)
    g["means"][::3, 0] += 50  # out of view
    sh = random_sh(200, 2)
    found = []
    for sparse in (False, True):
        leaves = {name: value.clone().requires_grad_() for name, value in {**g, "colors": sh}.items()}
        image, alpha, info = render(leaves, viewmats, Ks, sh_degree=2, sparse_grad=sparse, backend=backend)
        (image.square().sum() + alpha.sum()).backward()
        found.append({name: leaf.grad for name, leaf in leaves.items()})
    dense, coo = found
    rows = info["gaussian_ids"].unique()
    assert 0 < len(rows) < 200
    for name in ("means", "quats", "scales"):
        assert coo[name].is_sparse
        assert torch.equal(coo[name].coalesce().indices()[0], rows)
        torch.testing.assert_close(coo[name].to_dense(), dense[name], atol=1e-6, rtol=1e-6)
    assert not coo["opacities"].is_sparse
    torch.optim.SparseAdam([leaves["means"]], lr=0.1).step()


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("with_covars", [False, True])
def test_single_precision_gradients_agree_with_double(backend, model, antialiased, with_covars):
    """Colors, depth and alpha together, each group of inputs separately."""
    viewmats, Ks = cameras(2, W, H, model=model)
    sh = random_sh(250, 3)
    weights, alpha_weights = torch.randn(2, H, W, 4), torch.randn(2, H, W, 1)
    axes = quat_to_rotmat(random_gaussians(250)["quats"]) * random_gaussians(250)["scales"][:, None]

    def gradients(dtype: torch.dtype, backend: str) -> tuple[Tensor, dict[str, Tensor]]:
        leaves = {
            name: value.to(dtype, copy=True).requires_grad_() for name, value in {**random_gaussians(250), "colors": sh}.items()
        }
        leaves["viewmats"] = viewmats.to(dtype, copy=True).requires_grad_()
        leaves["backgrounds"] = torch.tensor([[0.2, 0.4, 0.9]] * 2, dtype=dtype, requires_grad=True)
        if with_covars:
            leaves["covars"] = (axes @ axes.mT).to(dtype).requires_grad_()
        image, alpha, _ = render(
            leaves, leaves["viewmats"], Ks.to(dtype), sh_degree=3, render_mode="RGB+D", camera_model=model,
            backgrounds=leaves["backgrounds"], covars=leaves.get("covars"), backend=backend,
            rasterize_mode="antialiased" if antialiased else "classic",
        )  # fmt: skip
        ((image * weights).sum() + (alpha * alpha_weights).sum()).backward()
        return image, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}

    image, got = gradients(torch.float32, backend)
    want_image, want = gradients(torch.float64, "reference")
    assert set(got) == {
        *(("covars",) if with_covars else ("quats", "scales")),
        "means",
        "opacities",
        "colors",
        "viewmats",
        "backgrounds",
    }
    assert_close_outside_band(image[..., :3], want_image[..., :3], atol=1e-5, band=1e-3)
    assert_same_gradients(got, want)


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_gradients_of_the_rasterizer_equal_finite_differences(model):
    """In double precision with the reference, along random directions in each input separately."""
    g = {**random_gaussians(40, size=0.1, dtype=torch.float64), "colors": random_sh(40, 2, dtype=torch.float64)}
    viewmats, Ks = cameras(1, 24, 20, model=model, dtype=torch.float64)
    inputs = {**g, "viewmats": viewmats, "backgrounds": torch.rand(1, 3, dtype=torch.float64)}
    weights = torch.randn(1, 20, 24, 4, dtype=torch.float64)

    def loss(values: dict[str, Tensor]) -> Tensor:
        image, alpha, _ = render(
            values, values["viewmats"], Ks, 24, 20, sh_degree=2, render_mode="RGB+ED", camera_model=model,
            backgrounds=values["backgrounds"], rasterize_mode="antialiased", backend="reference",
        )  # fmt: skip
        return (image * weights).sum() + alpha.square().sum()

    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    grads = dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values()))))
    for name, value in inputs.items():
        direction = torch.randn_like(value)
        with torch.no_grad():
            # A step of 1e-7 rarely moves an alpha across 1/255, which would be a jump; the median ignores it.
            slopes = []
            for step in (0.7e-7, 1e-7, 1.4e-7):
                ahead, behind = (loss({**inputs, name: value + sign * step * direction}) for sign in (1, -1))
                slopes.append((ahead - behind) / (2 * step))
        want = (grads[name] * direction).sum().item()
        assert torch.stack(slopes).median().item() == pytest.approx(want, rel=1e-5, abs=1e-5), name


# Edge cases.


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGB+ED"])
def test_nothing_to_see_shows_the_background_and_can_be_differentiated(backend, packed, mode):
    background = torch.tensor([[0.1, 0.2, 0.3]])
    viewmats, Ks = cameras(1, W, H)
    for count, shift in ((0, 0.0), (30, 1000.0)):
        g = random_gaussians(30)
        g["means"] += shift
        leaves = {name: value[:count].requires_grad_() for name, value in g.items()}
        image, alpha, info = render(
            leaves, viewmats, Ks, packed=packed, backgrounds=background, render_mode=mode, absgrad=True, backend=backend
        )
        assert torch.equal(image[..., :3], background.expand(1, H, W, 3))
        assert not alpha.any()
        assert info["flatten_ids"].numel() == 0
        (image.sum() + alpha.sum()).backward()
        assert all(leaf.grad is None or not leaf.grad.any() for leaf in leaves.values())


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (16, 16), (17, 15), (300, 2)])
def test_images_of_any_size(backend, width, height):
    g = random_gaussians(60, size=0.2)
    viewmats, Ks = cameras(2, width, height)
    image, alpha, _ = render(g, viewmats, Ks, width, height, backend=backend)
    want, want_alpha, _ = render(
        {k: v.double() for k, v in g.items()}, viewmats.double(), Ks.double(), width, height, backend="reference"
    )
    assert image.shape == (2, height, width, 3)
    assert_close_outside_band(image, want)
    assert_close_outside_band(alpha, want_alpha)


def test_bad_gaussians_do_not_affect_the_others(backend):
    g, viewmats, Ks = random_gaussians(50), *cameras(2, W, H)
    want, *_ = render(g, viewmats, Ks, backend=backend)
    bad = {name: value[:8].clone() for name, value in g.items()}
    values = {"means": (torch.nan, torch.inf), "quats": (torch.nan,), "scales": (torch.nan, torch.inf)}
    values["opacities"] = (torch.nan, torch.inf)
    for i, (name, value) in enumerate((key, bad_value) for key in values for bad_value in values[key]):
        bad[name][i] = value
    bad["means"][7] = torch.tensor([0.0, 0.0, 3e38])
    leaves = {name: torch.cat([bad[name], g[name]]).requires_grad_() for name in INPUTS}
    image, alpha, _ = render(leaves, viewmats, Ks, backend=backend)
    torch.testing.assert_close(image, want, atol=1e-6, rtol=1e-6)
    (image.sum() + alpha.sum()).backward()
    for name in INPUTS:
        assert leaves[name].grad.isfinite().all()
        assert not leaves[name].grad[:8].any()
        assert leaves[name].grad[8:].any()


def test_masks_select_tiles(backend):
    g, viewmats, Ks = random_gaussians(100), *cameras(2, W, H)
    masks = torch.rand(2, 3, 4) > 0.5
    whole, *_ = render(g, viewmats, Ks, backend=backend)
    image, alpha, _ = render(g, viewmats, Ks, masks=masks, backend=backend)
    shown = masks.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :H, :W]
    assert torch.equal(image[shown], whole[shown])
    assert not alpha[~shown].any()


def test_autocast_does_not_lower_the_precision(backend):
    g, viewmats, Ks = random_gaussians(50), *cameras(1, W, H)
    want, *_ = render(g, viewmats, Ks, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        image, *_ = render(g, viewmats, Ks, backend=backend)
    assert torch.equal(image, want)


@pytest.mark.gpu
def test_gsplat_renders_the_same(backend):
    pytest.importorskip("gsplat")
    g = {name: value.cuda() for name, value in random_gaussians(500).items()}
    viewmats, Ks = (tensor.cuda() for tensor in cameras(2, W, H))
    image, alpha, info = render(g, viewmats, Ks, alpha_max=0.999, backend="reference")
    other, other_alpha, other_info = render(g, viewmats, Ks, backend="gsplat")
    assert_close_outside_band(other, image, atol=2e-4, band=1e-3)
    assert_close_outside_band(other_alpha, alpha, atol=2e-4, band=1e-3)
    assert set(other_info) <= set(info)
