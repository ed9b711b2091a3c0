import math

import pytest
import torch

from tests.support.rotations import hostile
from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import gram_schmidt, rotation
from vision3d.geometry.procrustes import orthogonal, singular_values, special_orthogonal

SIZES = range(2, 9)


def haar64(n, *shape):
    return gram_schmidt.haar_rotmats(n, *shape, dtype=torch.float64)


def check_rotations(rotmats, atol):
    exact = rotmats.double()
    eye = torch.eye(exact.shape[-1], dtype=torch.float64)
    assert (exact.mT @ exact - eye).abs().max() < atol
    assert (torch.linalg.det(exact) - 1).abs().max() < atol


@pytest.mark.parametrize("n", SIZES)
def test_equals_the_qr_decomposition(n):
    vectors = torch.randn(200, n, n - 1, dtype=torch.float64)
    q, r = torch.linalg.qr(vectors)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    rotmats = gram_schmidt.gram_schmidt(vectors)
    torch.testing.assert_close(rotmats[..., :-1], q)
    check_rotations(rotmats, 1e-14)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.float64, 1e-13)])
def test_is_a_rotation_at_every_scale(n, dtype, atol):
    values = torch.randn(1300, n * n - n, dtype=dtype) * 10.0 ** torch.arange(-6, 7).repeat_interleave(100)[:, None]
    check_rotations(gram_schmidt.from_columns(values, n), atol)
    values = torch.randn(1300, n * n - 2 * n + 2, dtype=dtype) * 10.0 ** torch.arange(-6, 7).repeat_interleave(100)[:, None]
    check_rotations(gram_schmidt.from_stereographic(values, n), atol)


@pytest.mark.parametrize("n", SIZES)
def test_degenerate_columns(n):
    width = n * n - n
    rows = [torch.zeros(width), torch.ones(width), torch.arange(width) % n == 0, 1e-30 * torch.ones(width)]
    values = torch.stack([row.double() for row in rows]).requires_grad_()
    rotmats = gram_schmidt.from_columns(values, n)
    check_rotations(rotmats.detach(), 1e-13)
    assert torch.autograd.grad(rotmats.sum(), values)[0].isfinite().all()
    values = torch.stack([row.double()[: width - n + 2] for row in rows]).requires_grad_()
    rotmats = gram_schmidt.from_stereographic(values, n)
    check_rotations(rotmats.detach(), 1e-13)
    assert torch.autograd.grad(rotmats.sum(), values)[0].isfinite().all()


@pytest.mark.parametrize("n", SIZES)
def test_round_trips(n):
    rotmats = haar64(n, 2000)
    torch.testing.assert_close(gram_schmidt.from_columns(gram_schmidt.to_columns(rotmats), n), rotmats, atol=1e-13, rtol=0)
    values = gram_schmidt.to_stereographic(rotmats)
    assert values.shape == (2000, n * n - 2 * n + 2) and values.abs().max() <= 1
    torch.testing.assert_close(gram_schmidt.from_stereographic(values, n), rotmats, atol=1e-12, rtol=0)


def test_dimensions_of_the_literature():
    assert [n * n - n for n in (2, 3, 4)] == [gram_schmidt.to_columns(haar64(n, 1)).shape[1] for n in (2, 3, 4)] == [2, 6, 12]
    assert [gram_schmidt.to_stereographic(haar64(n, 1)).shape[1] for n in (2, 3, 4)] == [2, 5, 10]


def test_three_dimensions_are_the_6d_representation():
    values = hostile(2000, 6, torch.float64)
    values = values[rotation.from_6d(values).isfinite().all(-1).all(-1)]
    first = gram_schmidt.from_columns(values, 3)
    torch.testing.assert_close(first[..., 0], rotation.from_6d(values)[..., 0])
    normal = torch.randn(500, 6, dtype=torch.float64)
    torch.testing.assert_close(gram_schmidt.from_columns(normal, 3), rotation.from_6d(normal))
    # The alternative form: z = x cross y, y = z cross x.
    x = torch.nn.functional.normalize(normal[:, :3], dim=1)
    z = torch.nn.functional.normalize(torch.linalg.cross(x, normal[:, 3:]), dim=1)
    torch.testing.assert_close(rotation.from_6d(normal), torch.stack([x, torch.linalg.cross(z, x), z], -1))


