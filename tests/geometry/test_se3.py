import math

import pytest
import scipy.linalg
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import InputError
from vision3d.geometry import se3
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats
from vision3d.geometry.rotation import so3_exp

tangents = st.lists(st.floats(-1.7, 1.7), min_size=6, max_size=6).map(lambda x: torch.tensor(x, dtype=torch.float64))


def close(actual, expected, atol=1e-12):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-10)


@given(tangents, tangents)
def test_group_axioms(x, y):
    a, b = se3.exp(x), se3.exp(y)
    eye = torch.eye(4, dtype=torch.float64)
    close(se3.compose(a, se3.inverse(a)), eye)
    close(se3.exp(-x), se3.inverse(a))
    close(se3.inverse(se3.compose(a, b)), se3.compose(se3.inverse(b), se3.inverse(a)))
    close(se3.log(a), x)
    close(a @ b @ se3.inverse(a), se3.exp(se3.adjoint(a) @ y))
    close(se3.adjoint(a @ b), se3.adjoint(a) @ se3.adjoint(b))


@given(tangents)
def test_exp_is_the_matrix_exponential(x):
    rho, (p, q, r) = x[:3], x[3:]
    generator = torch.zeros(4, 4, dtype=torch.float64)
    generator[:3, :3] = torch.stack([p * 0, -r, q, r, p * 0, -p, -q, p, p * 0]).view(3, 3)
    generator[:3, 3] = rho
    # Not torch.linalg.matrix_exp, whose error reaches 1e-9 for small angles.
    close(se3.exp(x), torch.from_numpy(scipy.linalg.expm(generator.numpy())))


def test_agrees_with_kornia():
    liegroup = pytest.importorskip("kornia.geometry.liegroup")
    x = torch.randn(20, 6, dtype=torch.float64)
    torch.testing.assert_close(se3.exp(x), liegroup.Se3.exp(x).matrix())


@pytest.mark.parametrize("angle", [0, 1e-12, 1e-6, 1e-3, 0.9999, 1.0001, 3, math.pi - 1e-7, math.pi])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 5e-6), (torch.float64, 1e-12)])
def test_round_trip_at_all_angles(angle, dtype, atol):
    phi = angle * torch.nn.functional.normalize(torch.randn(100, 3, dtype=torch.float64), dim=-1)
    matrices = se3.exp(torch.cat([torch.randn(100, 3).double(), phi], -1).to(dtype))
    back = se3.log(matrices)
    assert (back[:, 3:].norm(dim=-1) <= math.pi + 1e-6).all()
    torch.testing.assert_close(se3.exp(back), matrices, atol=atol, rtol=0)


@pytest.mark.parametrize("angle", [0, 1e-7, 0.5, 0.9999, 1.0001, 3.0])
def test_gradients(angle):
    phi = angle * torch.nn.functional.normalize(torch.randn(3, 3, dtype=torch.float64), dim=-1)
    x = torch.cat([torch.randn(3, 3).double(), phi], -1).requires_grad_()
    assert torch.autograd.gradcheck(se3.exp, x)
    matrices = se3.exp(x).detach()
    start = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: se3.log(se3.exp(d) @ matrices), start)


def test_points_of_many_matrices():
    matrices, points = se3.exp(torch.randn(2, 5, 6).double()), torch.randn(2, 5, 7, 3).double()
    moved = se3.transform_points(matrices, points)
    torch.testing.assert_close(moved[1, 3, 4], matrices[1, 3, :3, :3] @ points[1, 3, 4] + matrices[1, 3, :3, 3])
    torch.testing.assert_close(se3.transform_points(se3.inverse(matrices), moved), points)
    assert se3.transform_points(matrices[0, 0], points[0, 0]).shape == (7, 3)


def test_similarities_split_and_invert():
    scales = torch.tensor([0.01, 1.0, 30.0]).double()
    rotmats, translations = quat_to_rotmat(random_quats(3, dtype=torch.float64)), torch.randn(3, 3).double()
    matrices = se3.similarity(scales, rotmats, translations)
    for found, want in zip(se3.split_similarity(matrices), (scales, rotmats, translations), strict=True):
        torch.testing.assert_close(found, want)
    torch.testing.assert_close(se3.similarity_inverse(matrices) @ matrices, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))


@pytest.mark.parametrize(
    ("linear", "message"),
    [
        (torch.diag(torch.tensor([1.0, 1, -1])), "reflection"),
        (torch.zeros(3, 3), "singular"),
        (torch.full((3, 3), torch.nan), "not finite"),
        (torch.diag(torch.tensor([1.0, 1, 2])), "scales unevenly"),
        (so3_exp(torch.ones(3)) + torch.tensor([[0, 0.1, 0]] * 3), "shears"),
    ],
)
def test_matrices_that_are_not_similarities_are_rejected(linear, message):
    matrix = torch.eye(4)
    matrix[:3, :3] = linear
    with pytest.raises(InputError, match=message):
        se3.split_similarity(matrix)


def test_row_vector_matrices_are_rejected():
    matrix = torch.eye(4)
    matrix[3, 0] = 5.0
    with pytest.raises(InputError, match="last row"):
        se3.split_similarity(matrix)
