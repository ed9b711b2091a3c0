import dataclasses
import math

import pytest
import torch

from tests.support.gaussians import cameras as make_cameras, random_gaussians, random_sh
from vision3d import rasterize, render_views
from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.cameras import pixel_grid, pixel_rays
from vision3d.render import blending_weights, depth_to_normals, depth_to_rgb, normals_to_rgb
from vision3d.scene import Cameras, GaussianScene


def scene(mode: str = "3dgs", antialiased: bool = False, count: int = 120) -> GaussianScene:
    g = random_gaussians(count, size=0.1)
    logits = torch.logit(g["opacities"])
    return GaussianScene(g["means"], g["quats"], g["scales"].log(), logits, random_sh(count, 2), mode, antialiased)


def views(model: str = "pinhole", sizes: tuple[tuple[int, int], ...] = ((40, 30), (33, 50), (40, 30))) -> Cameras:
    parts = [make_cameras(len(sizes), w, h, model=model) for w, h in sizes]
    viewmats, Ks = (torch.stack([part[which][i] for i, part in enumerate(parts)]) for which in range(2))
    return Cameras(viewmats, Ks, torch.tensor([w for w, _ in sizes]), torch.tensor([h for _, h in sizes]), model)


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
@pytest.mark.parametrize("antialiased", [False, True])
def test_each_view_equals_rasterize(backend, model, antialiased):
    s, cameras = scene(antialiased=antialiased), views(model)
    background = (0.2, 0.5, 0.1)
    found = list(render_views(s, cameras, backgrounds=background, render_mode="RGB+ED", backend=backend))
    assert [tuple(view.image.shape) for view in found] == [(30, 40, 3), (50, 33, 3), (30, 40, 3)]
    for i, view in enumerate(found):
        width, height = int(cameras.width[i]), int(cameras.height[i])
        image, alpha, _ = rasterize(
            s.means, s.quats, s.scales, s.opacities, s.sh, cameras.viewmats[i : i + 1], cameras.Ks[i : i + 1], width,
            height, sh_degree=2, backgrounds=torch.tensor([background]), render_mode="RGB+ED", camera_model=model,
            backend=backend, rasterize_mode="antialiased" if antialiased else "classic",
        )  # fmt: skip
        assert torch.equal(torch.cat([view.image, view.depth[..., None]], -1), image[0])
        assert torch.equal(view.alpha, alpha[0, ..., 0])
        assert view.normal.shape == (height, width, 3)


