"""Calls written for gsplat 1.6: `tile_size=None`, no colors for depths, tiles of any size, and the options that it added."""

import pytest
import torch

from tests.support.gaussians import cameras, random_gaussians
from vision3d import rasterize, rasterize_2dgs
from vision3d.core.errors import BackendError, InputError, ShapeError
from vision3d.core.op_checks import Signature
from vision3d.geometry import se3
from vision3d.render.splats import kernels
from vision3d.render.splats.records import Grid, Projected2dgs

W, H = 40, 30


def call(function=rasterize, **changes):
    viewmats, Ks = cameras(2, W, H, model=changes.get("camera_model", "pinhole"))
    return function(**{**random_gaussians(60), "viewmats": viewmats, "Ks": Ks, "width": W, "height": H, **changes})


@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
def test_a_tile_size_of_none_is_the_default(backend, function):
    *_, info = call(function, tile_size=None, backend=backend)
    *_, usual = call(function, tile_size=16, backend=backend)
    assert info["tile_size"] == 16
    assert torch.equal(info["isect_ids"], usual["isect_ids"])


@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
@pytest.mark.parametrize("mode", ["D", "ED"])
def test_depths_need_no_colors(backend, function, mode):
    depth, *_ = call(function, colors=None, render_mode=mode, backend=backend)
    usual, *_ = call(function, render_mode=mode, backend=backend)
    assert depth.shape == (2, H, W, 1)
    assert torch.equal(depth, usual)
    # A degree or a background for colors that are not there changes nothing.
    other, *_ = call(function, colors=None, sh_degree=3, backgrounds=torch.ones(2, 3), render_mode=mode, backend=backend)
    assert torch.equal(other, usual)


@pytest.mark.wrong_types
@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
@pytest.mark.parametrize("mode", ["RGB", "RGB+ED"])
def test_colors_need_colors(function, mode):
    with pytest.raises(ShapeError, match=r"colors: got None, want a torch\.Tensor; only render_mode D and ED need none"):
        call(function, colors=None, render_mode=mode)


