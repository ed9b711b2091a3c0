import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from vision3d.core.errors import ConfigError, ShapeError
from vision3d.geometry import gram_schmidt, se3 as motions
from vision3d.geometry.groups import linear, se3, sim3, so2, so3, son, spd
from vision3d.geometry.rotation import hat
from vision3d.geometry.spectral import matrix_exp

GROUPS = {"so3": (so3, 3), "se3": (se3, 6), "sim3": (sim3, 7)}
numbers = st.lists(st.floats(-1.1, 1.1), min_size=7, max_size=7).map(lambda x: torch.tensor(x, dtype=torch.float64))


def close(actual, expected, atol=1e-12, rtol=1e-10):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)


def generator(name, x):
    """The matrix of the Lie algebra."""
    if name == "so3":
        return hat(x)
    matrix = torch.zeros(4, 4, dtype=x.dtype)
    matrix[:3, :3], matrix[:3, 3] = hat(x[3:6]), x[:3]
    if name == "sim3":
        matrix[:3, :3] += x[6] * torch.eye(3, dtype=x.dtype)
    return matrix


@pytest.mark.parametrize("name", GROUPS)
@settings(max_examples=40)
@given(numbers, numbers)
def test_group_axioms(name, x, y):
    group, width = GROUPS[name]
    x, y = x[:width], y[:width]
    a, b = group.exp(x), group.exp(y)
    close(group.log(a), x)
    close(a @ group.exp(-x), torch.eye(len(a), dtype=torch.float64))
    close(a, matrix_exp(generator(name, x)))
    inverse = torch.linalg.inv(a)
    close(a @ b @ inverse, group.exp(group.adjoint(a) @ y))
    close(group.adjoint(a @ b), group.adjoint(a) @ group.adjoint(b))
    close(group.adjoint(a), matrix_exp(group.ad(x)))
    bracket = generator(name, x) @ generator(name, y) - generator(name, y) @ generator(name, x)
    close(generator(name, group.ad(x) @ y), bracket)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("angle", [0, 1e-12, 1e-6, 1e-3, 0.9999, 1.0001, 2, 3, math.pi - 1e-6])
def test_jacobians(name, angle):
    group, width = GROUPS[name]
    x = torch.randn(width, dtype=torch.float64)
    turn = slice(0, 3) if name == "so3" else slice(3, 6)
    x[turn] = angle * torch.nn.functional.normalize(x[turn], dim=0)
    ad = group.ad(x)
    series, term = torch.eye(width, dtype=torch.float64), torch.eye(width, dtype=torch.float64)
    for k in range(1, 60):
        term = term @ ad / (k + 1)
        series = series + term
    close(group.left_jacobian(x), series, atol=1e-11)
    close(group.right_jacobian(x), matrix_exp(-ad) @ series, atol=1e-11)
    close(group.left_jacobian_inverse(x) @ series, torch.eye(width, dtype=torch.float64), atol=1e-11)
    close(group.right_jacobian_inverse(x) @ group.right_jacobian(x), torch.eye(width, dtype=torch.float64), atol=1e-11)
    # Definition: d exp(x + e) exp(x)^-1 at e = 0.
    moved = torch.autograd.functional.jacobian(
        lambda e: group.log(group.exp(x + e) @ torch.linalg.inv(group.exp(x))), torch.zeros(width, dtype=torch.float64)
    )
    close(moved, group.left_jacobian(x), atol=1e-9)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("angle", [0, 1e-8, 0.9999, 1.0001, 3.0])
def test_derivatives_of_two_orders(name, angle):
    group, width = GROUPS[name]
    x = torch.randn(1, width, dtype=torch.float64)
    turn = slice(0, 3) if name == "so3" else slice(3, 6)
    x[:, turn] = angle * torch.nn.functional.normalize(x[:, turn], dim=-1)
    x.requires_grad_()
    assert torch.autograd.gradcheck(group.exp, x)
    assert torch.autograd.gradgradcheck(group.exp, x, fast_mode=True)
    matrices, start = group.exp(x).detach(), torch.zeros(1, width, dtype=torch.float64, requires_grad=True)

    def around(d):
        return group.log(group.exp(d) @ matrices)

    assert torch.autograd.gradcheck(around, start)
    assert torch.autograd.gradgradcheck(around, start, fast_mode=True)
    assert torch.autograd.gradcheck(group.left_jacobian_inverse, x)


