import math

import pytest
import torch

from vision3d.geometry import smooth, vectors

# x, and the functions of x^2 to full precision (closed forms where they do not cancel, two series terms near zero).
FUNCTIONS = {
    "sin_over": (smooth.sin_over, lambda x: math.sin(x) / x, lambda x: 1 - x**2 / 6),
    "cos_of": (smooth.cos_of, math.cos, lambda x: 1 - x**2 / 2),
    "one_minus_cos_over": (
        smooth.one_minus_cos_over, lambda x: 2 * math.sin(x / 2) ** 2 / x**2, lambda x: 1 / 2 - x**2 / 24,
    ),
    "x_minus_sin_over": (smooth.x_minus_sin_over, lambda x: (x - math.sin(x)) / x**3, lambda x: 1 / 6 - x**2 / 120),
    "one_minus_half_cot_over": (
        smooth.one_minus_half_cot_over, lambda x: (1 - x / 2 / math.tan(x / 2)) / x**2, lambda x: 1 / 12 + x**2 / 720,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 4e-7), (torch.float64, 4e-15)])
def test_series_and_closed_form_are_continuous(name, dtype, tolerance):
    function, closed, near_zero = FUNCTIONS[name]
    for x in [0, 1e-30, 1e-9, 1e-5, 1e-4]:
        found = function(torch.tensor(x, dtype=dtype).square()).item()
        assert found == pytest.approx(near_zero(x), rel=tolerance)
    for x in [0.3, 0.9, 0.99999, 1, 1.00001, 2, 3, math.pi]:
        square = torch.tensor(x, dtype=torch.float64).square().to(dtype)
        found = function(square).item()
        assert found == pytest.approx(closed(square.double().sqrt().item()), rel=max(tolerance, 1e-13), abs=tolerance)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_smooth(name):
    squares = torch.tensor([0, 1e-20, 1e-6, 0.5, 0.9999, 1.0001, 4, 9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FUNCTIONS[name][0], squares, eps=1e-7, atol=1e-6)
    (slope,) = torch.autograd.grad(FUNCTIONS[name][0](squares).sum(), squares)
    # The next coefficient of the series.
    want = (FUNCTIONS[name][2](1e-2) - FUNCTIONS[name][2](0)) / 1e-4
    assert slope[0].item() == pytest.approx(want, rel=1e-6)


def test_atan_over():
    x = torch.tensor([1, 1, 1, 1, 0.5, 0, -1, -1], dtype=torch.float64)
    y = torch.tensor([0, 1e-9, 0.0999, 0.1001, 2, 1, 1, 1e-3], dtype=torch.float64)
    want = [1 if b == 0 else math.atan2(b, a) / b for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert smooth.atan_over(y.square(), x).tolist() == pytest.approx(want, rel=1e-14)
    pair = (y[:-1].square().requires_grad_(), x[:-1].clone().requires_grad_())
    assert torch.autograd.gradcheck(smooth.atan_over, pair, eps=1e-8, atol=1e-5)
    nothing = torch.zeros(2, requires_grad=True)
    value = smooth.atan_over(nothing, nothing)
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), nothing)[0].isfinite().all()


@pytest.mark.parametrize("size", [1e-37, 1e-20, 1.0, 1e20, 1e37])
def test_unit_at_any_scale(size):
    direction = torch.tensor([0.6, 0.0, -0.8])
    torch.testing.assert_close(vectors.unit(size * direction), direction)


def test_unit_of_zero():
    zero = torch.zeros(2, 3, requires_grad=True)
    assert (vectors.unit(zero) == 0).all()
    units = vectors.unit(zero, torch.tensor([0.0, 1, 0]))
    assert units.tolist() == [[0, 1, 0]] * 2
    assert (torch.autograd.grad(units.sum(), zero)[0] == 0).all()
    assert vectors.unit(torch.tensor([torch.nan, 1, 0])).isnan().any()  # invalid input stays visible


def test_orthogonal_directions():
    axes = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    axes[:3] = torch.eye(3)
    for other in (vectors.any_orthogonal(axes), vectors.orthogonal_part(torch.randn(500, 3), axes),
                  vectors.orthogonal_part(-3 * axes, axes), vectors.orthogonal_part(0 * axes, axes),
                  vectors.orthogonal_part(axes + 1e-5 * torch.randn(500, 3), axes)):  # fmt: skip
        torch.testing.assert_close(other.norm(dim=-1), torch.ones(500))
        assert (other * axes).sum(-1).abs().max() < 1e-6
    assert vectors.any_orthogonal(torch.zeros(3)).norm().item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_axis_vector(dtype):
    like = torch.rand(3, 2, dtype=dtype)
    for axis in range(4):
        found = vectors.axis_vector(like, axis, 4)
        assert found.dtype == dtype and torch.equal(found, torch.eye(4, dtype=dtype)[axis])
