"""Kernels of group convolutions, built in one pass: grid, chart, network, mask and weights."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.core.op_checks import Signature, check_memory, checked
from vision3d.geometry.groups.haar import PlanarGroup
from vision3d.stages.equivariant.kernel_nets import KernelKind
from vision3d.stages.equivariant.reference import kernels as reference

MaskKind = Literal["smooth", "disk", "bump"]
"""sigmoid(2 (1 - r)); 1 up to r = 1; (1 - r^2)^2 up to r = 1. r^2 = |h^-1 p|^2 + |Y(h^-1 g)|^2 in all of them."""
_GROUPS = {"so2": 0, "sl2": 2, "gl2": 3}
_MASKS = ("smooth", "disk", "bump")
_WAVES = ("siren", "wire")
_MAX_WIDTH, _MAX_SIZE = 64, 255
_NETWORK = Signature(
    "inverses: float n 2 2, w1: float u f, b1: float u, w2: float u u, b2: float u, w3: float u u, b3: float u, "
    "w4: float q u, b4: float q"
)


def build_kernel(
    group: PlanarGroup,
    kind: KernelKind,
    mask: MaskKind,
    inverses: Float[Tensor, "n 2 2"],
    elements: Float[Tensor, "m 2 2"] | None,
    out_factors: Float[Tensor, " n"],
    in_factors: Float[Tensor, " m"],
    parameters: list[Tensor],
    channels: tuple[int, int],
    size: int,
    extent: float,
) -> Float[Tensor, "c_out n c_in m k k"]:
    """k(h^-1 p, h^-1 g) for all samples h, g and points p of a grid, as the weight of an ordinary convolution.

    Gradients flow to the parameters; samples and factors are constants.

    Args:
        group: Chart of h^-1 g: `so2` has cos and sin of the angle, `sl2` and `gl2` the coordinates of Y before them.
        kind: Activation of the network.
        mask: Support.
        inverses: h^-1 of the output's samples.
        elements: g of the input's samples; None for a kernel on the plane only, then m = 1.
        out_factors: Factor for each output sample.
        in_factors: Factor for each input sample.
        parameters: W1, b1, .. W4, b4 of the network.
        channels: (C_out, C_in).
        size: K, odd.
        extent: The grid spans [-extent, extent]^2 in units of the kernel's radius.
    """
    for name, value, valid in (("group", group, _GROUPS), ("mask", mask, _MASKS), ("kernel", kind, _WAVES)):
        if value not in valid:
            raise ConfigError(name, f"got {value!r}, want {', '.join(valid)}")
    if not native.is_plain(inverses, *parameters) or parameters[0].shape[0] > _MAX_WIDTH:
        return reference.build_kernel(
            group, kind, mask, inverses, elements, out_factors, in_factors, parameters, channels, size, extent
        )
    codes = (_GROUPS[group], _MASKS.index(mask), _WAVES.index(kind))
    return _group_kernel(inverses, elements, out_factors, in_factors, parameters, *codes, *channels, size, extent)


# Schemas are explicit because torch 2.5 infers none from list[Tensor].
_INPUTS = "Tensor inverses, Tensor? elements, Tensor out_factors, Tensor in_factors, Tensor[] parameters, int sym, int mask"


@native.custom_op("group_kernel", schema=f"({_INPUTS}, int wave, int c_out, int c_in, int size, float extent) -> Tensor")
@checked("inverses: float n 2 2, elements: float? m 2 2, out_factors: float n, in_factors: float m")
def _group_kernel(
    inverses: Tensor,
    elements: Tensor | None,
    out_factors: Tensor,
    in_factors: Tensor,
    parameters: list[Tensor],
    sym: int,
    mask: int,
    wave: int,
    c_out: int,
    c_in: int,
    size: int,
    extent: float,
) -> Tensor:
    _check(inverses, elements, in_factors, parameters, sym, mask, wave, size)
    if min(c_out, c_in) < 0 or c_out * c_in != len(parameters[-1]):
        raise InputError(f"c_out, c_in: got {c_out}, {c_in}, want {len(parameters[-1])} as their product, as b4 has values")
    check_memory(inverses, c_out * len(inverses) * c_in * len(in_factors) * size * size, "c_out, c_in, size")
    values = inverses.new_empty((c_out, inverses.shape[0], c_in, in_factors.shape[0], size, size))
    tensors = (inverses, elements, out_factors, in_factors, *parameters)
    arrays = [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]
    native.require().group_kernel(*arrays, sym, mask, wave, extent, values, **native.where(inverses))
    return values


@native.custom_op("group_kernel_vjp", schema=f"(Tensor v_values, {_INPUTS}, int wave, int size, float extent) -> Tensor[]")
@checked(
    "v_values: float q n p m k k, inverses: float n 2 2, elements: float? m 2 2, out_factors: float n, in_factors: float m"
)
def _group_kernel_vjp(
    v_values: Tensor,
    inverses: Tensor,
    elements: Tensor | None,
    out_factors: Tensor,
    in_factors: Tensor,
    parameters: list[Tensor],
    sym: int,
    mask: int,
    wave: int,
    size: int,
    extent: float,
) -> list[Tensor]:
    _check(inverses, elements, in_factors, parameters, sym, mask, wave, size)
    if v_values.shape[0] * v_values.shape[2] != len(parameters[-1]) or v_values.shape[-1] != size:
        raise ShapeError("v_values", v_values.shape, f"{len(parameters[-1])} channels and grids of {size} x {size}")
    group, kind = next(name for name, count in _GROUPS.items() if count == sym), _WAVES[wave]
    inputs, factors = reference.inputs_and_factors(
        group, _MASKS[mask], inverses, elements, out_factors, in_factors, size, extent
    )
    v_rows = v_values.permute(1, 3, 4, 5, 0, 2).reshape(-1, parameters[-2].shape[0]) * factors.reshape(-1, 1)
    return reference.network_vjp(kind, inputs.reshape(-1, inputs.shape[-1]), parameters, v_rows)


def _check(
    inverses: Tensor,
    elements: Tensor | None,
    in_factors: Tensor,
    parameters: list[Tensor],
    sym: int,
    mask: int,
    wave: int,
    size: int,
) -> None:
    if len(parameters) != 8:
        raise InputError(f"parameters: got {len(parameters)} tensors, want W1, b1 .. W4, b4")
    _NETWORK.check(inverses, *parameters)
    for name, value, valid in (("sym", sym, _GROUPS.values()), ("mask", mask, range(len(_MASKS))), ("wave", wave, range(2))):
        if value not in valid:
            raise InputError(f"{name}: got {value}, want one of {', '.join(map(str, valid))}")
    dims = 2 if elements is None else 4 + sym
    if parameters[0].shape[1] != dims:
        raise ShapeError("w1", parameters[0].shape, f"{dims} columns")
    if elements is None and len(in_factors) != 1:
        raise ShapeError("in_factors", in_factors.shape, "(1,) on the plane alone")
    if not 1 <= size <= _MAX_SIZE:
        raise InputError(f"size: got {size}, want 1 to {_MAX_SIZE}")


@_group_kernel.register_fake
def _(inverses, elements, out_factors, in_factors, parameters, sym, mask, wave, c_out, c_in, size, extent):
    return inverses.new_empty((c_out, inverses.shape[0], c_in, in_factors.shape[0], size, size))


@_group_kernel_vjp.register_fake
def _(v_values, inverses, elements, out_factors, in_factors, parameters, sym, mask, wave, size, extent):
    return [torch.empty_like(tensor) for tensor in parameters]


def _setup(ctx, inputs, output) -> None:
    inverses, elements, out_factors, in_factors, parameters, *codes, _, _, size, extent = inputs
    ctx.save_for_backward(inverses, elements, out_factors, in_factors, *parameters)
    ctx.codes = (*codes, size, extent)


def _backward(ctx, v_values):
    inverses, elements, out_factors, in_factors, *parameters = ctx.saved_tensors
    gradients = _group_kernel_vjp(v_values, inverses, elements, out_factors, in_factors, parameters, *ctx.codes)
    return (None, None, None, None, gradients, *[None] * 7)


_group_kernel.register_autograd(_backward, setup_context=_setup)
