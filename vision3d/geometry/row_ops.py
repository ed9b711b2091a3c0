"""Native operations that map each row of numbers to another row, with their torch references."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vision3d.core import native
from vision3d.core.op_checks import checked
from vision3d.geometry.vectors import nan_for_nan


class RowOp:
    """A function of the last axes of a tensor that runs natively where possible, differentiable any number of times.

    The reference runs without the native module, inside torch.func transforms (vmap, grad, jacrev: library operations have no
    rules for them), for dual numbers, and for the derivatives of the gradient. Half-precision inputs are computed in float32.
    A row that contains NaN or infinity becomes NaN, and so does its gradient; other rows are not affected.

    Args:
        name: Name of the native function and of the `torch.library` operation; the gradient is NAME_vjp.
        shape_in, shape_out: The last axes.
        reference: The function in torch.
        vjp: (values, output, v_output) -> v_values in torch, differentiable; None uses the reference's.
        keeps_output: Whether the native gradient needs the output.
    """

    def __init__(
        self,
        name: str,
        shape_in: tuple[int, ...],
        shape_out: tuple[int, ...],
        reference: Callable[[Tensor], Tensor],
        vjp: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        keeps_output: bool = False,
    ) -> None:

        def guarded(values: Tensor) -> Tensor:
            return nan_for_nan(reference(values), values, len(shape_in), len(shape_out))

        self.reference = guarded
        width_in, width_out = math.prod(shape_in), math.prod(shape_out)
        takes, gives = (" ".join(["float *s", *map(str, shape)]) for shape in (shape_in, shape_out))

        def rows(values: Tensor, width: int) -> Tensor:
            return values.detach().contiguous().view(-1, width)

        def empty(values: Tensor) -> Tensor:
            return values.new_empty((*values.shape[: values.ndim - len(shape_in)], *shape_out))

        @native.custom_op(name)
        @checked(f"values: {takes}")
        def forward(values: Tensor) -> Tensor:
            output = empty(values)
            getattr(native.require(), name)(rows(values, width_in), output.view(-1, width_out), **native.where(values))
            return output

        @native.custom_op(f"{name}_vjp")
        @checked(f"values: {takes}, output: {gives}, v_output: {gives}")
        def backward(values: Tensor, output: Tensor, v_output: Tensor) -> Tensor:
            v_values = torch.empty_like(values, memory_format=torch.contiguous_format)
            kept = rows(output, width_out) if keeps_output else None
            v_rows = v_values.view(-1, width_in)
            function = getattr(native.require(), f"{name}_vjp")
            function(rows(values, width_in), kept, rows(v_output, width_out), v_rows, **native.where(values))
            return v_values

        def torch_vjp(values: Tensor, output: Tensor, v_output: Tensor) -> Tensor:
            if vjp is not None:
                return vjp(values, output, v_output)
            return torch.func.vjp(guarded, values)[1](v_output)[0]

        def double_backward(ctx, v: Tensor) -> tuple[Tensor, ...]:
            return torch.func.vjp(torch_vjp, *ctx.saved_tensors)[1](v)

        forward.register_fake(empty)
        backward.register_fake(lambda values, output, v: torch.empty_like(values, memory_format=torch.contiguous_format))
        forward.register_autograd(
            lambda ctx, v: backward(*ctx.saved_tensors, v),
            setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs, output),
        )
        backward.register_autograd(double_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
        self.forward, self.backward = forward, backward

    def __call__(self, values: Tensor) -> Tensor:
        if values.dtype in (torch.float16, torch.bfloat16):
            return self(values.float()).to(values.dtype)
        if native.is_plain(values):
            return native.direct(self.forward, needs_gradient=values.requires_grad)(values)
        return self.reference(values)
