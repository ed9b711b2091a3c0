"""Layers of the operators with native loops, against torch in float64."""

import pytest
import torch
from torch.func import functional_call

from vision3d.stages.detect.operators import native_layers
from vision3d.stages.detect.operators.base import RMSNorm, silu_gate, softplus
from vision3d.stages.detect.operators.convolution import shifted_sum
from vision3d.stages.detect.operators.groups import Groups


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("channels", "width"), [(1, 1), (3, 4), (16, 4), (37, 2), (64, 7)])
def test_native_convolution_is_that_of_torch(isa, channels, width, reverse):
    groups = Groups(torch.tensor([0, 5, 5, 6, 8, 600, 603]))
    values = [
        torch.randn(*shape, dtype=torch.float64) for shape in ((603, channels), (channels, width), (channels,), (603, channels))
    ]
    compare_gradients(lambda x, weight, bias: shifted_sum(x, weight, bias, groups, reverse), values, 2e-5)


@pytest.mark.parametrize("shape", [(1, 1), (0, 8), (700, 8), (7, 4, 8), (5, 37), (1100, 64)])
def test_native_rms_norm_is_that_of_torch(isa, shape):
    values = [torch.randn(*size, dtype=torch.float64) for size in (shape, shape[-1:], shape)]
    compare_gradients(lambda x, weight: functional_call(RMSNorm(shape[-1]).to(x), {"weight": weight}, (x,)), values, 2e-5)


def test_native_rms_norm_of_nan_and_zero():
    x = torch.zeros(3, 8)
    x[1, 2] = torch.nan
    y = RMSNorm(8)(x)
    assert bool(y[1].isnan().all()) and not bool(y[[0, 2]].any())


@pytest.mark.parametrize("columns", [(0, 5, 5, 10), (8, 45, 0, 37), (0, 1, 1, 2), (0, 64, 0, 64)])
def test_native_gate_of_columns_is_that_of_torch(isa, columns):
    """Gate and values are often columns of one matrix product, which are not copied."""
    a, b, c, d = columns
    values = [4 * torch.randn(1030, max(columns), dtype=torch.float64), torch.randn(1030, b - a, dtype=torch.float64)]
    compare_gradients(lambda both: silu_gate(both[:, a:b], both[:, c:d]), values, 1e-6)


def test_native_gate_of_extremes(isa):
    gate = torch.tensor([[-torch.inf, -1e4, -100.0, 0, 100, 1e4, torch.nan]], requires_grad=True)
    x = torch.ones(1, 7, requires_grad=True)
    y = silu_gate(gate, x)
    v_gate, v_x = torch.autograd.grad(y.sum(), (gate, x))
    assert y[0, 1:6].tolist() == pytest.approx([0, 0, 0, 100, 1e4], abs=1e-30)
    assert v_gate[0, 1:6].tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-30)
    assert bool(y[0, 6].isnan()) and bool(v_gate[0, 6].isnan()) and bool(v_x[0, 6].isnan())


@pytest.mark.parametrize("shape", [(0, 4), (3, 5), (40000,)])
def test_native_softplus_is_that_of_torch(isa, shape):
    values = [8 * torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)]
    compare_gradients(softplus, values, 1e-6)


def test_native_softplus_is_precise_where_it_is_small(isa):
    x = torch.tensor([-80.0, -40, -20, -10, -1, 0, 1, 20, 90, torch.nan], requires_grad=True)
    y = softplus(x)
    want = torch.nn.functional.softplus(x.detach().double(), threshold=50)
    assert torch.allclose(y[:-1].double(), want[:-1], rtol=1e-6, atol=0)
    assert torch.allclose(
        torch.autograd.grad(y.sum(), x)[0].double(), torch.sigmoid(x.double()), rtol=1e-6, atol=0, equal_nan=True
    )
    assert bool(y[-1].isnan())


def compare_gradients(function, values, tolerance):
    """Outputs and gradients in float32, which are native, and in float64, which torch computes."""
    found = []
    for dtype in (torch.float32, torch.float64):
        *inputs, v_y = (value.to(dtype) for value in values)
        inputs = [value.clone().requires_grad_() for value in inputs]
        assert native_layers.is_native(inputs[0]) == (dtype == torch.float32)
        y = function(*inputs)
        found.append([y.detach(), *torch.autograd.grad(y, inputs, v_y)])
    for got, want in zip(*found):
        assert torch.allclose(
            got.double(), want, rtol=tolerance, atol=tolerance * max(1.0, float(want.abs().max()) if want.numel() else 0)
        )