@pytest.mark.parametrize("n", SIZES)
def test_generalized_cross_product(n):
    vectors = torch.randn(20, n, n - 1, dtype=torch.float64)
    cross = gram_schmidt.generalized_cross(vectors)
    torch.testing.assert_close(
        (vectors * cross[..., None]).sum(-2), torch.zeros(20, n - 1, dtype=torch.float64), atol=1e-11, rtol=0
    )
    whole = torch.cat([vectors, cross[..., None]], -1)
    torch.testing.assert_close(torch.linalg.det(whole), cross.square().sum(-1))
    if n == 3:
        torch.testing.assert_close(cross, torch.linalg.cross(vectors[..., 0], vectors[..., 1]))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_gradients(n):
    for function, width in ((gram_schmidt.from_columns, n * n - n), (gram_schmidt.from_stereographic, n * n - 2 * n + 2)):
        values = torch.randn(1, width, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, f=function: f(x, n), values)
        assert torch.autograd.gradgradcheck(lambda x, f=function: f(x, n), values, fast_mode=True)
    rotmats = haar64(n, 2).requires_grad_()
    assert torch.autograd.gradcheck(gram_schmidt.to_stereographic, rotmats)


@pytest.mark.parametrize("n", SIZES)
def test_special_orthogonal_is_the_closest_rotation(n):
    matrices = torch.randn(40, n, n, dtype=torch.float64)
    assert (torch.linalg.det(matrices) < 0).any()
    nearest = special_orthogonal(matrices)
    check_rotations(nearest, 1e-13)
    others = torch.cat(
        [
            haar64(n, 500, 1).expand(500, 40, n, n),
            nearest @ torch.linalg.matrix_exp(_skew(1e-3 * torch.randn(100, 1, n, n).double())),
        ]
    )
    distance = (matrices - nearest).norm(dim=(1, 2))
    assert (distance <= (matrices - others).norm(dim=(2, 3)).amin(0) + 1e-12).all()
    left, right = haar64(n, 40), haar64(n, 40)
    torch.testing.assert_close(special_orthogonal(left @ matrices @ right), left @ nearest @ right, atol=1e-10, rtol=0)
    torch.testing.assert_close(special_orthogonal(nearest), nearest, atol=1e-13, rtol=0)


@pytest.mark.parametrize("n", SIZES)
def test_gradients_of_the_projections(n):
    weights = torch.randn(n, n, dtype=torch.float64)
    eye = torch.eye(n, dtype=torch.float64)
    for function in (special_orthogonal, orthogonal):
        for matrix in (torch.randn(n, n, dtype=torch.float64), eye, 3 * haar64(n)):  # equal singular values
            leaf = matrix.clone().requires_grad_()
            assert torch.autograd.gradcheck(lambda x, f=function: (f(x) * weights).sum(), leaf)
            assert torch.autograd.gradgradcheck(lambda x, f=function: (f(x) * weights).sum(), leaf, fast_mode=n > 4)
        for matrix in (0 * eye, torch.ones_like(eye), -eye, torch.diag(torch.tensor([1.0] * (n - 1) + [-1]).double())):
            leaf = matrix.clone().requires_grad_()
            (grad,) = torch.autograd.grad((function(leaf) * weights).sum(), leaf, create_graph=True)
            assert grad.isfinite().all()
            assert torch.autograd.grad(grad.sum(), leaf, allow_unused=True)[0].isfinite().all()


