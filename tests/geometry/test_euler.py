import math

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import ConfigError
from vision3d.geometry import euler, quaternion, rotation
from vision3d.geometry.gram_schmidt import haar_rotmats

angles = st.lists(st.floats(-4, 4), min_size=3, max_size=3)


def haar64(*shape):
    return haar_rotmats(3, *shape, dtype=torch.float64)


def about(letter, angle):
    axis = torch.zeros(3, dtype=torch.float64)
    axis["xyz".index(letter.lower())] = 1
    return rotation.so3_exp(angle * axis)


def test_there_are_24_orders():
    assert len(set(euler.EULER_ORDERS)) == 24


@given(st.sampled_from(euler.EULER_ORDERS), angles)
def test_is_the_product_of_three_rotations(order, values):
    values = torch.tensor(values, dtype=torch.float64)
    turns = [about(letter, angle) for letter, angle in zip(order, values)]
    if order.islower():
        turns.reverse()
    torch.testing.assert_close(euler.euler_to_rotmat(values, order), turns[0] @ turns[1] @ turns[2], atol=1e-14, rtol=0)


@given(st.sampled_from(euler.EULER_ORDERS), angles)
def test_extrinsic_is_intrinsic_in_reverse_order(order, values):
    values = torch.tensor(values, dtype=torch.float64)
    other = order[::-1].swapcase()
    torch.testing.assert_close(euler.euler_to_rotmat(values, order), euler.euler_to_rotmat(values.flip(-1), other))


@pytest.mark.parametrize("order", euler.EULER_ORDERS)
def test_agrees_with_scipy(order):
    rotation_class = pytest.importorskip("scipy.spatial.transform").Rotation
    values, rotmats = 2 * torch.randn(100, 3, dtype=torch.float64), haar64(100)
    theirs = rotation_class.from_euler(order, values.numpy()).as_matrix()
    assert euler.euler_to_rotmat(values, order).numpy() == pytest.approx(theirs, abs=1e-12)
    theirs = rotation_class.from_matrix(rotmats.numpy()).as_euler(order)
    assert euler.rotmat_to_euler(rotmats, order).numpy() == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("order", ["XYZ", "zyx", "ZXZ", "yzy"])
def test_agrees_with_roma(order):
    roma = pytest.importorskip("roma")
    values = torch.randn(100, 3, dtype=torch.float64)
    theirs = roma.euler_to_rotmat(order, values)
    torch.testing.assert_close(euler.euler_to_rotmat(values, order), theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("order", euler.EULER_ORDERS)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_at_and_near_gimbal_lock(order, dtype, atol):
    locks = [0.0, math.pi] if order[0] == order[2] else [-math.pi / 2, math.pi / 2]
    for lock in locks:
        for offset in (0.0, 1e-15, 1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1e-3):
            values = (4 * torch.rand(300, 3, dtype=torch.float64) - 2).to(dtype)
            values[:, 1] = lock + offset
            rotmats = euler.euler_to_rotmat(values, order).requires_grad_()
            found = euler.rotmat_to_euler(rotmats, order)
            back = euler.euler_to_rotmat(found, order)
            assert rotation.geodesic_distance(back.double(), rotmats.double()).max() < atol
            assert torch.autograd.grad(found.sum(), rotmats)[0].isfinite().all()


def test_the_last_angle_is_zero_at_gimbal_lock():
    quats = euler.euler_to_quat(torch.tensor([[0.3, 0.0, 0.4], [0.3, math.pi, 0.4]], dtype=torch.float64), "ZXZ")
    found = euler.quat_to_euler(quats, "ZXZ")
    torch.testing.assert_close(found, torch.tensor([[0.7, 0, 0], [-0.1, math.pi, 0]], dtype=torch.float64))


@pytest.mark.parametrize("order", ["XYZ", "zxy", "YXY", "xzx"])
def test_gradients(order):
    values = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: euler.euler_to_rotmat(x, order), values)
    quats = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: euler.quat_to_euler(x, order), quats)
    assert torch.autograd.gradgradcheck(lambda x: euler.quat_to_euler(x, order), quats)
    rotmats = quaternion.quat_to_rotmat(quats.detach())
    torch.testing.assert_close(
        torch.vmap(lambda r: euler.rotmat_to_euler(r, order))(rotmats), euler.rotmat_to_euler(rotmats, order)
    )


def test_a_zero_quaternion_is_the_identity_without_gradient():
    zero = torch.zeros(4, requires_grad=True)
    found = euler.quat_to_euler(zero, "ZYZ")
    assert found.abs().max() < 1e-6
    assert torch.autograd.grad(found.sum(), zero)[0].isfinite().all()


@pytest.mark.parametrize("order", ["XYY", "XyZ", "XX", ""])
def test_unknown_orders_are_rejected(order):
    with pytest.raises(ConfigError, match=f"order: '{order}' is not an order of Euler angles; (did you mean|valid)"):
        euler.euler_to_rotmat(torch.zeros(3), order)


@pytest.mark.parametrize("order", ["X", "y", "XZ", "zx", "YX", "xyz"])
def test_one_and_two_axes_and_degrees_agree_with_scipy(order):
    rotation_class = pytest.importorskip("scipy.spatial.transform").Rotation
    values = 100 * torch.randn(50, len(order), dtype=torch.float64)
    theirs = rotation_class.from_euler(order, values.numpy(), degrees=True)
    found = euler.euler_to_rotmat(values, order, degrees=True)
    assert found.numpy() == pytest.approx(theirs.as_matrix(), abs=1e-12)
    if len(order) == 3:
        degrees = euler.rotmat_to_euler(found, order, degrees=True)
        assert degrees.numpy() == pytest.approx(theirs.as_euler(order, degrees=True), abs=1e-9)


@pytest.mark.parametrize("order", ["", "XX", "XYX ", "xY", "W", "XYZX"])
def test_invalid_orders_are_rejected(order):
    with pytest.raises(ConfigError, match=r"is not an order of Euler angles"):
        euler.euler_to_quat(torch.zeros(len(order)), order)


def test_two_letters_do_not_accept_three_angles():
    with pytest.raises(ConfigError, match="'XZ' is not an order of Euler angles"):
        euler.quat_to_euler(torch.ones(4), "XZ")