@pytest.mark.parametrize("mode", ["3dgs", "2dgs", "flat"])
@pytest.mark.parametrize("render_mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_outputs_of_each_mode(backend, mode, render_mode):
    view = next(iter(render_views(scene(mode), views(), render_mode=render_mode, backend=backend)))
    assert (view.image is None) == (render_mode in ("D", "ED"))
    assert (view.depth is None) == (render_mode == "RGB")
    assert (view.normal is None) == (mode != "2dgs" and not render_mode.endswith("ED"))
    assert view.alpha.shape == (30, 40)
    assert view.alpha.max() > 0.5
    if view.image is not None:
        assert view.image.shape == (30, 40, 3)
    if view.depth is not None:
        assert view.depth.max() > 2.5


def test_flat_scenes_are_3d_gaussians_without_thickness(backend):
    s = scene("flat")
    s.log_scales[:, 2] = math.log(1e-8)
    view = next(iter(render_views(s, views(), backend=backend)))
    # 2D Gaussians with the same axes look similar where they are larger than a pixel.
    flat = GaussianScene(s.means, s.quats, s.log_scales, s.opacity_logits, s.sh, "2dgs")
    other = next(iter(render_views(flat, views(), backend=backend)))
    assert (view.image - other.image).abs().mean() < 0.05
    assert view.image.std() > 0.1


def test_backgrounds_degrees_and_features(backend):
    s, cameras = scene(), views()
    black = [view.image for view in render_views(s, cameras, backend=backend)]
    each = torch.rand(3, 3)
    for i, view in enumerate(render_views(s, cameras, backgrounds=each, backend=backend)):
        torch.testing.assert_close(view.image, black[i] + (1 - view.alpha[..., None]) * each[i], atol=1e-5, rtol=1e-5)
    plain = next(iter(render_views(s, cameras, sh_degree=0, backend=backend))).image
    assert (plain - black[0]).abs().max() > 0.01
    assert torch.equal(next(iter(render_views(s, cameras, sh_degree=4, backend=backend))).image, black[0])
    features = torch.rand(120, 7)
    assert next(iter(render_views(s, cameras, features=features, backend=backend))).image.shape == (30, 40, 7)


def test_views_can_be_differentiated(backend):
    s = scene()
    s.sh.requires_grad_()
    next(iter(render_views(s, views(), backend=backend))).image.sum().backward()
    assert s.sh.grad.any()


def test_invalid_input_is_rejected_before_the_first_view(backend):
    cameras = views()
    bent = Cameras(cameras.viewmats, cameras.Ks, cameras.width, cameras.height, distortion=torch.zeros(3, 4))
    with pytest.raises(InputError, match="cameras: have lens distortion"):
        render_views(scene(), bent, backend=backend)
    with pytest.raises(InputError, match="cameras: got model fisheye; scenes of mode 2dgs"):
        render_views(scene("2dgs"), views("fisheye"), backend=backend)
    with pytest.raises(InputError, match="render_mode: got 'depth'"):
        render_views(scene(), cameras, render_mode="depth", backend=backend)
    with pytest.raises(ShapeError, match=r"backgrounds: got shape \(2, 3\), want \(D,\) or \(3, D\)"):
        render_views(scene(), cameras, backgrounds=torch.rand(2, 3), backend=backend)


# Maps.


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_normals_of_a_planes_depth_are_its_normal(model):
    viewmats, Ks = make_cameras(2, 40, 30, model=model, dtype=torch.float64)
    normal = torch.nn.functional.normalize(torch.tensor([0.2, -0.3, -1.0], dtype=torch.float64), dim=0)
    pixels = pixel_grid(40, 30, torch.float64).flatten(0, 1).expand(2, -1, 2)
    origins, directions = pixel_rays(pixels, Ks, model)
    distance = (-3 - origins @ normal) / (directions @ normal)
    depths = (origins + distance[..., None] * directions)[..., 2].unflatten(-1, (30, 40))
    got = depth_to_normals(depths, viewmats, Ks, model)
    want = (normal @ viewmats[:, :3, :3])[:, None, None]
    torch.testing.assert_close(got[:, 1:-1, 1:-1], want.expand(2, 28, 38, 3), atol=1e-9, rtol=0)
    assert not got[:, 0].any()
    assert not got[:, :, -1].any()


def test_depth_maps_too_small_for_normals_have_none():
    viewmats, Ks = make_cameras(1, 2, 2)
    assert not depth_to_normals(torch.ones(1, 2, 2), viewmats, Ks).any()


def test_depth_colors_go_from_light_to_dark_and_never_to_black():
    depth = torch.linspace(1, 10, 101)[None]
    rgb = depth_to_rgb(depth, near=1.0, far=10.0)
    lightness = rgb @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (lightness[0].diff() < 0).all()
    assert (rgb >= 0).all()
    assert (rgb <= 1).all()
    # Uniform in 1 / depth: the middle of the ramp is halfway in inverse depth.
    middle = depth_to_rgb(torch.tensor([[2 / (1 / 1 + 1 / 10)]]), near=1.0, far=10.0)
    torch.testing.assert_close(middle, torch.tensor([[[0.13, 0.57, 0.57]]]), atol=0.01, rtol=0)
    holes = depth_to_rgb(torch.tensor([[0.0, torch.nan, torch.inf, 2.0]]))
    assert not holes[0, :3].any()
    assert holes[0, 3].any()
    faded = depth_to_rgb(torch.tensor([[2.0, 2.0]]), torch.tensor([[1.0, 0.3]]), near=1.0, far=3.0)
    torch.testing.assert_close(faded[0, 1], 0.3 * faded[0, 0])
    assert not depth_to_rgb(torch.zeros(3, 4)).any()
    with pytest.raises(InputError, match="near, far: got 5, 2, want 0 < near < far"):
        depth_to_rgb(depth, near=5.0, far=2.0)


def test_normal_colors():
    up = torch.tensor([0.0, -1.0, 0.0])  # in camera axes y points down
    normals = torch.stack([up, 0.5 * up, torch.zeros(3)])[None]
    rgb = normals_to_rgb(normals, torch.eye(4))
    torch.testing.assert_close(rgb[0], torch.tensor([[0.5, 1.0, 0.5], [0.25, 0.5, 0.25], [0, 0, 0]]))
    torch.testing.assert_close(normals_to_rgb(normals)[0, 0], torch.tensor([0.5, 0.0, 0.5]))
    toward = normals_to_rgb(torch.tensor([[[0.0, 0, -1.0]]]), torch.eye(4))
    torch.testing.assert_close(toward[0, 0], torch.tensor([0.5, 0.5, 1.0]))


@pytest.mark.parametrize("mode", ["3dgs", "2dgs", "flat"])
def test_blending_weights_sum_to_the_alphas(mode):
    s, cameras = scene(mode), views()
    weights = blending_weights(s, cameras)
    alphas = sum(float(view.alpha.double().sum()) for view in render_views(s, cameras))
    assert float(weights.double().sum()) == pytest.approx(alphas, rel=1e-5)
    assert weights.min() >= 0


def test_blending_weights_equal_the_change_on_removal():
    s, cameras = scene(count=20), views()
    weights = blending_weights(s, cameras)
    row = int(weights.argmax())
    features = torch.zeros(len(s), 1)
    features[row] = 1
    alone = sum(float(view.image.double().sum()) for view in render_views(s, cameras, features=features))
    assert float(weights[row]) == pytest.approx(alone, rel=1e-5)


def test_invisible_gaussians_have_zero_weight():
    s, cameras = scene(count=20), views()
    means = s.means.clone()
    means[3] = torch.tensor([0.0, 0.0, -1e4])
    assert blending_weights(dataclasses.replace(s, means=means), cameras)[3] == 0
