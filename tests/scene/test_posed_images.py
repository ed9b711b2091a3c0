import math
from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError, ShapeError
from vision3d.geometry.cameras import camera_rays, pixel_grid
from vision3d.geometry.distortion import undistorted_K
from vision3d.io.images import write_image
from vision3d.scene import Cameras, PosedImages


def pattern(rays):
    """A smooth color for each direction."""
    x, y = rays[..., 0] / rays[..., 2], rays[..., 1] / rays[..., 2]
    return 0.5 + 0.4 * torch.stack([torch.sin(5 * x), torch.cos(4 * y), torch.sin(3 * x * y)], -1)


def make(tmp_path, cameras, suffix=".png", **changes):
    """Photos of the pattern, taken through the cameras' own lens."""
    paths = []
    for i, camera in enumerate(cameras):
        width, height = int(camera.width), int(camera.height)
        _, rays = camera_rays(torch.eye(4), camera.Ks[0], width, height, camera.model, _first(camera.distortion))
        paths.append(tmp_path / f"{i}{suffix}")
        write_image(paths[-1], pattern(rays))
    Ks = cameras.Ks
    if cameras.distortion is not None:
        Ks = torch.stack([undistorted_K(c.Ks[0], c.distortion[0], int(c.width), int(c.height), c.model) for c in cameras])
    pinholes = replace(cameras, Ks=Ks, model="pinhole", distortion=None)
    is_test = torch.zeros(len(cameras), dtype=torch.bool)
    is_test[0] = True
    return PosedImages(pinholes, tuple(paths), is_test, raw_cameras=cameras, source=tmp_path, **changes)


def _first(value):
    return None if value is None else value[0]


LENSES = [
    ("pinhole", [0.3, -0.2, -0.001, 0.0002]),
    ("pinhole", [-0.25, 0.06, 0.001, -0.002]),
    ("pinhole", [0.2, 0.1, 0.001, 0.002, 0.01, 0.1, 0.05, 0.01]),
    ("fisheye", [0.02, -0.01, 0.003, -0.001]),
]


@pytest.mark.parametrize("model, coeffs", LENSES)
def test_undistorted_images_match_a_pinhole_camera(cameras, tmp_path, model, coeffs):
    raw = replace(cameras.resized(128, 96), model=model, distortion=torch.tensor(coeffs).repeat(3, 1))
    images = make(tmp_path, raw)
    for i in range(3):
        image, mask, camera = images.read(i)
        assert mask is None and camera.distortion is None and camera.model == "pinhole"
        _, rays = camera_rays(torch.eye(4), camera.Ks[0], 128, 96)
        error = (image - pattern(rays)).abs()
        assert error.mean() < 1.5e-3 and error.max() < 0.02  # 8 bits and cubic interpolation
    raw_error = (replace(images, raw_cameras=None).read(0)[0] - pattern(rays)).abs()
    assert raw_error.mean() > 2 * error.mean()


def test_undistorting_and_downscaling_at_once(cameras, tmp_path):
    raw = replace(cameras.resized(128, 96), distortion=torch.tensor(LENSES[0][1]).repeat(3, 1))
    images = make(tmp_path, raw)
    image, _, camera = images.read(1, downscale=4)
    assert image.shape == (24, 32, 3) and camera.width == 32
    _, rays = camera_rays(torch.eye(4), camera.Ks[0], 32, 24)
    assert (image - pattern(rays)).abs().mean() < 0.01
    small = replace(images, cameras=images.cameras.resized(32, 24))
    torch.testing.assert_close(small.read(1)[0], image)


def test_masks_are_undistorted_like_their_images(cameras, tmp_path):
    raw = replace(cameras.resized(128, 96), distortion=torch.tensor(LENSES[1][1]).repeat(3, 1))
    images = make(tmp_path, raw)
    _, rays = camera_rays(torch.eye(4), raw.Ks[0], 128, 96, "pinhole", raw.distortion[0])
    write_image(tmp_path / "mask.png", pattern(rays)[..., 0] > 0.5)
    images = replace(images, mask_paths=(None, tmp_path / "mask.png", None))
    _, mask, camera = images.read(1)
    _, rays = camera_rays(torch.eye(4), camera.Ks[0], 128, 96)
    assert (mask == (pattern(rays)[..., 0] > 0.5)).float().mean() > 0.99
    assert images.read(0)[1] is None
    write_image(tmp_path / "mask.png", torch.ones(96, 100))
    with pytest.raises(FileFormatError, match=r"mask\.png: view 1 \(b\.png\): mask has 100x96 px, its image 128x96"):
        images.read(1)


def test_split_and_subset(cameras, tmp_path):
    images = make(tmp_path, cameras, points=torch.randn(4, 3))
    assert images.test.tolist() == [0] and images.train.tolist() == [1, 2] and len(images) == 3
    part = images.subset(images.train)
    assert part.names == ("b.png", "c.png") and part.test.tolist() == [] and len(part.points) == 4
    torch.testing.assert_close(part.read(0)[0], images.read(1)[0])
    with pytest.raises(InputError, match="all 3 views are held out"):
        replace(images, is_test=torch.ones(3, dtype=torch.bool)).validate()


def test_an_image_of_another_size_is_rejected(cameras, tmp_path):
    images = make(tmp_path, cameras)
    write_image(images.image_paths[1], torch.zeros(48, 65, 3))
    with pytest.raises(InputError, match=r"1\.png: has 65x48 px, its camera 64x48"):
        images.read(1)


@pytest.mark.parametrize("downscale", [0, -1.0, float("nan")])
def test_downscale_is_positive(cameras, tmp_path, downscale):
    with pytest.raises(InputError, match=f"downscale: got {downscale}, want a number > 0"):
        make(tmp_path, cameras).read(0, downscale)


def test_wrong_shapes_are_rejected_on_construction(cameras, tmp_path):
    images = make(tmp_path, cameras)
    with pytest.raises(ShapeError, match="image_paths: got 1 paths, want 3, one per camera"):
        replace(images, image_paths=images.image_paths[:1])
    with pytest.raises(ShapeError, match=r"is_test: got dtype torch.float32, want dtype torch.bool"):
        replace(images, is_test=torch.zeros(3))
    with pytest.raises(InputError, match="colors without points"):
        replace(images, point_colors=torch.rand(3, 3))
    with pytest.raises(ShapeError, match=r"point_colors: got shape \(3, 3\), want shape \(4, 3\)"):
        replace(images, points=torch.rand(4, 3), point_colors=torch.rand(3, 3))
    with pytest.raises(InputError, match="PosedImages: points is not finite in 1 of 4 rows"):
        replace(images, points=torch.tensor([[math.nan, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])).validate()


def test_reprs_show_the_images(cameras, tmp_path):
    images = make(tmp_path, cameras)
    assert "3 views, 1 held out, no points" in repr(images)
    html = images._repr_html_()
    assert html.count("<img src='data:image/png;base64,") == 3 and "64x48" in html
    images.image_paths[0].unlink()
    assert images._repr_html_().count("<img") == 2


def test_load_needs_photos(cameras, tmp_path):
    cameras.save(tmp_path / "cameras.json")
    with pytest.raises(InputError, match=r"cameras\.json: holds cameras, want posed photos"):
        PosedImages.load(tmp_path / "cameras.json")
    assert isinstance(Cameras.load(tmp_path / "cameras.json"), Cameras)


def test_pixel_grid_agrees_with_the_pixel_centers():
    assert pixel_grid(3, 2)[1, 2].tolist() == [2.5, 1.5]
