"""The compiled module, looked up once. Kernels use `torch.get_num_threads()` threads at every call."""

import functools
import importlib
import os
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch.autograd import forward_ad

from vision3d.core import torch_private
from vision3d.core.errors import BackendError

_library = torch.library.Library("vision3d", "FRAGMENT")
_plain: dict[Any, tuple[str, Callable[..., Any]]] = {}  # operation -> its name and the function that it wraps


@functools.cache
def _load() -> ModuleType | None:
    if os.environ.get("VISION3D_NATIVE", "1") == "0":
        return None
    try:
        native = importlib.import_module("vision3d._native")
    except ImportError as error:
        warnings.warn(f"vision3d runs on its slow torch reference: {error}. `vision3d doctor` prints the fix.", stacklevel=3)
        return None
    native.keep_freed_memory()
    wanted = os.environ.get("VISION3D_ISA")
    if wanted:
        native.set_isa(wanted)
    return native


def module() -> ModuleType | None:
    """The native module with its thread pool sized like torch's, or None (with one warning) if it was not built.

    Environment: `VISION3D_NATIVE=0` disables it, `VISION3D_ISA=sse2|avx2|avx512|portable` selects the instruction set.
    """
    native = _load()
    if native is not None:
        native.set_num_threads(torch.get_num_threads())
    return native


def require() -> ModuleType:
    """The native module, for code that runs only if it is available."""
    native = module()
    if native is None:
        raise RuntimeError("the native module is not loaded")
    return native


@torch_private.constant_while_compiling
def has_cuda(device: int | None = None) -> bool:
    """Whether the CUDA kernels of the native module run on a device (None: the current one)."""
    return not cuda_problem(device)


def cuda_problem(device: int | None = None) -> str:
    """What keeps the native CUDA kernels from running on a device (None: the current one); empty if they run.

    They have to be compiled in, the driver has to support their CUDA version, and they need code for the device's architecture.
    """
    native = _load()
    if native is None:
        return "the native module is not built"
    if not native.has_cuda:
        return "this build of vision3d has no CUDA kernels"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU"
    return _problem_of(native, torch.cuda.current_device() if device is None else device)


@functools.cache
def _problem_of(native: Any, device: int) -> str:
    return native.cuda_problem(device)


def is_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether the loops for a CPU process the tensor. Tests that emulate a GPU in the CPU's memory replace this function."""
    return tensor.device.type == "cpu"


def where(tensor: torch.Tensor) -> dict[str, int]:
    """Arguments that make native functions run on the device of the tensor: none for a CPU, else device and stream.

    Raises:
        BackendError: The module has no kernels for this device.
    """
    if tensor.device.type == "cpu":
        return {}
    if tensor.device.type != "cuda":
        raise BackendError(f"native kernels do not run on {tensor.device.type}; move the tensors to the CPU")
    if not has_cuda(tensor.device.index):
        raise BackendError(
            f"native kernels do not run on {tensor.device}: {cuda_problem(tensor.device.index)}; `vision3d doctor` prints the "
            "fix; move the tensors to the CPU, or use backend='reference'"
        )
    return {"device": tensor.device.index, "stream": torch.cuda.current_stream(tensor.device).cuda_stream}