@pytest.mark.parametrize("name", GROUPS)
def test_under_vmap(name):
    group, width = GROUPS[name]
    x = torch.randn(4, width, dtype=torch.float64)
    matrices = group.exp(x)
    close(torch.vmap(group.exp)(x), matrices)
    close(torch.vmap(group.log)(matrices), group.log(matrices))
    close(torch.vmap(torch.func.jacrev(group.exp))(x)[2], torch.autograd.functional.jacobian(group.exp, x[2]))
    close(torch.vmap(group.left_jacobian_inverse)(x), group.left_jacobian_inverse(x))


def test_similarities_at_extreme_scales():
    phi = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    for sigma in (-20.0, -1e-9, 0.0, 1e-9, 20.0):
        for angle in (0.0, 1e-9, 3.1):
            x = torch.cat([torch.randn(50, 3).double(), angle * phi, torch.full((50, 1), sigma)], -1)
            matrices = sim3.exp(x)
            close(matrices[7], matrix_exp(generator("sim3", x[7])), atol=0, rtol=1e-9)
            close(sim3.log(matrices), x)
            close(sim3.inverse(matrices) @ matrices, torch.eye(4, dtype=torch.float64).expand(50, 4, 4), atol=1e-11)


def test_similarities_without_scale_are_rigid_motions():
    x = torch.randn(20, 6, dtype=torch.float64)
    seven = torch.cat([x, torch.zeros(20, 1)], -1)
    close(sim3.exp(seven), se3.exp(x))
    close(sim3.left_jacobian(seven)[:, :6, :6], se3.left_jacobian(x))


def test_agrees_with_kornia():
    liegroup = pytest.importorskip("kornia.geometry.liegroup")
    x = torch.randn(20, 3, dtype=torch.float64)
    close(so3.left_jacobian(x), liegroup.So3.left_jacobian(x), atol=1e-9)
    close(so3.right_jacobian(x), liegroup.So3.right_jacobian(x), atol=1e-9)


@given(st.floats(-3.1, 3.1), st.floats(-3.1, 3.1))
def test_planar_rotations(a, b):
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    close(so2.log(so2.exp(a)), a)
    close(so2.exp(a) @ so2.exp(b), so2.exp(a + b))
    close(so2.exp(a), matrix_exp(so2.hat(a)))
    close(so2.from_vector(3 * so2.to_vector(so2.exp(a))), so2.exp(a))
    assert so2.adjoint(so2.exp(a)).item() == 1


def test_planar_rotations_at_the_limits():
    assert so2.log(-torch.eye(2)).abs().item() == pytest.approx(math.pi)
    zero = torch.zeros(2, requires_grad=True)
    found = so2.from_vector(zero)
    torch.testing.assert_close(found.detach(), torch.eye(2))
    assert (torch.autograd.grad(found.sum(), zero)[0] == 0).all()


@pytest.mark.parametrize("n", range(2, 9))
def test_rotations_of_n_dimensions(n):
    skew = torch.randn(50, n, n, dtype=torch.float64) / n
    skew = skew - skew.mT
    rotmats = son.exp(skew)
    close(rotmats, matrix_exp(skew))
    largest = torch.linalg.eigvals(skew).imag.abs().amax(-1)
    inside = largest < 3.1  # beyond pi another logarithm is shorter
    assert inside.sum() > 30
    close(son.log(rotmats)[inside], skew[inside], atol=1e-11)
    close(son.exp(son.log(rotmats)), rotmats, atol=1e-11)
    leaf = skew[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: son.log(son.exp(s)), leaf)


