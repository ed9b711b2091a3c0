import pytest
import torch

from vision3d.geometry import spectral
from vision3d.geometry.gram_schmidt import haar_rotmats


def spd(n, *values):
    axes = haar_rotmats(n, dtype=torch.float64)
    return axes @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ axes.mT


MATRICES = {
    "general": lambda: spd(3, 0.4, 1.3, 2.9),
    "multiple of the identity": lambda: 1.7 * torch.eye(3, dtype=torch.float64),
    "two equal": lambda: spd(3, 2.0, 2, 0.3),
    "nearly equal": lambda: spd(3, 1.0, 1 + 1e-7, 1 - 1e-7),
    "four": lambda: spd(4, 0.2, 1, 1, 5),
}
FUNCTIONS = {
    "sqrt": (spectral.sqrt_spd, lambda m: spectral.sqrt_spd(m) @ spectral.sqrt_spd(m)),
    "log": (spectral.log_spd, lambda m: torch.linalg.matrix_exp(spectral.log_spd(m))),
    "exp": (spectral.exp_symmetric, lambda m: spectral.log_spd(spectral.exp_symmetric(m))),
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_symmetric_matrices(name, matrix):
    function, there_and_back = FUNCTIONS[name]
    values = MATRICES[matrix]()
    torch.testing.assert_close(there_and_back(values), values, atol=1e-12, rtol=0)
    leaf = values.requires_grad_()
    assert torch.autograd.gradcheck(function, leaf)
    assert torch.autograd.gradgradcheck(function, leaf)


@pytest.mark.parametrize("matrix", MATRICES)
def test_equations(matrix):
    values = MATRICES[matrix]()
    n = len(values)
    right, vector = torch.randn(n, n, dtype=torch.float64), torch.randn(n, dtype=torch.float64)
    solution = spectral.lyapunov(values, right)
    torch.testing.assert_close(values @ solution + solution @ values, right)
    torch.testing.assert_close(values @ spectral.pseudo_solve(values, vector), vector)
    for function, other in ((spectral.lyapunov, right), (spectral.pseudo_solve, vector)):
        leaves = (values.clone().requires_grad_(), other.requires_grad_())
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


def test_singular_equations_are_solved_if_possible():
    singular = torch.diag(torch.tensor([0.0, 0.0, 2.0]))
    torch.testing.assert_close(spectral.pseudo_solve(singular, torch.ones(3)), torch.tensor([0, 0, 0.5]))
    solution = spectral.lyapunov(singular, torch.ones(3, 3))
    torch.testing.assert_close(solution, torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0.5, 0.5, 0.25]]))
    opposite = torch.diag(torch.tensor([1.0, -1.0, 0.5]))  # 1 - 1 = 0
    assert spectral.lyapunov(opposite, torch.ones(3, 3))[0, 1] == 0


def test_eigenvector_of_the_smallest_eigenvalue():
    values = spd(4, -1.0, 0.5, 0.5, 3)
    axis = spectral.least_eigenvector(values)
    torch.testing.assert_close(values @ axis, -axis)
    leaf = values.requires_grad_()

    def outer(matrix):  # the sign is free
        found = spectral.least_eigenvector(matrix)
        return found[:, None] * found[None, :]

    assert torch.autograd.gradcheck(outer, leaf)
    assert torch.autograd.gradgradcheck(outer, leaf)
    for matrix in (torch.eye(4), torch.zeros(4, 4), 1e30 * torch.eye(4), torch.diag(torch.tensor([1e-44, 0, -1, 1e-40]))):
        leaf = matrix.clone().requires_grad_()
        found = spectral.least_eigenvector(leaf)
        assert found.norm().item() == pytest.approx(1)
        assert torch.autograd.grad(found.sum(), leaf)[0].isfinite().all()


def test_under_vmap():
    values = torch.stack([spd(3, 1.0, 2, 3), spd(3, 1.0, 1, 1)])
    for function in (spectral.sqrt_spd, spectral.log_spd, spectral.exp_symmetric, spectral.least_eigenvector):
        torch.testing.assert_close(torch.vmap(function)(values), function(values))
        grads = torch.vmap(torch.func.grad(lambda m, f=function: f(m).square().sum().sin()))(values)
        assert grads.isfinite().all()