def test_half_of_the_gradient_at_the_identity():
    # d R = skew part of d M at M = I.
    jacobian = torch.autograd.functional.jacobian(special_orthogonal, torch.eye(3, dtype=torch.float64))
    step = torch.randn(3, 3, dtype=torch.float64)
    torch.testing.assert_close((jacobian * step).sum((-2, -1)), (step - step.mT) / 2)


def test_orthogonal_keeps_the_determinant_sign():
    matrices = torch.randn(50, 4, 4, dtype=torch.float64)
    nearest = orthogonal(matrices)
    torch.testing.assert_close(torch.linalg.det(nearest).sign(), torch.linalg.det(matrices).sign())
    left, values, right = torch.linalg.svd(matrices)
    torch.testing.assert_close(nearest, left @ right)
    assert (values > 0).all()


@pytest.mark.parametrize("n", [2, 3, 5])
def test_head_for_mirrors(n):
    sides = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    matrices = gram_schmidt.orthogonal_from_columns(torch.randn(3, n * n - n, dtype=torch.float64), sides, n)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.tensor([-1.0, 1, 1], dtype=torch.float64))
    torch.testing.assert_close(matrices.mT @ matrices, torch.eye(n, dtype=torch.float64).expand(3, n, n))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_head_for_similarities(n):
    values, shifts = torch.randn(5, n * n - n, dtype=torch.float64), torch.randn(5, n, dtype=torch.float64)
    matrices = gram_schmidt.similarity_from_columns(values, shifts)
    scale = values[:, :n].norm(dim=1)
    torch.testing.assert_close(matrices[:, :n, :n] / scale[:, None, None], gram_schmidt.from_columns(values, n))
    torch.testing.assert_close(matrices[:, :n, n], shifts)
    assert (matrices[:, n] == torch.eye(n + 1)[n]).all()
    again = gram_schmidt.similarity_from_columns(*gram_schmidt.similarity_to_columns(matrices))
    torch.testing.assert_close(again, matrices)


