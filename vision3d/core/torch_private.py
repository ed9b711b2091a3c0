"""All uses of private names of torch that have no public alternative; `tests/test_torch_private.py` pins each.

No other module of the package may use a name of torch that begins with an underscore.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch._library.autograd import make_autograd_impl
from torch.autograd import forward_ad

Function = TypeVar("Function", bound=Callable[..., Any])


def autograd_kernel(name: str, op: Any) -> Callable[..., Any]:
    """The function that torch runs for the Autograd key of `vision3d::name`, called as (keyset, *arguments).

    Args:
        op: The operation as returned by `torch.library.custom_op`.
    """
    return make_autograd_impl(getattr(torch.ops.vision3d, name).default, op)


def override_autograd(library: torch.library.Library, name: str, kernel: Callable[..., Any]) -> None:
    """Let torch run `kernel`, called as (keyset, *arguments), for the Autograd key of an operation that has one already.

    `Library.impl` of torch 2.5 refuses that, else it calls what this does.
    """
    library.m.impl(name, "Autograd", kernel, True)  # pyright: ignore[reportOptionalMemberAccess]


def forward_mode_is_on() -> bool:
    """Whether a forward-mode level is active, so that tensors may be dual numbers."""
    return forward_ad._current_level >= 0


def dispatch_mode_is_on() -> bool:
    """Whether a `__torch_dispatch__` mode is active, as while fake tensors are traced."""
    return bool(torch._C._len_torch_dispatch_stack())


def transform_is_on() -> bool:
    """Whether a `torch.func` transform is active: vmap, grad, jvp, functionalize."""
    return torch._C._are_functorch_transforms_active()


def version_of(tensor: torch.Tensor) -> int:
    """Number of operations of torch that have changed the tensor in place, counted with its views."""
    return tensor._version


def constant_while_compiling(function: Function) -> Function:
    """Mark a function whose result torch.compile takes as a constant, without tracing it.

    Equivalent to `torch.compiler.assume_constant_result`, which would import the compiler: 1.3 s of CPU time.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
    return function
