"""Layers of the operators with native loops, against torch in float64."""

import pytest
import torch
from torch.func import functional_call

from vision3d.stages.detect.operators import native_layers
from vision3d.stages.detect.operators.base import RMSNorm
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