@pytest.mark.parametrize("n", SIZES)
def test_haar_moments(n):
    rotmats = gram_schmidt.haar_rotmats(n, 20_000, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    trace = rotmats.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert rotmats.mean(0).abs().max() < 0.04
    assert trace.square().mean().item() == pytest.approx(2 if n == 2 else 1, abs=0.07)
    # Multiplying by a fixed left factor changes nothing: the same moments of A R.
    turned = haar64(n) @ rotmats
    assert turned.diagonal(dim1=-2, dim2=-1).sum(-1).square().mean().item() == pytest.approx(2 if n == 2 else 1, abs=0.07)


def test_haar_angles():
    rotmats = gram_schmidt.haar_rotmats(3, 100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angles = rotation.so3_log(rotmats).norm(dim=1)
    edges = torch.linspace(0, math.pi, 41, dtype=torch.float64)
    found = torch.histogram(angles, edges).hist
    want = 100_000 * ((edges[1:] - edges[1:].sin()) - (edges[:-1] - edges[:-1].sin())) / math.pi
    assert ((found - want).square() / want).sum() < 78  # chi-square with 39 degrees of freedom: 2e-4
    again = gram_schmidt.haar_rotmats(3, 100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(again, rotmats)


def test_equivariance():
    left, right = haar64(3, 100), haar64(3, 100)
    matrices = torch.randn(100, 3, 3, dtype=torch.float64)
    by_columns = gram_schmidt.gram_schmidt(matrices[..., :2])
    torch.testing.assert_close(gram_schmidt.gram_schmidt(left @ matrices[..., :2]), left @ by_columns)
    assert (gram_schmidt.gram_schmidt((matrices @ right)[..., :2]) - by_columns @ right).abs().max() > 0.5  # only from the left


@pytest.mark.parametrize(("projection", "want", "margin"), [("svd", 3.0, 0.06), ("gram_schmidt", 6.0, 0.12)])
def test_noise_law(projection, want, margin):
    # Levinson et al. 2020: E |f(R + s N) - R|^2 = 3 s^2 by SVD and 6 s^2 by Gram-Schmidt, to first order.
    rotmats, sigma = haar64(3, 200_000), 0.01
    noisy = rotmats + sigma * torch.randn_like(rotmats)
    found = rotation.nearest_rotation(noisy) if projection == "svd" else rotation.from_6d(rotation.to_6d(noisy))
    assert ((found - rotmats).square().sum((1, 2)).mean() / sigma**2).item() == pytest.approx(want, abs=margin)


@pytest.mark.wrong_types
def test_wrong_input_is_rejected():
    with pytest.raises(ShapeError, match=r"vectors: got shape \(3, 3\), want \(..., n, n - 1\)"):
        gram_schmidt.gram_schmidt(torch.zeros(3, 3))
    with pytest.raises(ShapeError, match=r"vectors: got shape \(1, 0\)"):
        gram_schmidt.generalized_cross(torch.zeros(1, 0))
    with pytest.raises(ShapeError, match=r"values: got shape \(6,\), want \(..., 12\)"):
        gram_schmidt.from_columns(torch.zeros(6), 4)
    with pytest.raises(ShapeError, match=r"values: got shape \(6,\), want \(..., 10\)"):
        gram_schmidt.from_stereographic(torch.zeros(6), 4)
    with pytest.raises(ShapeError, match=r"values: got shape \(5,\), want \(..., 6\) for translations of 3 numbers"):
        gram_schmidt.similarity_from_columns(torch.zeros(5), torch.zeros(3))
    with pytest.raises(ShapeError, match=r"matrices: got shape \(2, 2\)"):
        gram_schmidt.similarity_to_columns(torch.zeros(2, 2))
    with pytest.raises(InputError, match="n: got 1, want at least 2 dimensions"):
        gram_schmidt.haar_rotmats(1)
    for function in (special_orthogonal, orthogonal):
        with pytest.raises(ShapeError, match=r"matrices: got shape \(3, 2\), want \(..., n, n\), n >= 2"):
            function(torch.zeros(3, 2))


def _skew(matrices):
    return matrices - matrices.mT


@pytest.mark.parametrize("n", [2, 3, 5])
def test_singular_values_have_the_sign_of_the_determinant(n):
    matrices = torch.randn(60, n, n, dtype=torch.float64, requires_grad=True)
    values = singular_values(matrices)
    torch.testing.assert_close(values.abs(), torch.linalg.svdvals(matrices))
    torch.testing.assert_close(values.prod(-1), torch.linalg.det(matrices))
    distance = (matrices - special_orthogonal(matrices)).square().sum((-2, -1))
    torch.testing.assert_close(distance, (values - 1).square().sum(-1))
    assert torch.autograd.gradcheck(singular_values, (matrices[:5],))
    bad = torch.randn(2, n, n)
    bad[1, 0, 0] = torch.nan
    assert singular_values(bad).isfinite().tolist() == [[True] * n, [False] * n]


def test_regularization_adds_the_gradient_of_the_distance():
    roma = pytest.importorskip("roma")
    matrices, v = torch.randn(20, 3, 3, dtype=torch.float64, requires_grad=True), torch.randn(20, 3, 3, dtype=torch.float64)

    def gradient(function, **options):
        return torch.autograd.grad((function(matrices, **options) * v).sum(), matrices)[0]

    found = gradient(special_orthogonal, regularization=0.3)
    distance = (matrices - special_orthogonal(matrices)).square().sum()
    torch.testing.assert_close(found, gradient(special_orthogonal) + 0.3 * torch.autograd.grad(distance, matrices)[0])
    theirs = gradient(roma.special_procrustes, regularization=0.6)  # adds half of the documented term
    torch.testing.assert_close(found, theirs, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(special_orthogonal(matrices, 0.3), special_orthogonal(matrices))
    _, tangent = torch.func.jvp(lambda m: special_orthogonal(m, 0.3), (matrices.detach(),), (v,))
    torch.testing.assert_close(tangent, torch.func.jvp(special_orthogonal, (matrices.detach(),), (v,))[1])