@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
@pytest.mark.parametrize("tile_size", [1, 5, 12, 33, 10**6])
def test_tiles_of_any_size(backend, function, tile_size):
    image, *_, info = call(function, tile_size=tile_size, backend=backend)
    usual, *_ = call(function, backend=backend)
    torch.testing.assert_close(image, usual, atol=2e-6, rtol=0)
    used = info["tile_size"]
    assert used == (tile_size if backend == "reference" else min((4, 8, 16), key=lambda size: abs(size - tile_size)))
    assert info["isect_offsets"].shape == (2, -(-H // used), -(-W // used)) == (2, info["tile_height"], info["tile_width"])


def test_masks_are_of_the_tiles_asked_for():
    masks = torch.ones(2, 3, 4, dtype=torch.bool)
    with pytest.raises(BackendError, match="tile_size: got 12, the native kernels take 4, 8 or 16"):
        call(tile_size=12, masks=masks, backend="native")
    call(tile_size=12, masks=masks, backend="reference")


def test_an_orthographic_camera_sees_what_is_behind_its_center(backend):
    """Depth has no scale in an orthographic image: moving the camera along its axis changes nothing but the depths."""
    g = random_gaussians(60)
    viewmats, Ks = cameras(2, W, H, model="ortho")
    outputs = {}
    for shift in (0.0, -4.0):  # the second camera is in the middle of the Gaussians
        moved = viewmats.clone()
        moved[:, 2, 3] += shift
        outputs[shift] = rasterize(
            **g, viewmats=moved, Ks=Ks, width=W, height=H, near_plane=-10.0, camera_model="ortho", render_mode="RGB+D",
            backend=backend,
        )  # fmt: skip
    (image, alphas, info), (other, _, shifted) = outputs[0.0], outputs[-4.0]
    assert shifted["depths"].min() < -0.5 and shifted["depths"].max() > 0.5
    torch.testing.assert_close(other[..., :3], image[..., :3], atol=1e-5, rtol=0)
    torch.testing.assert_close(other[..., 3:], image[..., 3:] - 4.0 * alphas, atol=1e-4, rtol=0)
    torch.testing.assert_close(shifted["depths"], info["depths"] - 4.0)


@pytest.mark.parametrize("model", ["pinhole", "fisheye"])
def test_other_cameras_need_a_positive_near_plane(model):
    with pytest.raises(InputError, match=r"near_plane, far_plane: got -1\.0, .* want 0 < near_plane < far_plane"):
        call(near_plane=-1.0, camera_model=model)
    with pytest.raises(InputError, match=r"got 2\.0, 2\.0, want near_plane < far_plane"):
        call(near_plane=2.0, far_plane=2.0, camera_model="ortho")


NEWER = [
    ("return_normals", True, "rasterize_2dgs"),
    ("global_z_order", False, "depth along the camera's z"),
    ("rays", torch.zeros(2, H, W, 6), "viewmats and Ks"),
    ("lidar_coeffs", object(), "vision3d.render.lidar"),
    ("external_distortion_coeffs", object(), "undistort the photos first"),
    ("ut_params", object(), "with_ut=False"),
    ("extra_signals", torch.zeros(60, 2), "append them to colors"),
    ("extra_signals_sh_degree", 3, "append them to colors"),
    ("renderer_config", object(), "leave it out"),
]


@pytest.mark.parametrize(("option", "value", "advice"), NEWER)
def test_newer_options_are_rejected_with_advice(option, value, advice):
    with pytest.raises(BackendError, match=rf"^{option}: is not supported by this rasterizer; .*{advice}"):
        call(**{option: value})


def test_defaults_of_newer_options_are_accepted():
    image, *_ = call(return_normals=False, global_z_order=True, rays=None, ut_params=None, extra_signals=None)
    assert torch.equal(image, call()[0])


@pytest.mark.parametrize("mode", ["d", "Ed", "RGB-d", "RGB-Ed"])
def test_hit_distances_are_rejected_with_advice(mode):
    with pytest.raises(BackendError, match=f"render_mode: {mode} .distance along the ray. is not supported; use "):
        call(render_mode=mode)


@pytest.mark.wrong_types
@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds"])
def test_sparse_tensors_are_named(function, name):
    dense = {**random_gaussians(60), **dict(zip(("viewmats", "Ks"), cameras(2, W, H))), "backgrounds": torch.ones(2, 3)}
    with pytest.raises(ShapeError, match=rf"{name}: got torch\.sparse_coo, want a dense tensor"):
        call(function, **{name: dense[name].to_sparse()})


def test_sparse_arguments_of_geometry_are_named():
    with pytest.raises(ShapeError, match=r"tangents: got torch\.sparse_coo, want a dense tensor"):
        se3.exp(torch.ones(4, 6).to_sparse())


def test_sparse_arguments_of_operations_are_named():
    signature = Signature("points: float n 3, ids: int64? n")
    points = torch.ones(4, 3)
    with pytest.raises(ShapeError, match=r"points: got torch\.sparse_coo, want a dense tensor"):
        signature.check(points.to_sparse())
    with pytest.raises(ShapeError, match=r"ids: got torch\.sparse_coo, want a dense tensor"):
        signature.check(points, torch.arange(4).to_sparse())


@pytest.mark.slow
def test_too_many_intersections(backend):
    """Each Gaussian covers all 2^24 tiles."""
    count = 130
    grid = Grid(1, 4096, 4096, 1)
    projected = Projected2dgs(
        torch.full((count, 2), 4096, dtype=torch.int32), torch.full((count, 2), 2048.0), torch.ones(count),
        torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 3),
    )  # fmt: skip
    with pytest.raises(BackendError, match=r"tile intersections.*: the Gaussians are too large"):
        kernels.kernels(backend).intersect(projected, torch.ones(count), torch.zeros(count, dtype=torch.int64), grid)
