import math
from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import ConfigError
from vision3d.geometry import rotation
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats

LAYOUTS = ["columns", "columns_interleaved", "rows", "symmetric"]
ANGLES = [0, 1e-12, 1e-8, 1e-4, 1e-2, 0.9999, 1.0001, 2, 3, math.pi - 1e-4, math.pi - 1e-8]


def random_rotmats(*shape, dtype=torch.float64):
    return quat_to_rotmat(random_quats(*shape, dtype=dtype))


def unit_axes(count):
    axes = torch.nn.functional.normalize(torch.randn(count, 3, dtype=torch.float64), dim=-1)
    axes[:3] = torch.eye(3)
    return axes


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_log_inverts_exp(angle, dtype, atol):
    rotvecs = (angle * unit_axes(200)).to(dtype)
    back = rotation.so3_log(rotation.so3_exp(rotvecs))
    if angle > 3.14:  # the opposite axis is the same rotation up to 2 (pi - angle)
        sign = (back * rotvecs).sum(-1, keepdim=True).sign()
        back = sign * back
    torch.testing.assert_close(back, rotvecs, atol=atol, rtol=0)


def test_log_is_exact_at_180_degrees():
    axes = unit_axes(200)
    rotmats = 2 * axes[:, :, None] * axes[:, None] - torch.eye(3)
    rotvecs = rotation.so3_log(rotmats)
    torch.testing.assert_close(rotvecs.norm(dim=-1), torch.full((200,), math.pi, dtype=torch.float64))
    torch.testing.assert_close(rotation.so3_exp(rotvecs), rotmats, atol=1e-14, rtol=0)
    single = rotation.so3_log(rotmats.float())
    torch.testing.assert_close(rotation.so3_exp(single), rotmats.float(), atol=1e-6, rtol=0)


def test_agrees_with_scipy_and_roma():
    scipy_rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    roma = pytest.importorskip("roma")
    rotvecs = torch.randn(100, 3, dtype=torch.float64)
    assert rotation.so3_exp(rotvecs).numpy() == pytest.approx(scipy_rotation.from_rotvec(rotvecs).as_matrix(), abs=1e-13)
    rotmats = random_rotmats(100)
    torch.testing.assert_close(rotation.so3_log(rotmats), roma.rotmat_to_rotvec(rotmats))
    torch.testing.assert_close(
        rotation.geodesic_distance(rotmats[:50], rotmats[50:]),
        roma.rotmat_geodesic_distance(rotmats[:50], rotmats[50:]),
    )
    torch.testing.assert_close(rotation.from_6d(rotvecs.view(50, 6)), roma.special_gramschmidt(rotvecs.view(50, 2, 3).mT))
    noisy = torch.randn(100, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(rotation.nearest_rotation(noisy), roma.special_procrustes(noisy))


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_quaternion_and_matrix_functions_agree(values):
    rotvec = torch.tensor(values, dtype=torch.float64)
    rotmat = rotation.so3_exp(rotvec)
    torch.testing.assert_close(quat_to_rotmat(rotation.rotvec_to_quat(rotvec)), rotmat, atol=1e-14, rtol=0)
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(rotmat @ rotation.so3_exp(-rotvec), eye, atol=1e-14, rtol=0)
    assert torch.linalg.det(rotmat).item() == pytest.approx(1)
    torch.testing.assert_close(rotation.quat_to_rotvec(rotation.rotvec_to_quat(rotvec)), rotation.so3_log(rotmat))


def test_hat_is_the_cross_product():
    a, b = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close((rotation.hat(a) @ b[..., None]).squeeze(-1), torch.linalg.cross(a, b))
    torch.testing.assert_close(rotation.vee(rotation.hat(a)), a)


@pytest.mark.parametrize("angle", [0, 1e-9, 1e-3, 0.9999, 1.0001, 3.0, 3.1415])
def test_gradients_of_exp_and_log(angle):
    rotvecs = (angle * unit_axes(5)).requires_grad_()
    assert torch.autograd.gradcheck(rotation.so3_exp, rotvecs)
    assert torch.autograd.gradcheck(rotation.rotvec_to_quat, rotvecs)
    # On the group: rotmats move along exp(x) R.
    rotmats, start = rotation.so3_exp(rotvecs).detach(), torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotation.so3_log(rotation.so3_exp(x) @ rotmats), start)


def test_log_of_the_identity_has_the_identity_as_derivative():
    jacobian = torch.autograd.functional.jacobian(lambda x: rotation.so3_log(rotation.so3_exp(x)), torch.zeros(3))
    torch.testing.assert_close(jacobian, torch.eye(3))