def hard_matrices(n):
    """Matrices without a real logarithm, in n dimensions."""
    rows = [[-2.0, -0.5], [-1.0, -1.0], [-1.0, -2.0]]
    return torch.diag_embed(torch.tensor([row + [1.0 + k for k in range(n - 2)] for row in rows], dtype=torch.float64))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("group", ["gl", "sl"])
def test_polar_chart_round_trip(n, group):
    symmetric = torch.randn(100_000 if n == 2 else 5000, n, n, dtype=torch.float64)
    symmetric = (symmetric + symmetric.mT) / 2
    spread = torch.linalg.eigvalsh(symmetric)
    symmetric = symmetric * (math.log(1e3) / (spread[..., -1] - spread[..., 0])).clamp(max=1)[..., None, None]
    matrices = matrix_exp(symmetric) @ gram_schmidt.haar_rotmats(n, len(symmetric), dtype=torch.float64)
    matrices = torch.cat([matrices, hard_matrices(n)])
    if group == "sl":
        matrices = matrices / torch.linalg.det(matrices).pow(1 / n)[:, None, None]
    assert (torch.linalg.cond(matrices) < 1.01e3).all()
    stretch, turn = linear.polar(matrices)
    close(stretch @ turn, matrices, atol=1e-12)
    assert (torch.linalg.det(turn) - 1).abs().max() < 1e-12 and (torch.linalg.eigvalsh(stretch) > 0).all()
    values = linear.coordinates(matrices, group)
    assert values.shape[-1] == n * n - (group == "sl")
    back = linear.from_coordinates(values, n, group)
    assert ((back - matrices).norm(dim=(1, 2)) / matrices.norm(dim=(1, 2))).max() < 1e-12


def test_the_chart_exists_where_logarithms_of_scipy_fail():
    linalg = pytest.importorskip("scipy.linalg")
    for matrix in hard_matrices(2)[[0, 2]]:
        assert np.iscomplexobj(linalg.logm(matrix.numpy()))
        assert linear.coordinates(matrix).isfinite().all()


@given(st.integers(2, 4), st.sampled_from(["gl", "sl"]))
def test_coordinates_are_orthonormal(n, group):
    x = torch.randn(linear.dimension(n, group), dtype=torch.float64) / 2
    symmetric, skew = linear.log(linear.from_coordinates(x, n, group))
    close((symmetric + skew).square().sum(), x.square().sum())
    if group == "sl":
        close(torch.linalg.det(linear.from_coordinates(x, n, group)), torch.tensor(1.0, dtype=torch.float64))


def test_basis_of_the_plane():
    s = math.sqrt(0.5)
    gl = [[[1, 0], [0, 0]], [[0, s], [s, 0]], [[0, 0], [0, 1]], [[0, -s], [s, 0]]]
    sl = [[[0, s], [s, 0]], [[0, -s], [s, 0]], [[s, 0], [0, -s]]]
    for group, basis in (("gl", gl), ("sl", sl)):
        for k, matrix in enumerate(basis):
            x = torch.zeros(len(basis), dtype=torch.float64)
            x[k] = 0.3
            close(linear.from_coordinates(x, 2, group), matrix_exp(0.3 * torch.tensor(matrix, dtype=torch.float64)))


def test_linear_group_agrees_with_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    matrices = torch.randn(20, 3, 3, dtype=torch.float64)
    for matrix in [*matrices, *(0.01 * k * torch.nn.functional.normalize(matrices[0]) for k in range(1, 9))]:
        assert linear.exp(matrix).numpy() == pytest.approx(linalg.expm(matrix.numpy()), rel=1e-12, abs=1e-12)
        if torch.linalg.det(matrix) > 0:
            turn, stretch = linalg.polar(matrix.numpy(), side="left")
            assert linear.polar(matrix)[0].numpy() == pytest.approx(stretch, abs=1e-11)
            assert linear.polar(matrix)[1].numpy() == pytest.approx(turn, abs=1e-11)
    x = torch.randn(3, 3, dtype=torch.float64)
    g = linear.exp(matrices[0])
    close((linear.adjoint(g) @ x.flatten()).view(3, 3), g @ x @ linear.inverse(g), atol=1e-9)


