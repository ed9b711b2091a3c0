"""The fused kernel builder against torch, and its registered operation."""

import pytest
import torch

from vision3d.core import native
from vision3d.geometry.groups.haar import sample_group
from vision3d.stages.equivariant import kernels
from vision3d.stages.equivariant.kernel_nets import KernelNet, wave, wave_slope
from vision3d.stages.equivariant.layers import kernel_dims
from vision3d.stages.equivariant.reference import kernels as reference

F64 = torch.float64
needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


def arguments(group="gl2", kind="siren", mask="smooth", dtype=torch.float32, on_plane=False, channels=(6, 4), size=5, width=60):
    generator = torch.Generator().manual_seed(0)
    at, of = (sample_group(group, n, spread=0.3, generator=generator, dtype=dtype) for n in (5, 3))
    num_in = 1 if on_plane else 3
    torch.manual_seed(0)
    net = KernelNet(2 if on_plane else kernel_dims(group), channels[0] * channels[1], 100, kind, width).to(dtype)
    torch.nn.init.uniform_(net.biases[3])
    factors = torch.rand(5, dtype=dtype), torch.rand(num_in, dtype=dtype)
    elements = None if on_plane else of.matrices()
    return [group, kind, mask, at.inverses(), elements, *factors, net.parameters_in_order(), channels, size, 1.3]


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("on_plane", [False, True])
@pytest.mark.parametrize("kind", ["siren", "wire"])
@pytest.mark.parametrize("mask", ["smooth", "disk", "bump"])
@pytest.mark.parametrize("group", ["so2", "sl2", "gl2"])
def test_native_kernels_equal_those_of_torch(group, mask, kind, on_plane, dtype):
    args = arguments(group, kind, mask, dtype, on_plane)
    found, want = kernels.build_kernel(*args), reference.build_kernel(*args)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert found.shape == want.shape == (6, 5, 4, 1 if on_plane else 3, 5, 5)
    assert float((found - want).detach().abs().max() / want.detach().abs().max()) < tolerance
    v = torch.randn_like(want)
    for a, b in zip(torch.autograd.grad(found, args[7], v), torch.autograd.grad(want, args[7], v)):
        assert float((a - b).abs().max() / b.abs().max()) < tolerance


@needs_native
@pytest.mark.parametrize(("channels", "size", "width"), [((1, 1), 1, 60), ((40, 3), 3, 64), ((3, 40), 7, 20), ((2, 2), 5, 7)])
def test_sizes_that_are_not_multiples_of_a_vector(channels, size, width):
    args = arguments(channels=channels, size=size, width=width)
    found, want = kernels.build_kernel(*args), reference.build_kernel(*args)
    assert float((found - want).detach().abs().max() / want.detach().abs().max()) < 1e-5


@needs_native
@pytest.mark.parametrize("isa", [] if native.module() is None else native.require().available_isas())
def test_every_instruction_set(isa):
    before = native.require().isa()
    try:
        native.require().set_isa(isa)
        for dtype, tolerance in ((torch.float32, 1e-5), (F64, 1e-12)):
            args = arguments(dtype=dtype)
            found, want = kernels.build_kernel(*args), reference.build_kernel(*args)
            assert float((found - want).detach().abs().max() / want.detach().abs().max()) < tolerance
    finally:
        native.require().set_isa(before)


@needs_native
def test_bitwise_equal_for_any_number_of_threads():
    args, before = arguments(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = kernels.build_kernel(*args)
        torch.set_num_threads(2)
        assert torch.equal(kernels.build_kernel(*args), one)
    finally:
        torch.set_num_threads(before)


def test_samples_far_apart_and_at_180_degrees():
    """Where the chart is ill-conditioned: maps of condition 1e3, and relative angles of pi."""
    args = arguments(dtype=F64)
    args[3] = torch.tensor([[1.0, 0], [0, 1]], dtype=F64).expand(3, 2, 2)
    args[4] = torch.tensor([[[-1.0, 0], [0, -1]], [[30, 0], [0, 0.03]], [[0, -2], [2, 0]]], dtype=F64)
    args[5] = args[5][:3]
    found, want = kernels.build_kernel(*args), reference.build_kernel(*args)
    assert bool(want.isfinite().all())
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-12)


@needs_native
def test_no_samples():
    args = arguments()
    args[3], args[5] = args[3][:0], args[5][:0]
    assert kernels.build_kernel(*args).shape == (6, 0, 4, 3, 5, 5)


@pytest.mark.parametrize("kind", ["siren", "wire"])
def test_gradients_of_the_parameters(kind):
    args = arguments("sl2", kind, "bump", F64, channels=(1, 2), size=3, width=4)

    def build(*parameters):
        return kernels.build_kernel(*args[:7], list(parameters), *args[8:])

    assert torch.autograd.gradcheck(build, args[7])


@needs_native
@pytest.mark.parametrize("on_plane", [False, True])
def test_operator(on_plane):
    args = arguments(dtype=F64, on_plane=on_plane, channels=(2, 2), size=3, width=8)
    values = (*args[3:7], [p.detach().clone().requires_grad_() for p in args[7]], 3, 0, 0, 2, 2, 3, 1.3)
    torch.library.opcheck(kernels._group_kernel, values)


@pytest.mark.parametrize("kind", ["siren", "wire"])
def test_slope_of_the_waves(kind):
    z = torch.linspace(-2, 2, 41, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(wave(kind, z).sum(), z)
    torch.testing.assert_close(wave_slope(kind, z), slope)


@needs_native
def test_wrong_arrays_are_named():
    args = arguments()
    values = torch.empty(6, 5, 4, 3, 5, 5)
    arrays = [args[3], args[4], args[5], args[6], *[p.detach() for p in args[7]]]
    build = native.require().group_kernel
    with pytest.raises(ValueError, match=r"w2: got shape \(60, 60\), want"):
        build(*arrays[:4], torch.zeros(20, 7), torch.zeros(20), *arrays[6:], 3, 0, 0, 1.3, values)
    with pytest.raises(ValueError, match="want at most 64"):
        build(*arrays[:4], torch.zeros(70, 7), torch.zeros(70), *arrays[6:], 3, 0, 0, 1.3, values)
    with pytest.raises(ValueError, match="sym: want 0, 2 or 3"):
        build(*arrays, 5, 0, 0, 1.3, values)
