import math
from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch

from vision3d.core.errors import ConfigError, InputError
from vision3d.geometry import cameras, se3

MODELS = ["pinhole", "ortho", "fisheye"]
LENSES = {
    "pinhole": [-0.2, 0.05, 0.001, -0.002, 0.003, 0.01, -0.004, 0.001],
    "fisheye": [-0.03, 0.004, -0.001, 0.0002],
}


def K64(*batch):
    K = cameras.intrinsics(520.0, 480.0, 321.5, 239.0, torch.float64)
    K[0, 1] = 3.0  # skew
    return K.expand(*batch, 3, 3)


def points_in_front(*shape):
    points = torch.rand(*shape, 3, dtype=torch.float64) * 2 - 1
    points[..., 2] += 2
    return points


def test_pinhole_has_its_closed_form():
    K = cameras.intrinsics(100.0, 200.0, 32.0, 24.0)
    pixels = cameras.project(torch.tensor([[0.0, 0, 5], [1, 2, 4]]), K)
    torch.testing.assert_close(pixels, torch.tensor([[32.0, 24], [32 + 25, 24 + 100]]))


def test_ortho_has_its_closed_form():
    K = cameras.intrinsics(100.0, 200.0, 32.0, 24.0)
    pixels = cameras.project(torch.tensor([[1.0, 2, 5], [1, 2, -5]]), K, "ortho")
    torch.testing.assert_close(pixels, torch.tensor([[132.0, 424], [132, 424]]))


def test_fisheye_radius_is_the_angle():
    K = cameras.intrinsics(100.0, 100.0, 0.0, 0.0, torch.float64)
    angles = torch.tensor([0, 1e-9, 1e-4, 0.05, 0.5, math.pi / 2, 2.5, 3.1], dtype=torch.float64)
    points = 3 * torch.stack([angles.sin() * 0.6, angles.sin() * 0.8, angles.cos()], -1)
    pixels = cameras.project(points, K, "fisheye")
    torch.testing.assert_close(pixels, 100 * angles[:, None] * torch.tensor([0.6, 0.8], dtype=torch.float64))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("has_lens", [False, True])
def test_unproject_inverts_project(model, has_lens):
    if has_lens and model == "ortho":
        with pytest.raises(InputError, match="an ortho camera has no lens"):
            cameras.project(torch.zeros(1, 3), torch.eye(3), model, torch.zeros(4))
        return
    distortion = torch.tensor(LENSES[model], dtype=torch.float64).expand(2, -1) if has_lens else None
    points, Ks = points_in_front(2, 50), K64(2)
    pixels = cameras.project(points, Ks, model, distortion)
    torch.testing.assert_close(cameras.unproject(pixels, points[..., 2], Ks, model, distortion), points)
    depths = points[..., 2] if model == "ortho" else points.norm(dim=-1)
    back = cameras.unproject(pixels, depths, Ks, model, distortion, depth_along="ray")
    torch.testing.assert_close(back, points)


@pytest.mark.parametrize("model", MODELS)
def test_gradients(model):
    points, Ks = points_in_front(4).requires_grad_(), K64().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, K: cameras.project(p, K, model), (points, Ks))
    pixels = cameras.project(points, Ks, model).detach().requires_grad_()
    depths = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, d, K: cameras.unproject(x, d, K, model), (pixels, depths, Ks))


@pytest.mark.parametrize("model", MODELS)
def test_singular_points_stay_finite(model):
    points = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0], [1, 2, -1]], requires_grad=True)
    pixels = cameras.project(points, torch.eye(3), model)
    assert pixels.isfinite().all()
    assert torch.autograd.grad(pixels.sum(), points)[0].isfinite().all()


@pytest.mark.parametrize("model", MODELS)
def test_world_rays_hit_the_points_of_their_pixels(model):
    eye, target, up = (
        torch.tensor([[3.0, 1, 2], [-1, 2, 0.5]]).double(),
        torch.zeros(3).double(),
        torch.eye(3)[2].double(),
    )
    poses, Ks = (
        cameras.look_at(eye, target, up),
        cameras.intrinsics(20.0, 25.0, 8.0, 6.0, torch.float64).expand(2, 3, 3),
    )
    origins, directions = cameras.camera_rays(poses, Ks, 16, 12, model)
    assert origins.shape == directions.shape == (2, 12, 16, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, 12, 16).double())
    points = se3.transform_points(se3.inverse(poses), (origins + 2.5 * directions).flatten(1, 2))
    pixels = cameras.project(points, Ks, model).unflatten(1, (12, 16))
    torch.testing.assert_close(pixels, cameras.pixel_grid(16, 12).double().expand(2, 12, 16, 2))
    torch.testing.assert_close(pixels[0, 3, 5], torch.tensor([5.5, 3.5]).double())  # column, row


def test_resized_intrinsics_scale_pixels():
    points, Ks = points_in_front(10), K64()
    half = cameras.project(points, cameras.resize_Ks(Ks, 0.5, 0.25))
    torch.testing.assert_close(half, cameras.project(points, Ks) * torch.tensor([0.5, 0.25]).double())


def test_look_at_has_camera_axes():
    pose = cameras.look_at(torch.tensor([0.0, -2, 1]), torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 0, 1]))
    torch.testing.assert_close(pose[:3, 0], torch.tensor([1.0, 0, 0]))  # right
    torch.testing.assert_close(pose[:3, 1], torch.tensor([0.0, 0, -1]))  # down
    torch.testing.assert_close(pose[:3, 2], torch.tensor([0.0, 1, 0]))  # forward
    torch.testing.assert_close(pose[:3, 3], torch.tensor([0.0, -2, 1]))


def test_look_at_works_along_up_and_rejects_equal_points():
    up = torch.tensor([0.0, 0, 1])
    for eye in (2 * up, -3 * up):
        rotmat = cameras.look_at(eye, torch.zeros(3), up)[:3, :3]
        torch.testing.assert_close(rotmat.T @ rotmat, torch.eye(3))
        assert torch.linalg.det(rotmat).item() == pytest.approx(1)
    with pytest.raises(InputError, match="eye and target are the same point"):
        cameras.look_at(up, up, up)


def test_axes_conventions_are_inverse_and_flip_the_viewing_direction():
    poses = se3.exp(torch.randn(4, 6))
    torch.testing.assert_close(cameras.opencv_to_opengl(cameras.opengl_to_opencv(poses)), poses)
    opengl = cameras.opencv_to_opengl(poses)
    torch.testing.assert_close(opengl[:, :3, 2], -poses[:, :3, 2])
    torch.testing.assert_close(opengl[:, :3, 0], poses[:, :3, 0])
    torch.testing.assert_close(opengl[:, :3, 3], poses[:, :3, 3])


def test_centers_are_the_last_column_of_the_pose():
    poses = se3.exp(torch.randn(4, 6))
    viewmats = cameras.camtoworld_to_viewmat(poses)
    torch.testing.assert_close(cameras.camera_centers(viewmats), poses[:, :3, 3])
    torch.testing.assert_close(cameras.viewmat_to_camtoworld(viewmats), poses)


def test_unknown_model_is_named():
    with pytest.raises(ConfigError, match=r"model: 'fisheyes' is not a camera model; did you mean fisheye"):
        unwrap(cameras.project)(torch.zeros(1, 3), torch.eye(3), "fisheyes")
