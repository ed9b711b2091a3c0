import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from vision3d.core.errors import ShapeError
from vision3d.geometry import conventions, dual_quaternion as dq, interpolation, quaternion, se3
from vision3d.geometry.gram_schmidt import haar_rotmats

tangents = st.lists(st.floats(-2, 2), min_size=6, max_size=6).map(lambda x: torch.tensor(x, dtype=torch.float64))


def close(actual, expected, atol=1e-12):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-10)


def motions(*shape):
    return se3.exp(torch.randn(*shape, 6, dtype=torch.float64))


def pure(vectors):
    return torch.cat([torch.zeros_like(vectors[..., :1]), vectors], -1)


@settings(max_examples=40)
@given(tangents, tangents)
def test_the_product_composes_the_motions(x, y):
    a, b = se3.exp(x), se3.exp(y)
    first, second = dq.from_se3(a), dq.from_se3(b)
    close(dq.to_se3(first), a)
    close(dq.to_se3(dq.multiply(first, second)), a @ b)
    close(dq.to_se3(dq.quaternion_conjugate(first)), se3.inverse(a))
    identity = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    close(dq.multiply(first, dq.quaternion_conjugate(first)), identity)


def test_points_move_by_the_sandwich_with_the_full_conjugate():
    matrices, points = motions(20), torch.randn(20, 3).double()
    duals = dq.from_se3(matrices)
    moved = dq.transform_points(duals, points)
    close(moved, (matrices[:, :3, :3] @ points[..., None]).squeeze(-1) + matrices[:, :3, 3])
    close(dq.transform_points(-3.7 * duals, points), moved)
    point = torch.cat([torch.tensor([1.0, 0, 0, 0]).double().expand(20, 4), pure(points)], -1)
    sandwich = dq.multiply(dq.multiply(duals, point), dq.full_conjugate(duals))
    close(sandwich[:, 5:], moved)
    mirrored = dq.to_se3(dq.dual_conjugate(duals))
    close(mirrored[:, :3, :3], matrices[:, :3, :3])
    close(mirrored[:, :3, 3], -matrices[:, :3, 3])


def test_normalizing_gives_a_unit():
    duals = torch.randn(30, 8).double()
    units = dq.normalize(duals)
    close(units[:, :4].norm(dim=1), torch.ones(30).double())
    close((units[:, :4] * units[:, 4:]).sum(1), torch.zeros(30).double())
    close(dq.normalize(units), units)
    # The represented motion: the product with the conjugate is the squared norm.
    close(dq.to_se3(duals), dq.to_se3(units))
    zero = torch.zeros(8, requires_grad=True)
    close(dq.to_se3(zero).detach(), torch.eye(4))
    assert torch.autograd.grad(dq.to_se3(zero).sum(), zero)[0].isfinite().all()


def test_blends():
    matrices, weights = motions(10, 4), torch.rand(10, 4).double()
    duals = dq.from_se3(matrices)
    blended = dq.blend(duals, weights)
    signs = torch.randn(10, 4, 1).double().sign()
    close(dq.to_se3(dq.blend(signs * duals, weights)), dq.to_se3(blended), atol=1e-10)
    close(dq.to_se3(dq.blend(duals, 5 * weights)), dq.to_se3(blended))
    one = torch.tensor([0.0, 1, 0, 0]).double()
    close(dq.to_se3(dq.blend(duals, one)), matrices[:, 1])
    frame = motions()  # the same in every frame
    close(dq.to_se3(dq.blend(dq.from_se3(frame @ matrices), weights)), frame @ dq.to_se3(blended), atol=1e-9)
    close(dq.to_se3(blended), dq.to_se3(blended)[:, [0, 1, 2, 3]])


def test_a_blend_of_two_halves_is_the_screw_motion_in_the_middle():
    ends = motions(20, 2)
    halves = torch.tensor([0.5, 0.5]).double()
    middle = interpolation.se3_interpolate(ends[:, 0], ends[:, 1], 0.5)
    close(dq.to_se3(dq.blend(dq.from_se3(ends), halves)), middle, atol=1e-9)
    close(dq.to_se3(dq.sclerp(dq.from_se3(ends[:, 0]), dq.from_se3(ends[:, 1]), 0.5)), middle, atol=1e-11)


def test_a_twist_of_nearly_180_degrees_keeps_its_size():
    # Linear blending of matrices fails here: the blend of two rotations must be a rotation.
    turn = dq.from_quat_translation(
        torch.tensor([[1.0, 0, 0, 0], [math.cos(1.5), 0, 0, math.sin(1.5)]]).double(), torch.zeros(2, 3).double()
    )
    points = dq.transform_points(dq.blend(turn, torch.tensor([0.4, 0.6]).double()), torch.tensor([2.0, 0, 0]).double())
    assert points.norm().item() == pytest.approx(2)


def test_gradients():
    duals = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    points = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d, w, p: dq.transform_points(dq.blend(d, w), p), (duals, weights, points))
    assert torch.autograd.gradgradcheck(
        lambda d, w, p: dq.transform_points(dq.blend(d, w), p), (duals, weights, points), fast_mode=True
    )
    close(torch.vmap(dq.blend)(duals, weights), dq.blend(duals, weights))


@pytest.mark.wrong_types
def test_wrong_shapes_are_rejected():
    with pytest.raises(ShapeError, match=r"duals: got shape \(4,\), want \(..., 8\)"):
        dq.normalize(torch.zeros(4))
    with pytest.raises(ShapeError, match=r"matrices: got shape \(3, 3\), want \(..., 4, 4\)"):
        dq.from_se3(torch.eye(3))
    with pytest.raises(ShapeError, match=r"matrices: got shape \(2, 2\), want \(..., 3, 3\) or \(..., 4, 4\)"):
        conventions.change_axes(torch.eye(2), torch.eye(3))


def test_conventions():
    rotmats, row = haar_rotmats(3, 5, dtype=torch.float64), torch.randn(5, 1, 3).double()
    theirs = conventions.columns_to_rows(rotmats)
    close((row @ theirs).mT, rotmats @ row.mT)
    assert torch.equal(conventions.rows_to_columns(theirs), rotmats)
    # y up instead of z up: new x = x, new y = z, new z = -y.
    axes = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).double()
    points, matrices = torch.randn(5, 3).double(), motions(5)
    moved = (matrices[:, :3, :3] @ points[..., None]).squeeze(-1) + matrices[:, :3, 3]
    other = conventions.change_axes(matrices, axes)
    close((other[:, :3, :3] @ (points @ axes.T)[..., None]).squeeze(-1) + other[:, :3, 3], moved @ axes.T)
    mirror = torch.diag(torch.tensor([1.0, 1, -1]).double())
    assert torch.linalg.det(conventions.change_axes(rotmats, mirror)).min().item() == pytest.approx(1)
    quats = quaternion.random_quats(3)
    assert torch.equal(conventions.xyzw_to_wxyz(conventions.wxyz_to_xyzw(quats)), quats)
    poses = motions(2)
    close(conventions.opencv_to_opengl(conventions.opengl_to_opencv(poses)), poses)
