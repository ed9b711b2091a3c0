import math
from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch

from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.geometry import cameras, distortion

PINHOLE = {
    4: [-0.25, 0.06, 0.0012, -0.0008],
    5: [0.11, -0.03, -0.001, 0.002, 0.004],
    8: [-0.3, 0.1, 0.001, -0.002, 0.01, -0.02, 0.05, -0.004],
}
FISHEYE = [-0.03, 0.005, -0.002, 0.0003]
K = cameras.intrinsics(420.0, 410.0, 322.0, 236.0, torch.float64)


def coeffs64(values):
    return torch.tensor(values, dtype=torch.float64)


def plane_points(count, reach=0.7):
    return (torch.rand(count, 2, dtype=torch.float64) * 2 - 1) * reach


@pytest.mark.parametrize("count", [4, 5, 8])
def test_pinhole_agrees_with_kornia(count):
    calibration = pytest.importorskip("kornia.geometry.calibration")
    coeffs, points = coeffs64(PINHOLE[count]), plane_points(200)
    theirs = calibration.distort_points(cameras.plane_to_pixels(points, K)[None], K[None], coeffs[None])[0]
    ours = cameras.plane_to_pixels(distortion.distort(points, coeffs), K)
    torch.testing.assert_close(ours, theirs)
    back = calibration.undistort_points(theirs[None], K[None], coeffs[None], num_iters=200)[0]
    found = cameras.plane_to_pixels(distortion.undistort(cameras.pixels_to_plane(theirs, K), coeffs), K)
    torch.testing.assert_close(found, back, atol=1e-8, rtol=0)


def test_fisheye_agrees_with_kornia():
    camera = pytest.importorskip("kornia.geometry.camera")
    coeffs, points = coeffs64(FISHEYE), plane_points(200)
    radius = points.norm(dim=-1, keepdim=True)
    plane = points / radius * radius.tan()  # kornia's input is x / z
    params = torch.cat([coeffs64([420, 410, 322, 236]), coeffs])
    theirs = camera.distort_points_kannala_brandt(plane, params)
    torch.testing.assert_close(cameras.plane_to_pixels(distortion.distort(points, coeffs, "fisheye"), K), theirs)


@pytest.mark.parametrize(("model", "coeffs"), [*(("pinhole", c) for c in PINHOLE.values()), ("fisheye", FISHEYE)])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 3e-6), (torch.float64, 1e-12)])
def test_undistort_inverts_distort(model, coeffs, dtype, atol):
    points = plane_points(500, 1.0 if model == "fisheye" else 0.7).to(dtype)
    coeffs = torch.tensor(coeffs, dtype=dtype)
    back = distortion.undistort(distortion.distort(points, coeffs, model), coeffs, model)
    torch.testing.assert_close(back, points, atol=atol, rtol=0)


def test_fisheye_goes_beyond_a_right_angle():
    points = torch.tensor([[2.2, 0.0], [0.0, -1.8]], dtype=torch.float64)
    distorted = distortion.distort(points, coeffs64([0.01, 0.002, 0, 0]), "fisheye")
    torch.testing.assert_close(distortion.undistort(distorted, coeffs64([0.01, 0.002, 0, 0]), "fisheye"), points)


def test_each_camera_has_its_own_coefficients():
    coeffs = torch.stack([coeffs64(PINHOLE[4]), torch.zeros(4)])
    points = plane_points(10).expand(2, 10, 2)
    moved = distortion.distort(points, coeffs)
    torch.testing.assert_close(moved[0], distortion.distort(points[0], coeffs[0]))
    torch.testing.assert_close(moved[1], points[1])


@pytest.mark.parametrize(("model", "coeffs"), [*(("pinhole", c) for c in PINHOLE.values()), ("fisheye", FISHEYE)])
def test_gradients(model, coeffs):
    points, coeffs = plane_points(4, 0.5).requires_grad_(), coeffs64(coeffs).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, c: distortion.distort(p, c, model), (points, coeffs))
    assert torch.autograd.gradcheck(lambda p, c: distortion.undistort(p, c, model), (points, coeffs))
    center = torch.zeros(1, 2, requires_grad=True)
    moved = distortion.undistort(center, coeffs.detach().float(), model)
    assert torch.autograd.grad(moved.sum(), center)[0].isfinite().all()


def test_points_beyond_the_fold_are_nan():
    coeffs = coeffs64([-0.4, 0.0, 0.0, 0.0])  # r (1 - 0.4 r^2) has its maximum at r^2 = 1 / 1.2
    top = distortion.max_radius(coeffs)
    assert top == pytest.approx(math.sqrt(1 / 1.2))
    reach = top * (1 - 0.4 * top**2)
    found = distortion.undistort(torch.tensor([[0.99 * reach, 0], [1.01 * reach, 0]], dtype=torch.float64), coeffs)
    assert found[0].isfinite().all()
    assert 0 < found[0, 0] < top
    assert found[1].isnan().all()


def test_max_radius_of_other_lenses():
    assert distortion.max_radius(coeffs64([0.1, 0.0, 0.0, 0.0])) == math.inf
    assert distortion.max_radius(torch.zeros(8)) == math.inf
    assert distortion.max_radius(coeffs64([0, 0, 0, 0, 0, -0.25, 0, 0])) == pytest.approx(2.0)  # a pole
    assert distortion.max_radius(coeffs64([-0.1, 0, 0, 0]), "fisheye") == pytest.approx(math.sqrt(1 / 0.3))


