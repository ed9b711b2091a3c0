"""One asymmetric motion, a quarter rotation about z followed by a translation: the same points through every converter."""

import math

import pytest
import torch

from vision3d.geometry import cameras, covariance, quaternion, rotation, se3, spherical_harmonics, triangles

POINTS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3]], dtype=torch.float64)
# (x, y, z) -> (-y, x, z) + (10, 20, 30), written by hand.
MOVED = torch.tensor([[10.0, 21, 30], [9, 20, 30], [10, 20, 31], [8, 21, 33]], dtype=torch.float64)
SHIFT = torch.tensor([10.0, 20, 30], dtype=torch.float64)
ROTMAT = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
HALF = math.sqrt(0.5)
QUAT = torch.tensor([HALF, 0, 0, HALF], dtype=torch.float64)
ROTVEC = torch.tensor([0, 0, math.pi / 2], dtype=torch.float64)

ROTMATS = {
    "matrix": lambda: ROTMAT,
    "quaternion": lambda: quaternion.quat_to_rotmat(QUAT),
    "quaternion of the matrix": lambda: quaternion.quat_to_rotmat(quaternion.rotmat_to_quat(ROTMAT)),
    "xyzw": lambda: quaternion.quat_to_rotmat(quaternion.xyzw_to_wxyz(torch.tensor([0, 0, HALF, HALF]).double())),
    "product": lambda: quaternion.quat_to_rotmat(
        quaternion.multiply(quaternion.slerp(torch.eye(4)[0].double(), QUAT, 0.25), quaternion.slerp(
            torch.eye(4)[0].double(), QUAT, 0.75))),
    "exponential": lambda: rotation.so3_exp(ROTVEC),
    "logarithm": lambda: rotation.so3_exp(rotation.so3_log(ROTMAT)),
    "rotation vector": lambda: quaternion.quat_to_rotmat(rotation.rotvec_to_quat(ROTVEC)),
    "vector of the quaternion": lambda: rotation.so3_exp(rotation.quat_to_rotvec(QUAT)),
    "columns": lambda: rotation.from_6d(torch.tensor([0.0, 1, 0, -1, 0, 0]).double()),
    "interleaved": lambda: rotation.from_6d(torch.tensor([0.0, -1, 1, 0, 0, 0]).double(), "columns_interleaved"),
    "rows": lambda: rotation.from_6d(torch.tensor([0.0, -1, 0, 1, 0, 0]).double(), "rows"),
    "symmetric": lambda: rotation.from_6d(torch.tensor([0.0, 1, 0, -1, 0, 0]).double(), "symmetric"),
    "nearest": lambda: rotation.nearest_rotation(ROTMAT * torch.tensor([1.0, 2, 3]).double()),
}  # fmt: skip


@pytest.mark.parametrize("name", ROTMATS)
def test_rotations(name):
    torch.testing.assert_close(POINTS @ ROTMATS[name]().T + SHIFT, MOVED)


MOTIONS = {
    "parts": lambda: se3.from_rotation_translation(ROTMAT, SHIFT),
    "exponential": lambda: se3.exp(se3.log(se3.from_rotation_translation(ROTMAT, SHIFT))),
    "composition": lambda: se3.compose(se3.exp(torch.cat([SHIFT, 0 * SHIFT])), se3.exp(torch.cat([0 * SHIFT, ROTVEC]))),
    "inverse": lambda: se3.inverse(se3.inverse(se3.from_rotation_translation(ROTMAT, SHIFT))),
    "similarity": lambda: se3.similarity(torch.tensor(1.0).double(), ROTMAT, SHIFT),
    "view matrix": lambda: cameras.camtoworld_to_viewmat(
        cameras.viewmat_to_camtoworld(se3.from_rotation_translation(ROTMAT, SHIFT))
    ),
}


@pytest.mark.parametrize("name", MOTIONS)
def test_motions(name):
    torch.testing.assert_close(se3.transform_points(MOTIONS[name](), POINTS), MOVED)


def test_rotated_points():
    torch.testing.assert_close(quaternion.rotate(QUAT, POINTS) + SHIFT, MOVED)


def test_a_long_axis_rotates_with_the_motion():
    scales = torch.tensor([3.0, 2, 1], dtype=torch.float64)
    want = torch.diag(torch.tensor([4.0, 9, 1], dtype=torch.float64))  # x has become y
    torch.testing.assert_close(covariance.quat_scale_to_covar(QUAT, scales), want)
    torch.testing.assert_close(covariance.quat_scale_to_covar(*covariance.covar_to_quat_scale(want)), want)
    edges = triangles.gaussians_to_edges(QUAT, scales, flat_axis=2)
    torch.testing.assert_close(edges, torch.tensor([[0.0, -2], [3, 0], [0, 0]]).double())


def test_a_bright_side_rotates_with_the_motion():
    sh = torch.tensor([0.0, 0, 0, -1])[:, None].double()  # degree 1: + x
    torch.testing.assert_close(
        spherical_harmonics.rotate_sh(sh, ROTMAT),
        torch.tensor([0.0, -1, 0, 0])[:, None].double(),  # + y
    )


def test_a_camera_image_is_not_flipped():
    pose = cameras.look_at(*torch.tensor([[0.0, -5, 0], [0, 0, 0], [0, 0, 1]]).double())
    view = cameras.camtoworld_to_viewmat(pose)
    K = cameras.intrinsics(100.0, 100.0, 50.0, 50.0, torch.float64)
    points = torch.tensor([[1.0, 0, 0], [0, 0, 1]]).double()
    pixels = cameras.project(se3.transform_points(view, points), K)
    torch.testing.assert_close(pixels, torch.tensor([[70.0, 50], [50, 30]]).double())
    # The same camera in Blender's convention: it looks along its -z, its y is up.
    blender = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -5], [0, 1, 0, 0], [0, 0, 0, 1]]).double()
    torch.testing.assert_close(cameras.opengl_to_opencv(blender), pose)
