"""The native rotation operations against their references, the CUDA kernel bodies, and themselves in float64."""

import math

import pytest
import torch
from torch import Tensor

from tests.support.rotations import ANGLES, hostile, rotmats_at_all_angles, unit_axes
from vision3d.core import native
from vision3d.geometry import quaternion, rotation, skinning
from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.geometry.reference import rotation as reference

OPS = {
    "quat_to_rotmat": (quaternion._quat_to_rotmat, (4,), (3, 3)),
    "rotmat_to_quat": (quaternion._rotmat_to_quat, (3, 3), (4,)),
    "gram_schmidt": (rotation._gram_schmidt, (6,), (3, 3)),
    "so3_exp": (rotation._so3_exp, (3,), (3, 3)),
    "so3_log": (rotation._so3_log, (3, 3), (3,)),
    "nearest_rotation": (rotation._nearest_rotation, (3, 3), (3, 3)),
    "skin_joint": (skinning._joint_rows, (17,), (32,)),
}
needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


def inputs(name: str, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    if name in ("rotmat_to_quat", "so3_log"):
        return haar_rotmats(3, count, dtype=torch.float64).to(dtype)
    return torch.randn(count, *OPS[name][1], dtype=torch.float64).to(dtype)


def gradient(function, values: Tensor) -> Tensor:
    values = values.detach().requires_grad_()
    output = function(values)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(output)
    return torch.autograd.grad((output * weights).sum(), values)[0]


def conditions(function, values: Tensor) -> tuple[Tensor, Tensor]:
    """Norm of each row's Jacobian, and this times the norm of the input: amplification of rounding errors."""
    values = values.detach().requires_grad_()
    columns = function(values).flatten(1).unbind(1)
    squares = [torch.autograd.grad(column.sum(), values, retain_graph=True)[0].flatten(1).square().sum(1) for column in columns]
    slope = torch.stack(squares).sum(0).sqrt()
    return slope, slope * values.detach().flatten(1).norm(dim=1)


def check_close(name: str, output: Tensor, grad: Tensor, values: Tensor, v_output: Tensor) -> None:
    """Compares an output and a gradient with the reference in float64, within the rounding of the input."""
    eps, reference_op = torch.finfo(output.dtype).eps, OPS[name][0].reference
    exact = values.double().requires_grad_()
    want = reference_op(exact)
    (want_grad,) = torch.autograd.grad(want, exact, v_output.double().view(want.shape))
    slope, growth = conditions(reference_op, values.double())
    errors = (output.flatten(1) - want.detach().flatten(1)).abs().amax(1)
    assert (errors < 8 * eps * (1 + growth)).all()
    errors = (grad.flatten(1) - want_grad.flatten(1)).norm(dim=1) / v_output.double().flatten(1).norm(dim=1)
    assert (errors < 16 * eps * (1 + slope) * (1 + growth)).all()


@needs_native
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("count", [0, 1, 5, 3000])
def test_equals_the_reference(name, count):
    op = OPS[name][0]
    values = inputs(name, count)
    torch.testing.assert_close(op.forward(values), op.reference(values), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradient(op.forward, values), gradient(op.reference, values), atol=1e-10, rtol=1e-10)


@needs_native
@pytest.mark.parametrize("name", OPS)
def test_every_instruction_set_equals_float64(name, isa):
    op = OPS[name][0]
    values = inputs(name, 2003, torch.float32)  # not a multiple of any number of lanes
    leaf = values.clone().requires_grad_()
    output = op.forward(leaf)
    v_output = torch.randn_like(output)
    check_close(name, output.detach(), torch.autograd.grad(output, leaf, v_output)[0], values, v_output)


@needs_native
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bodies_of_the_cuda_kernels(name, dtype):
    _, _, shape_out = OPS[name]
    bodies = native.require().kernel_bodies
    values = inputs(name, 500, dtype)
    rows, width = values.view(500, -1), math.prod(shape_out)
    output, v_rows = rows.new_empty(500, width), torch.empty_like(rows)
    getattr(bodies, name)(rows, output)
    v_output = torch.randn_like(output)
    getattr(bodies, f"{name}_vjp")(rows, output, v_output, v_rows)
    check_close(name, output, v_rows, values, v_output)


@needs_native
@pytest.mark.parametrize("name", OPS)
def test_strides_batches_and_threads(name):
    op, shape_in, _ = OPS[name]
    values = inputs(name, 9000)
    want = op.forward(values)
    strided = torch.stack([values, -values], -1)[..., 0]
    torch.testing.assert_close(op.forward(strided), want)
    torch.testing.assert_close(op.forward(values.view(3, 3000, *shape_in)).flatten(0, 1), want)
    torch.testing.assert_close(op.forward(values[0]), want[0])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    assert torch.equal(op.forward(values), want)
    torch.set_num_threads(threads)


@needs_native
@pytest.mark.parametrize("name", OPS)
def test_registered_operations(name):
    op = OPS[name][0]
    values = inputs(name, 4).requires_grad_()
    output = op.forward(values).detach()
    torch.library.opcheck(op.forward, (values,))
    v_output = torch.randn_like(output).requires_grad_()
    torch.library.opcheck(op.backward, (values.detach(), output, v_output.detach()))


@pytest.mark.parametrize("name", OPS)
def test_derivatives_of_three_orders(name):
    op = OPS[name][0]
    values = inputs(name, 2).requires_grad_()
    assert torch.autograd.gradcheck(op, values)
    assert torch.autograd.gradgradcheck(op, values)

    def second(x):
        (first,) = torch.autograd.grad(op(x).sin().sum(), x, create_graph=True)
        return torch.autograd.grad(first.sin().sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, values)


@needs_native
@pytest.mark.parametrize("name", OPS)
def test_native_gradient_has_the_derivatives_of_the_reference(name):
    op = OPS[name][0]
    values = inputs(name, 3)

    def penalty(function, x):
        x = x.detach().requires_grad_()
        (first,) = torch.autograd.grad(function(x).exp().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    torch.testing.assert_close(penalty(op.forward, values), penalty(op.reference, values), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OPS)
def test_functional_transforms(name):
    op = OPS[name][0]
    values = inputs(name, 3)
    torch.testing.assert_close(torch.vmap(op)(values), op(values))
    torch.testing.assert_close(torch.vmap(op, in_dims=1)(values.movedim(0, 1)), op(values))
    jacobian = torch.vmap(torch.func.jacrev(op))(values)
    for row, found in zip(values, jacobian):
        torch.testing.assert_close(found, torch.autograd.functional.jacobian(op, row))
    twice = torch.func.jacrev(torch.func.jacrev(lambda x: op(x).sin().sum()))(values[0])
    hessian = torch.autograd.functional.hessian(lambda x: op(x).sin().sum(), values[0])
    torch.testing.assert_close(twice, hessian)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_agree_on_hostile_numbers(dtype):
    atol = 1e-5 if dtype == torch.float32 else 1e-12
    values = hostile(20_000, 6, dtype)
    ours, theirs = rotation._gram_schmidt.forward(values), reference.gram_schmidt(values)
    # If the second vector is parallel to the first up to rounding, the frame is arbitrary except for its first column.
    torch.testing.assert_close(ours[..., 0], theirs[..., 0], atol=atol, rtol=0)
    assert ((ours - theirs).abs().amax((1, 2)) < atol).float().mean() > 0.7


@needs_native
def test_logarithm_and_exponential_at_all_angles_in_float32():
    rotmats = rotmats_at_all_angles(200).float()
    rotvecs = rotation.so3_log(rotmats)
    assert (rotvecs.norm(dim=1).view(len(ANGLES), -1) - torch.tensor(ANGLES)[:, None]).abs().max() < 1e-6
    assert (rotation.so3_exp(rotvecs) - rotmats).abs().max() < 1e-6
    long = 1e4 * unit_axes(100)
    torch.testing.assert_close(rotation.so3_exp(long), reference.so3_exp(long), atol=1e-10, rtol=0)


@needs_native
def test_nearest_rotation_is_as_accurate_as_a_decomposition():
    left, right = haar_rotmats(3, 2000, dtype=torch.float64), haar_rotmats(3, 2000, dtype=torch.float64)
    for singular in ([1.0, 1, 1], [1, 1, 1e-9], [1, 0.5, -0.4], [1e8, 1, 1], [3, 2, 0], [1, 1, -0.5]):
        matrices = left * torch.tensor(singular, dtype=torch.float64) @ right.mT
        gap = (singular[1] + singular[2]) / singular[0]
        error = (rotation.nearest_rotation(matrices) - left @ right.mT).abs().max()
        assert error < 2e-15 / gap + 1e-14, (singular, error)


@needs_native
def test_wrong_arguments_are_rejected():
    module = native.require()
    with pytest.raises(ValueError, match=r"out: got shape \(3, 8\), want \(3, 9\)"):
        module.quat_to_rotmat(torch.zeros(3, 4), torch.zeros(3, 8))
    with pytest.raises(ValueError, match="out: got None, want what the forward gave"):
        module.nearest_rotation_vjp(torch.zeros(3, 9), None, torch.zeros(3, 9), torch.zeros(3, 9))
    with pytest.raises(TypeError):
        module.quat_to_rotmat(torch.zeros(3, 4), torch.zeros(3, 9, dtype=torch.float64))
