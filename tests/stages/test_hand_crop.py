"""Crops of hands: the identity of pixels and points, rotations, mirrors, and images."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.cameras import pixel_grid, project
from vision3d.stages.hand.crop import (
    Crop,
    apply_homography,
    flip_points,
    flip_uv,
    perspective_crop,
    square_crop,
    warp,
)
from vision3d.stages.hand.intrinsics import field_of_view_Ks

KINDS = pytest.mark.parametrize("make", [perspective_crop, square_crop])


def boxes(count: int, dtype=torch.float64):
    """Random boxes in images of 640 x 480 pixels, the first in the middle."""
    random = torch.rand(count, 8, dtype=dtype)
    Ks = torch.zeros(count, 3, 3, dtype=dtype)
    Ks[:, 0, 0] = 350 + 700 * random[:, 0]
    Ks[:, 1, 1] = Ks[:, 0, 0] * (0.9 + 0.2 * random[:, 1])
    Ks[:, 0, 1] = 10 * random[:, 2]
    Ks[:, :2, 2], Ks[:, 2, 2] = torch.tensor([320.0, 240.0], dtype=dtype), 1
    centers = torch.tensor([640.0, 480.0], dtype=dtype) * random[:, 3:5]
    centers[: count // 10] = torch.tensor([320.0, 240.0], dtype=dtype)  # the camera is not turned
    angles = 2 * math.pi * (random[:, 5] - 0.5)
    angles[::4] = math.pi / 2 * torch.arange(len(angles[::4]), dtype=dtype).remainder(4)
    return centers, 20 + 300 * random[:, 6], Ks, angles


def points_in(centers, sides, Ks):
    """Points in front of the camera, seen within the boxes."""
    pixels = centers[:, None] + sides[:, None, None] * (torch.rand(len(centers), 12, 2, dtype=centers.dtype) - 0.5)
    rays = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1) @ torch.linalg.inv(Ks).mT
    return rays * (0.3 + torch.rand_like(rays[..., :1]))


@KINDS
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 2e-2)])
def test_identity_of_pixels_and_points(make, dtype, limit):
    centers, sides, Ks, angles = boxes(10_000, dtype)
    crop = make(centers, sides, Ks, 224, angles)
    points = points_in(centers, sides, Ks)
    want = crop.to_crop(project(points, Ks))
    errors = (project(crop.to_crop_camera(points), crop.Ks) - want).abs()
    assert float(errors.max()) < limit and float(errors.median()) < 1e-3
    assert float((want - 112).abs().max()) < 224  # within the crop or near it
    torch.testing.assert_close(crop.to_image(want), project(points, Ks), rtol=1e-5, atol=limit)
    torch.testing.assert_close(crop.to_image_camera(crop.to_crop_camera(points)), points)
    mirrored = crop.mirrored()
    errors = project(mirrored.to_crop_camera(points), mirrored.Ks) - mirrored.to_crop(project(points, Ks))
    assert float(errors.abs().max()) < limit


def test_camera_of_a_perspective_crop():
    centers, sides, Ks, angles = boxes(500)
    crop = perspective_crop(centers, sides, Ks, 160, angles)
    eye = torch.eye(3, dtype=torch.float64).expand(500, 3, 3)
    torch.testing.assert_close(crop.camera_maps @ crop.camera_maps.mT, eye)
    torch.testing.assert_close(torch.linalg.det(crop.camera_maps), torch.ones(500).double())
    torch.testing.assert_close(crop.to_crop(centers[:, None])[:, 0], torch.full((500, 2), 80.0).double())
    torch.testing.assert_close(crop.Ks[:, 0, 0], crop.Ks[:, 1, 1])
    # The box touches the crop's size along one axis, up to rotation.
    upright = perspective_crop(centers, sides, Ks, 160)
    corners = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]]).double() / 2 * sides[:, None, None] + centers[:, None]
    seen = upright.to_crop(corners)
    torch.testing.assert_close((seen.amax(1) - seen.amin(1)).amax(1), torch.full((500,), 160.0).double())


def test_a_box_in_the_middle_is_only_scaled():
    K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])[None]
    crop = perspective_crop(torch.tensor([[320.0, 240.0]]), torch.tensor([100.0]), K, 200)
    torch.testing.assert_close(crop.camera_maps[0], torch.eye(3))
    torch.testing.assert_close(crop.Ks[0], torch.tensor([[1000.0, 0, 100], [0, 1000, 100], [0, 0, 1]]))
    plain = square_crop(torch.tensor([[320.0, 240.0]]), torch.tensor([100.0]), K, 200)
    torch.testing.assert_close(plain.homographies, crop.homographies)


@KINDS
def test_angles_are_radians_from_right_to_down(make):
    K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])[None]
    right = torch.tensor([[[370.0, 240.0]]])
    for angle, want in ((0, (200, 100)), (math.pi / 2, (100, 200)), (math.pi, (0, 100)), (-math.pi / 2, (100, 0))):
        crop = make(torch.tensor([[320.0, 240.0]]), torch.tensor([100.0]), K, 200, torch.tensor([angle]))
        assert crop.to_crop(right)[0, 0].tolist() == pytest.approx(want, abs=1e-3)
    degrees = make(torch.tensor([[320.0, 240.0]]), torch.tensor([100.0]), K, 200, torch.tensor([90.0]))
    turned = degrees.to_crop(right)[0, 0] - 100
    assert math.atan2(turned[1], turned[0]) == pytest.approx(math.remainder(90, 2 * math.pi), abs=1e-4)


@given(st.floats(0, 640), st.floats(0, 480), st.floats(5, 400), st.floats(-4, 4), st.booleans())
def test_mirrored_twice_is_the_same(x, y, side, angle, has_perspective):
    make = perspective_crop if has_perspective else square_crop
    K = field_of_view_Ks(640, 480).double()[None]
    crop = make(torch.tensor([[x, y]]).double(), torch.tensor([side]).double(), K, 96, torch.tensor([angle]).double())
    for name in ("homographies", "camera_maps", "Ks"):
        torch.testing.assert_close(getattr(crop.mirrored().mirrored(), name), getattr(crop, name))
    assert float(torch.linalg.det(crop.mirrored().camera_maps)) == pytest.approx(-1)
    pixels = torch.rand(1, 5, 2).double() * 400
    torch.testing.assert_close(crop.mirrored().to_crop(pixels) / 96, flip_uv(crop.to_crop(pixels) / 96))


def test_flips():
    uv, points, images = torch.rand(4, 21, 2), torch.randn(4, 21, 3), torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(flip_uv(flip_uv(uv)), uv)
    assert torch.equal(flip_points(flip_points(points)), points) and torch.equal(images.flip(-1).flip(-1), images)
    K = torch.tensor([[1.2, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]).expand(4, 3, 3)
    points = points + torch.tensor([0.0, 0, 9])
    torch.testing.assert_close(project(flip_points(points), K), flip_uv(project(points, K)))


# Images


def picture(height: int = 60, width: int = 80) -> torch.Tensor:
    """A smooth image: red grows to the right, green downwards, blue with both."""
    x, y = pixel_grid(width, height).unbind(-1)
    return torch.stack([x / width, y / height, x * y / width / height], -1)


def plain(x, y, side, size, angle=0.0, **options) -> Crop:
    K = field_of_view_Ks(80, 60)[None]
    return square_crop(torch.tensor([[float(x), float(y)]]), torch.tensor([float(side)]), K, size, torch.tensor([angle]))


def test_a_crop_of_whole_pixels_is_a_part_of_the_image():
    image = torch.rand(60, 80, 3)
    torch.testing.assert_close(warp(image, plain(30, 25, 20, 20))[0], image[15:35, 20:40].permute(2, 0, 1), rtol=0, atol=1e-5)
    mirrored = warp(image, plain(30, 25, 20, 20).mirrored())[0]
    torch.testing.assert_close(mirrored, image[15:35, 20:40].permute(2, 0, 1).flip(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_crop_turned_by_right_angles(turns):
    image = torch.rand(60, 80, 3)
    got = warp(image, plain(30, 25, 20, 20, turns * math.pi / 2))[0]
    # A positive angle turns the image clockwise, rot90 counterclockwise.
    torch.testing.assert_close(got, image[15:35, 20:40].permute(2, 0, 1).rot90(-turns, (1, 2)), rtol=0, atol=1e-4)


def test_a_smaller_crop_is_a_mean_of_pixels():
    image = torch.rand(60, 80, 3)
    got = warp(image, plain(30, 25, 40, 10))[0]
    want = torch.nn.functional.avg_pool2d(image[5:45, 10:50].permute(2, 0, 1), 4)
    assert (
        float((got - want).abs().max()) < 0.3 and float((got - want).abs().mean()) < 0.06
    )  # blocks are not aligned with the box
    got = warp(image, plain(28, 24, 40, 10))[0]
    want = torch.nn.functional.avg_pool2d(image[4:44, 8:48].permute(2, 0, 1), 4)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@KINDS
@pytest.mark.parametrize("size", [7, 24, 90])
@pytest.mark.parametrize("side", [15, 40])
def test_colors_are_those_of_the_places(make, size, side):
    K = field_of_view_Ks(80, 60).double()[None]
    center, angle = torch.tensor([[42.0, 31.0]]).double(), torch.tensor([0.4]).double()
    crop = make(center, torch.tensor([float(side)]).double(), K, size, angle)
    places = crop.to_image(pixel_grid(size, size, torch.float64).flatten(0, 1)[None])[0]
    got = warp(picture(), crop)[0].flatten(1).T
    inside = ((places > 3) & (places < torch.tensor([77.0, 57.0]))).all(1)
    want = places / torch.tensor([80.0, 60.0])
    assert int(inside.sum()) > size * size // 2
    torch.testing.assert_close(got[inside, :2], want[inside].float(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("side", [150, 200, 276, 400])
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_large_blocks_are_where_they_belong(side, angle):
    """Of a linear image every mean is the value in the middle."""
    K = field_of_view_Ks(800, 600).double()[None]
    at = torch.tensor([[391.3, 297.8]]).double(), torch.tensor([float(side)]).double()
    crop = square_crop(*at, K, 24, torch.tensor([angle]).double())
    want = crop.to_image(pixel_grid(24, 24, torch.float64).flatten(0, 1)[None])[0] / torch.tensor([800, 600])
    got = warp(picture(600, 800), crop)[0].flatten(1).T
    torch.testing.assert_close(got[:, :2], want.float(), rtol=0, atol=1e-5)


def test_types_of_images_and_the_border():
    image = (torch.rand(60, 80, 3) * 255).to(torch.uint8)
    crop = plain(0, 0, 20, 20)
    got = warp(image, crop, fill=0.25)[0]
    torch.testing.assert_close(got[:, 10:, 10:], image[:10, :10].permute(2, 0, 1) / 255, rtol=0, atol=1e-5)
    torch.testing.assert_close(got[:, :9, :9], torch.full((3, 9, 9), 0.25))
    torch.testing.assert_close(warp(image, plain(500, -300, 20, 8), fill=0.5), torch.full((1, 3, 8, 8), 0.5))
    torch.testing.assert_close(warp(torch.ones(1, 1, 3), plain(0.5, 0.5, 1, 1)), torch.ones(1, 3, 1, 1))
    pair = [plain(x, 20, 20, 16) for x in (20, 40)]
    names = ("homographies", "camera_maps", "Ks")
    several = Crop(*(torch.cat([getattr(crop, name) for crop in pair]) for name in names), 16)
    torch.testing.assert_close(warp(image, several)[1], warp(image, plain(40, 20, 20, 16))[0])
    torch.testing.assert_close(warp(image.float() / 255, crop), warp(image, crop))
    with pytest.raises(ShapeError, match=r"image: got shape \(60, 80\), want \(H, W, 3\)"):
        warp(image[..., 0], crop)


def test_homography_of_a_projective_map():
    H = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0.01, 0, 1]]])
    torch.testing.assert_close(apply_homography(H, torch.tensor([[[100.0, 50.0]]])), torch.tensor([[[50.0, 25.0]]]))


# Bad input


@KINDS
def test_bad_boxes(make):
    centers, sides, Ks, angles = boxes(3)
    with pytest.raises(InputError, match=r"sides: got an empty box \(0 pixels\), want more than 0"):
        make(centers, sides * torch.tensor([1, 0, 1]), Ks, 64, angles)
    with pytest.raises(InputError, match="centers: got a number that is not finite"):
        make(centers * torch.nan, sides, Ks, 64, angles)
    with pytest.raises(InputError, match="angles: got a number that is not finite"):
        make(centers, sides, Ks, 64, angles * torch.inf)
    with pytest.raises(InputError, match="size: got 0 pixels, want 1 to 16384"):
        make(centers, sides, Ks, 0, angles)
    with pytest.raises(ShapeError, match=r"sides: got shape \(2,\), want \(3,\), one for each center"):
        make(centers, sides[:2], Ks, 64, angles)
    with pytest.raises(ShapeError, match=r"Ks: got shape \(2, 3, 3\), want \(3, 3, 3\)"):
        make(centers, sides, Ks[:2], 64, angles)
    singular = Ks.clone()
    singular[1, 1, 1] = 0
    with pytest.raises(InputError, match=r"intrinsics: got .* which is singular"):
        make(centers, sides, singular, 64, angles)


def test_a_box_that_is_too_wide():
    K = field_of_view_Ks(100, 100, 170.0)[None]
    with pytest.raises(InputError, match="sides: a box is wider than a half space as the camera sees it"):
        perspective_crop(torch.tensor([[100.0, 50.0]]), torch.tensor([900.0]), K, 64)


def test_a_crop_beyond_the_horizon():
    to_image = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-0.2, 0, 1]]])
    crop = Crop(torch.linalg.inv(to_image), to_image, to_image, 16)
    with pytest.raises(InputError, match="crop: a homography maps pixels to infinity; want boxes in front of the camera"):
        warp(torch.rand(20, 20, 3), crop)


def test_field_of_view():
    K = field_of_view_Ks(640, 480, 90)
    torch.testing.assert_close(K, torch.tensor([[320.0, 0, 320], [0, 320, 240], [0, 0, 1]]))
    torch.testing.assert_close(field_of_view_Ks(480, 640, 90)[0, 0], K[0, 0])
    with pytest.raises(InputError, match="field of view: got 180 degrees, want between 0 and 180"):
        field_of_view_Ks(640, 480, 180)
    with pytest.raises(InputError, match="photo: got 0 x 480 pixels"):
        field_of_view_Ks(0, 480)