def test_gradients_are_finite_at_singular_points():
    half_turn = torch.diag(torch.tensor([1.0, -1, -1]))
    for rotmat in (torch.eye(3), half_turn, -torch.eye(3) + 2 * torch.ones(3, 3) / 3):
        leaf = rotmat.clone().requires_grad_()
        for value in (
            rotation.so3_log(leaf),
            rotation.geodesic_distance(leaf, rotmat),
            rotation.nearest_rotation(leaf),
        ):
            assert torch.autograd.grad(value.sum(), leaf)[0].isfinite().all()


def test_geodesic_distance_is_accurate_at_both_ends():
    axis = torch.tensor([0.6, 0.0, 0.8])
    for angle in [0, 1e-6, 1e-4, 1, math.pi - 1e-3, math.pi]:
        distance = rotation.geodesic_distance(rotation.so3_exp(angle * axis), torch.eye(3))
        assert distance.item() == pytest.approx(angle, abs=5e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_6d_round_trip(layout):
    rotmats = random_rotmats(3, 40)
    torch.testing.assert_close(rotation.from_6d(rotation.to_6d(rotmats, layout), layout), rotmats)
    values = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotation.from_6d(x, layout), values)


def test_6d_layouts():
    rotmat = rotation.so3_exp(torch.tensor([0.3, -0.5, 0.9], dtype=torch.float64))
    columns = rotation.to_6d(rotmat, "columns")
    torch.testing.assert_close(columns, torch.cat([rotmat[:, 0], rotmat[:, 1]]))
    torch.testing.assert_close(rotation.to_6d(rotmat, "columns_interleaved"), rotmat[:, :2].flatten())
    torch.testing.assert_close(rotation.to_6d(rotmat, "rows"), torch.cat([rotmat[0], rotmat[1]]))
    # Values of one layout read as the other give the transpose: a rotation, but the wrong one.
    torch.testing.assert_close(rotation.from_6d(columns, "rows"), rotmat.T)
    assert (rotmat - rotmat.T).abs().max() > 0.5


def test_symmetric_6d_rotates_both_directions_by_equal_angles():
    values = torch.randn(100, 6, dtype=torch.float64)
    rotmats = rotation.from_6d(values, "symmetric")
    first, second = (torch.nn.functional.normalize(v, dim=-1) for v in (values[:, :3], values[:, 3:]))
    torch.testing.assert_close((rotmats[..., 0] * first).sum(-1), (rotmats[..., 1] * second).sum(-1))
    torch.testing.assert_close((rotmats[..., 2] * torch.linalg.cross(first, second)).sum(-1),
                               torch.linalg.cross(first, second).norm(dim=-1))  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_6d_is_a_rotation_for_any_input(layout, dtype, atol):
    rows = [
        [0] * 6,
        [1, 2, 3, 0, 0, 0],
        [0, 0, 0, 1, 2, 3],
        [1, 2, 3, 2, 4, 6],
        [1, 2, 3, -1, -2, -3],
        [1, 0, 0, 1, 0, 0],
    ]
    values = torch.tensor(rows, dtype=dtype)
    if layout == "columns_interleaved":
        values = values.view(-1, 2, 3).mT.flatten(1)
    values = torch.cat([values, 1e30 * values, 1e-30 * values, torch.randn(1000, 6, dtype=dtype)]).requires_grad_()
    rotmats = rotation.from_6d(values, layout)
    torch.testing.assert_close(rotmats.mT @ rotmats, torch.eye(3, dtype=dtype).expand_as(rotmats), atol=atol, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotmats), torch.ones(len(values), dtype=dtype), atol=atol, rtol=0)
    assert not torch.autograd.grad(rotmats.sum(), values)[0].isnan().any()


def test_nearest_rotation_is_nearest_and_equivariant():
    matrices, left, right = torch.randn(50, 3, 3, dtype=torch.float64), random_rotmats(50), random_rotmats(50)
    nearest = rotation.nearest_rotation(matrices)
    others = random_rotmats(2000, 1)
    assert ((matrices - nearest).norm(dim=(1, 2)) <= (matrices - others).norm(dim=(2, 3)).amin(0) + 1e-12).all()
    torch.testing.assert_close(rotation.nearest_rotation(left @ matrices @ right), left @ nearest @ right)


def test_gradient_of_nearest_rotation():
    matrices = torch.randn(6, 3, 3, dtype=torch.float64)
    matrices[0] = torch.eye(3)  # equal singular values
    assert (torch.linalg.det(matrices) < 0).any()
    assert torch.autograd.gradcheck(rotation.nearest_rotation, matrices.requires_grad_())
    zero = torch.zeros(3, 3, requires_grad=True)
    assert torch.autograd.grad(rotation.nearest_rotation(zero).sum(), zero)[0].isfinite().all()


def test_unknown_layout_is_named():
    with pytest.raises(ConfigError, match=r"layout: 'column' is not a layout of six numbers; did you mean columns"):
        unwrap(rotation.from_6d)(torch.zeros(6), "column")