def test_no_distortion_changes_nothing():
    pixels, is_valid, new_K = distortion.undistort_map(K, torch.zeros(5).double(), 640, 480)
    torch.testing.assert_close(new_K, K)
    torch.testing.assert_close(pixels, cameras.pixel_grid(640, 480, torch.float64))
    assert is_valid.all()


CASES = [("pinhole", c) for c in PINHOLE.values()] + [("fisheye", FISHEYE), ("fisheye", [0.1, -0.02, 0.0, 0.0])]


@pytest.mark.parametrize(("model", "coeffs"), CASES)
def test_map_shows_a_point_where_the_new_camera_projects_it(model, coeffs):
    coeffs = coeffs64(coeffs)
    pixels, is_valid, new_K = distortion.undistort_map(K, coeffs, 640, 480, model)
    assert is_valid.all()  # no black borders
    torch.testing.assert_close(distortion.undistorted_K(K, coeffs, 640, 480, model), new_K)
    assert (new_K[0, 0] / new_K[1, 1]).item() == pytest.approx(420 / 410)
    for row, column in [(0, 0), (479, 639), (0, 639), (200, 100), (240, 320)]:
        point = cameras.unproject(torch.tensor([[column + 0.5, row + 0.5]]).double(), torch.tensor([2.0]).double(), new_K)
        torch.testing.assert_close(cameras.project(point, K, model, coeffs)[0], pixels[row, column])


@pytest.mark.parametrize(("model", "coeffs"), CASES)
def test_the_crop_is_minimal(model, coeffs):
    _, _, new_K = distortion.undistort_map(K, coeffs64(coeffs), 640, 480, model)
    wider = new_K.clone()
    wider[:2, :2] *= 0.985
    wider[:2, 2] = torch.tensor([320.0, 240]) + 0.985 * (new_K[:2, 2] - torch.tensor([320.0, 240]))
    assert not distortion.undistort_map(K, coeffs64(coeffs), 640, 480, model, new_K=wider)[1].all()


@pytest.mark.parametrize(("model", "coeffs"), CASES[:4])
def test_balance_one_keeps_the_whole_photo(model, coeffs):
    coeffs = coeffs64(coeffs)
    _, is_valid, full = distortion.undistort_map(K, coeffs, 640, 480, model, balance=1.0)
    _, _, cut = distortion.undistort_map(K, coeffs, 640, 480, model)
    _, _, middle = distortion.undistort_map(K, coeffs, 640, 480, model, balance=0.5)
    assert full[0, 0] < middle[0, 0] < cut[0, 0]
    assert not is_valid.all()
    border = torch.tensor([[0.5, 0.5], [639.5, 0.5], [0.5, 479.5], [639.5, 479.5], [320, 0.5], [0.5, 240]]).double()
    points = cameras.unproject(border, torch.ones(6).double(), K, model, coeffs)
    pixels = cameras.project(points, full)
    assert (pixels > 0.5 - 1e-6).all()
    assert (pixels < torch.tensor([639.5, 479.5]).double() + 1e-6).all()


def test_grid_sampling_the_map_restores_a_pattern():
    # A smooth image seen through the lens is mapped back to the pinhole camera's image.
    def image(points):
        return (7 * points[..., 0]).sin() * (5 * points[..., 1] + 1).cos()

    coeffs = coeffs64(PINHOLE[5])
    grid = cameras.pixel_grid(640, 480, torch.float64).flatten(0, 1)
    photo = image(distortion.undistort(cameras.pixels_to_plane(grid, K), coeffs)).view(1, 1, 480, 640)
    pixels, _, new_K = distortion.undistort_map(K, coeffs, 640, 480)
    sampled = torch.nn.functional.grid_sample(photo, distortion.pixels_to_grid(pixels, 640, 480)[None], align_corners=False)
    want = image(cameras.pixels_to_plane(grid, new_K)).view(480, 640)
    assert (sampled[0, 0] - want).abs().max() < 2e-4


def test_bad_input_is_named():
    with pytest.raises(ShapeError, match=r"distortion: got shape \(6,\), want 4, 5 or 8 numbers \(pinhole\)"):
        distortion.distort(torch.zeros(1, 2), torch.zeros(6))
    with pytest.raises(ShapeError, match=r"want 4 numbers \(fisheye\)"):
        distortion.distort(torch.zeros(1, 2), torch.zeros(5), "fisheye")
    with pytest.raises(ConfigError, match="model: 'ortho' has no lens distortion"):
        unwrap(distortion.distort)(torch.zeros(1, 2), torch.zeros(4), "ortho")
    with pytest.raises(InputError, match="fold the image over inside its 640x480 pixels"):
        distortion.undistort_map(K, coeffs64([-0.9, 0, 0, 0]), 640, 480)
    with pytest.raises(InputError, match=r"balance: got 2\.0, want 0 to 1"):
        distortion.undistort_map(K, coeffs64(PINHOLE[4]), 640, 480, balance=2.0)