def custom_op(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`torch.library.custom_op` for `vision3d::name` that refuses forward mode: it has gradients, but no tangents.

    torch would silently drop the tangents of dual numbers and of `torch.func.jvp`.

    Args:
        name: Without the namespace.
        options: As for `torch.library.custom_op`; by default nothing is mutated, for CPU and CUDA.
    """
    options = {"mutates_args": (), "device_types": ("cpu", "cuda"), **options}

    def register(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def guarded(*arguments: Any, **named: Any) -> Any:
            refuse_tangents(name, *arguments)
            return function(*arguments, **named)

        op = torch.library.custom_op(f"vision3d::{name}", **options)(guarded)
        autograd = torch_private.autograd_kernel(name, op)

        def guarded_autograd(keyset: Any, *arguments: Any, **named: Any) -> Any:
            refuse_tangents(name, *arguments)
            return autograd(keyset, *arguments, **named)

        # Below this key torch.func.jvp has already removed the tangents, so `guarded` alone would not see them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the override is intended
            torch_private.override_autograd(_library, name, guarded_autograd)
        _plain[op] = name, guarded
        return op

    return register


def refuse_tangents(name: str, *arguments: Any) -> None:
    """Raise BackendError if an argument carries a forward-mode tangent."""
    if torch_private.forward_mode_is_on() and any(map(has_tangent, arguments)):
        raise _no_tangents(name)


def _no_tangents(name: str) -> BackendError:
    return BackendError(
        f"{name}: has no forward-mode derivatives (dual numbers, torch.func.jvp); use reverse mode (backward, grad, vjp), "
        "or backend='reference' where there is one"
    )


def has_tangent(value: Any) -> bool:
    """Whether a tensor, or a tensor in a list, is a forward-mode dual number."""
    if not torch_private.forward_mode_is_on():
        return False
    if isinstance(value, list | tuple):
        return any(map(has_tangent, value))
    return isinstance(value, torch.Tensor) and forward_ad.unpack_dual(value).tangent is not None


def direct(op: Any, function: Any = None, *, needs_gradient: bool = True) -> Any:
    """The fastest way to call an op of `torch.library.custom_op`: itself, `function`, or the function that it wraps.

    An eager call of the op costs 0.1 to 0.2 ms, and its first call imports torch's compiler: 1.3 s of CPU time. If no
    gradient can be required, the wrapped function is enough; otherwise `function` of `eager_function` has the same gradients.
    The op itself is for what traces or transforms calls: `torch.compile`, fake tensors, `torch.func`.

    Args:
        op: The op.
        function: Of `eager_function`, or None.
        needs_gradient: Whether an argument requires a gradient.
    """
    if torch.compiler.is_compiling():  # first: the compiler cannot read the other conditions
        return op
    plain = _plain[op][1] if op in _plain else op
    if torch.is_inference_mode_enabled():
        return plain
    if torch_private.dispatch_mode_is_on() or torch_private.transform_is_on():
        return op
    if not (needs_gradient and torch.is_grad_enabled()):
        return plain
    return op if function is None else function.apply


def plain_function(op: Any) -> Callable[..., Any]:
    """The function that an op of `custom_op` wraps."""
    return _plain[op][1]


def in_place(op: Any, changed: Sequence[torch.Tensor], *arguments: Any) -> None:
    """Call an op without results that changes tensors, by the fastest way; autograd counts the change however it is called."""
    function = direct(op)
    function(*arguments)
    if function is not op:
        for tensor in changed:
            torch.autograd.graph.increment_version(tensor)


def eager_function(op: Any, keep: Callable[..., None], backward: Callable[..., Any], vjp: Any) -> type[torch.autograd.Function]:
    """The autograd function of an op, from the arguments of `register_autograd`; gradients may be None.

    Its `backward` takes the function for the gradients as `vjp`: by default the op `vjp`, here the function that it wraps.
    """

    op_name, plain = _plain[op]

    def forward(ctx: Any, *inputs: Any) -> Any:
        outputs = plain(*inputs)
        keep(ctx, inputs, outputs)
        ctx.set_materialize_grads(False)
        return outputs

    return autograd_function(op_name, forward, functools.partial(backward, vjp=_plain[vjp][1]))


def autograd_function(name: str, forward: Callable[..., Any], backward: Callable[..., Any]) -> type[torch.autograd.Function]:
    """The autograd function of an op, called without torch's dispatcher. Gradients of its gradients are an error."""

    def backward_once(ctx: Any, *upstream: Any) -> Any:
        with torch.no_grad():
            grads = backward(ctx, *upstream)
        if not torch.is_grad_enabled():
            return grads
        grads = grads if isinstance(grads, tuple) else (grads,)
        return tuple([None if grad is None else _WithoutGradient.apply(_differentiable, grad, name) for grad in grads])

    def jvp(_ctx: Any, *_tangents: Any) -> Any:
        raise _no_tangents(name)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward_once), "jvp": staticmethod(jvp)}
    return type(f"{name}_eager", (torch.autograd.Function,), methods)


_differentiable = torch.zeros((), requires_grad=True)  # not the saved inputs, which not every gradient depends on


class _WithoutGradient(torch.autograd.Function):
    """A gradient that is part of a graph (`create_graph=True`), of which no gradient can be computed."""

    @staticmethod
    def forward(ctx: Any, _differentiable: torch.Tensor, grad: torch.Tensor, name: str) -> torch.Tensor:
        ctx.name = name
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *_upstream: Any) -> Any:
        raise BackendError(f"{ctx.name}: has no second derivatives; use backend='reference' where there is one")


def runs_on(tensor: torch.Tensor) -> bool:
    """Whether the native module is available and has kernels for the tensor's device."""
    return _is_found() and (tensor.device.type == "cpu" or (tensor.device.type == "cuda" and has_cuda(tensor.device.index)))


def is_plain(*tensors: torch.Tensor) -> bool:
    """Whether the kernels can process the tensors: `runs_on`, outside `torch.func` transforms, and no dual numbers.

    Otherwise the reference is to be used, if the function has one.
    """
    if not runs_on(tensors[0]) or torch_private.transform_is_on():
        return False
    return torch.compiler.is_compiling() or not has_tangent(tensors)


@torch_private.constant_while_compiling
def _is_found() -> bool:
    return module() is not None