def test_derivatives_of_the_polar_chart():
    # Scaled rotations, the most common matrices, have equal singular values.
    for n in (2, 3):
        for matrix in (
            1.5 * gram_schmidt.haar_rotmats(n, dtype=torch.float64),
            linear.exp(torch.randn(n, n, dtype=torch.float64) / 2),
        ):
            leaf = matrix.requires_grad_()
            assert torch.autograd.gradcheck(linear.coordinates, leaf)
            assert torch.autograd.gradgradcheck(linear.coordinates, leaf, fast_mode=True)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_positive_definite_matrices(n):
    linalg = pytest.importorskip("scipy.linalg")
    symmetric = torch.randn(30, n, n, dtype=torch.float64)
    symmetric = (symmetric + symmetric.mT) / 2
    positive = spd.exp(symmetric)
    close(spd.log(positive), symmetric, atol=1e-11)
    close(spd.sqrt(positive) @ spd.sqrt(positive), positive, rtol=1e-11)
    close(
        spd.inverse_sqrt(positive) @ positive @ spd.inverse_sqrt(positive),
        torch.eye(n, dtype=torch.float64).expand(30, n, n),
        atol=1e-10,
    )
    assert positive[3].numpy() == pytest.approx(linalg.expm(symmetric[3].numpy()), rel=1e-11)
    assert spd.sqrt(positive[3]).numpy() == pytest.approx(linalg.sqrtm(positive[3].numpy()), rel=1e-10)
    g = linear.exp(torch.randn(n, n, dtype=torch.float64) / n)
    close(
        spd.geodesic_distance(g @ positive[:9] @ g.mT, g @ positive[9:18] @ g.mT),
        spd.geodesic_distance(positive[:9], positive[9:18]),
        rtol=1e-8,
    )


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("function", [spd.exp, spd.log, spd.sqrt, spd.inverse_sqrt])
def test_derivatives_at_multiples_of_the_identity(n, function):
    for matrix in (2.5 * torch.eye(n), 0.3 * torch.eye(n) + 1e-9 * torch.ones(n, n), torch.diag(torch.arange(1.0, n + 1))):
        leaf = matrix.double().requires_grad_()
        assert torch.autograd.gradcheck(function, leaf)
        assert torch.autograd.gradgradcheck(function, leaf)


def test_closed_forms_of_2x2_equal_the_decomposition():
    symmetric = torch.randn(200, 2, 2, dtype=torch.float64)
    symmetric = symmetric + symmetric.mT
    values, axes = torch.linalg.eigh(symmetric)
    close(spd.exp(symmetric), axes @ torch.diag_embed(values.exp()) @ axes.mT, rtol=1e-11, atol=1e-11)
    positive = spd.exp(symmetric / 2)
    values, axes = torch.linalg.eigh(positive)
    close(spd.log(positive), axes @ torch.diag_embed(values.log()) @ axes.mT, atol=1e-11)
    close(spd.sqrt(positive), axes @ torch.diag_embed(values.sqrt()) @ axes.mT, atol=1e-11)


@pytest.mark.wrong_types
def test_wrong_input_is_rejected():
    with pytest.raises(ConfigError, match=r"group: 'so' is not a linear group; (did you mean|valid: gl, sl)"):
        linear.dimension(2, "so")
    with pytest.raises(ShapeError, match=r"values: got shape \(4,\), want \(..., 3\)"):
        linear.from_coordinates(torch.zeros(4), 2, "sl")
    with pytest.raises(ShapeError, match=r"matrices: got shape \(2, 3\), want \(..., n, n\)"):
        spd.log(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"tangents: got shape \(6,\), want \(..., 7\)"):
        sim3.exp(torch.zeros(6))
    with pytest.raises(ShapeError, match=r"tangents: got shape \(7,\), want \(..., 6\)"):
        se3.left_jacobian(torch.zeros(7))
    with pytest.raises(ShapeError, match=r"rotmats: got shape \(3, 3\), want \(..., 2, 2\)"):
        so2.log(torch.eye(3))
    assert motions.exp is se3.exp
