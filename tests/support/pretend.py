"""A pretended GPU: tensors that report cuda:0, lie in CPU memory, and refuse to mix with CPU tensors as those of a GPU do.

Whole runs execute on it, so that mixed devices are found, and waits and copies counted, on a machine without a GPU:

    with pretended_gpu() as gpu:
        fit(replace(config, device="cuda"), photos)
    print(gpu.counts)

To torch's C++ a pretended tensor is one of the device `meta`, so that what autograd allocates is pretended, too. All operations
go through `PretendedGpu.run`, which checks the devices, counts, and computes on the CPU. A copy to the CPU that does not block
has no valid values before the next wait. Native kernels run as the bodies of the CUDA kernels, else as the CPU kernels.

Differences from a GPU: autocast has no effect; optimizers of torch update one parameter after another; the order of sums is
that of the CPU; waits within native kernels are not seen; a gradient on the wrong device is noticed only where it meets others
of the right one. The patches hold for the whole process: use one of its own.
"""

import contextlib
import dataclasses
import functools
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from vision3d.core import native, torch_private

CUDA, META, CPU = torch.device("cuda", 0), torch.device("meta"), torch.device("cpu")
_PACKAGE = str(Path(native.__file__).parents[1])

# Operations for whose result, or whose size, the CPU has to wait.
_WAITS = {
    "_local_scalar_dense", "_unique", "_unique2", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "argwhere", "bincount",
    "equal", "is_nonzero", "linalg_eig", "masked_select", "nonzero", "unique_consecutive", "unique_dim",
    "unique_dim_consecutive",
}  # fmt: skip
_INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
_TAKES_CPU_SCALARS = {"fill", "fill_", "index_fill", "index_fill_", "masked_fill", "masked_fill_", "where"}
_FACTORIES = (
    "arange", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace", "logspace", "normal", "ones",
    "ones_like", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "scalar_tensor",
    "tril_indices", "triu_indices", "zeros", "zeros_like",
)  # fmt: skip
# Arguments of native functions that are on the CPU also for a GPU: the tables of the physics.
_HOST_ARGUMENTS = {"mpm_advance": {8, 9, 10, 11, 12, 14}, "mpm_elastic_energy": {4, 5, 6, 7, 8, 10}}
# Positions of the lists' ids and of the memory for sums, which has one row a Gaussian on a GPU and one an id on a CPU.
_SUMS = {"blend_vjp": (7, 16), "blend_2dgs_vjp": (5, 23)}


@dataclasses.dataclass
class Counts:
    """What happened on the device."""

    ops: int = 0
    """Operations of torch, views included."""
    kernels: int = 0
    """Calls of native functions."""
    waits: int = 0
    """Times that the CPU waited for the device, including copies that block."""
    to_device: int = 0
    """Copies from the CPU."""
    to_host: int = 0
    """Copies to the CPU other than of one number that is read (`item`)."""
    pageable: int = 0
    """Copies from CPU memory that is not pinned; they block."""
    exchanges: int = 0
    """Operations of torch.distributed on tensors of the device."""

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*(a - b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other))))


class MixedDevices(RuntimeError):
    """An operation got tensors of both devices."""


class PretendedTensor(Tensor):
    """A tensor of the pretended GPU; `host` has its values."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> "PretendedTensor":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, host.shape, strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype, device=META
        )
        made.host = host
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func}: a pretended tensor outlived its GPU")

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def __repr__(self, **_options) -> str:
        return f"PretendedTensor({self.host})"

    def __deepcopy__(self, memo: dict) -> "PretendedTensor":
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copy._is_param = True
        return memo.setdefault(id(self), copy)

    def __reduce_ex__(self, protocol):
        return self.detach().cpu().__reduce_ex__(protocol)

    def numpy(self, *_arguments, **_options):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    __array__ = numpy

    def tolist(self):
        return self.cpu().tolist()

    def data_ptr(self):
        raise RuntimeError("the memory of a pretended tensor was asked for")

    untyped_storage = storage = data_ptr

    def __getitem__(self, index):
        return super().__getitem__(_tensors_in(index, self))

    def __setitem__(self, index, value):
        super().__setitem__(_tensors_in(index, self), value)

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        if value.shape != self.shape or value.dtype != self.dtype or not isinstance(value, PretendedTensor):
            raise NotImplementedError("the pretended GPU replaces the data of a tensor only by others of its kind")
        self.host = value.host


class PretendedGpu:
    """The state of the device: what was counted, and copies that are under way."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.places: Counter[str] = Counter()
        """Waits and copies by what and where they were."""
        self._under_way: list[tuple[Tensor, Tensor]] = []
        self._mode = _Mode(self)

    def snapshot(self) -> Counts:
        """The counts so far."""
        return dataclasses.replace(self.counts)

    def wait(self, what: str) -> None:
        """The CPU waits for everything; copies to it are complete."""
        self.counts.waits += 1
        self.places[f"wait: {what} at {_here()}"] += 1
        for to, values in self._under_way:
            to.copy_(values)
        self._under_way.clear()

    def run(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """One operation of torch; called without the mode."""
        if func.namespace == "vision3d":
            with self._mode:
                return dict(native._plain.values())[func._opname](*args, **kwargs)
        if func.namespace == "c10d":
            return self._exchange(func, args, kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self._mode:  # below autograd torch does not take it apart
                return func.decompose(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        leaves = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        pretended = [value for value in leaves if isinstance(value, PretendedTensor)]
        plain = [value for value in leaves if not isinstance(value, PretendedTensor)]
        if any(value.device == META for value in plain):
            raise RuntimeError(f"{name}: got a tensor without values, made by torch beside the pretence, at {_here()}")
        device = kwargs.get("device")
        if not pretended and device != META:
            return func(*args, **kwargs)
        self.counts.ops += 1
        if name in ("_to_copy", "copy_"):
            return self._copy(name, func, args, kwargs, device)
        if device not in (None, META):  # zeros_like(tensor, device="cpu")
            return func(*tree_map(_host, args), **kwargs)
        if pretended and plain:
            self._check(name, func, args, plain)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise MixedDevices(f"{name}: Expected a 'cuda' device type for generator but found 'cpu', at {_here()}")
        if name in _WAITS or (
            name == "repeat_interleave" and kwargs.get("output_size") is None and "Tensor" in func._overloadname
        ):
            self.wait(name)
        if name in _INDEXING and any(value is not None and value.dtype == torch.bool for value in args[1]):
            self.wait(f"{name} with a mask")
        found = func(
            *tree_map(_host, args), **{key: CPU if key == "device" else tree_map(_host, value) for key, value in kwargs.items()}
        )
        if torch.Tag.inplace_view in func.tags:  # unsqueeze_: the shape of the pretended tensor has to follow
            with torch._C._DisableTorchDispatch():
                func(*args, **kwargs)
        return self._pretended(found, pretended)

    def _exchange(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """An operation of torch.distributed, done by the group of the CPU on the values."""
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = [value for value in tensors if isinstance(value, PretendedTensor)]
        if there and len(there) < len(tensors):
            raise MixedDevices(f"{func.name()}: tensors on cuda:0 and on the CPU at {_here()}")
        if there:
            self.counts.exchanges += 1
        return self._pretended(func(*tree_map(_host, args), **kwargs), there)

    def _copy(self, name: str, func: Any, args: tuple, kwargs: dict[str, Any], device: Any) -> Any:
        to, source = (args[0], args[1]) if name == "copy_" else (None, args[0])
        is_to_gpu = (
            isinstance(to, PretendedTensor)
            if to is not None
            else device == META or (device is None and isinstance(source, PretendedTensor))
        )
        blocks = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        what = f"{tuple(source.shape)} {source.dtype}"
        if is_to_gpu and not isinstance(source, PretendedTensor):
            self._count_upload(source, blocks, what)
        is_download = not is_to_gpu and isinstance(source, PretendedTensor)
        if is_download:
            self.counts.to_host += 1
            self.places[f"to the CPU: {what} at {_here()}"] += 1
            if blocks:
                self.wait(f"copy of {what} to the CPU")
        options = {key: CPU if key == "device" else value for key, value in kwargs.items()}
        if not is_download or blocks:
            found = func(*tree_map(_host, args), **options)
        elif to is None:
            found = func(*tree_map(_host, args), **options)
            self._begin(found, found.clone())
        else:
            found = to
            self._begin(to, source.host.to(to.dtype).expand(to.shape).clone())
        if name == "copy_":
            return to
        return PretendedTensor(found) if is_to_gpu else found

    def _begin(self, to: Tensor, values: Tensor) -> None:
        """A copy whose values are there after the next wait; before, it has others."""
        to.fill_(float("nan") if to.dtype.is_floating_point else 0)
        self._under_way.append((to, values))

    def _count_upload(self, source: Tensor, blocks: bool, what: str) -> None:
        self.counts.to_device += 1
        self.places[f"to the GPU: {what} at {_here()}"] += 1
        is_pinned = getattr(source, "is_pretended_pinned", False)
        self.counts.pageable += not is_pinned
        if blocks or not is_pinned:
            self.wait(f"copy of {what} to the GPU")

    def _check(self, name: str, func: Any, args: tuple, plain: list[Tensor]) -> None:
        if name in _INDEXING and isinstance(args[0], PretendedTensor):
            values = [value for value in args[2:] if isinstance(value, Tensor)]
            if all(isinstance(value, PretendedTensor) or value.dim() == 0 for value in values):
                for index in args[1]:
                    if isinstance(index, Tensor) and not isinstance(index, PretendedTensor):
                        self._count_upload(index, True, f"indices {tuple(index.shape)}")
                return
        written = [
            value
            for value, argument in zip(args, func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        may_mix = torch.Tag.pointwise in func.tags or name in _TAKES_CPU_SCALARS
        is_right = all(isinstance(value, PretendedTensor) for value in written)
        if not (may_mix and is_right and all(value.dim() == 0 for value in plain)):
            shapes = ", ".join(f"{tuple(value.shape)} {value.dtype}" for value in plain)
            raise MixedDevices(f"{name}: tensors on cuda:0 and on the CPU ({shapes}) at {_here()}")

    @staticmethod
    def _pretended(found: Any, pretended: list[PretendedTensor]) -> Any:
        known = {id(value.host): value for value in pretended}

        def wrap(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            own = known.get(id(value))
            if own is None:
                return PretendedTensor(value)
            if own.shape != value.shape:
                raise NotImplementedError(f"the pretended GPU has no changes of shape in place, at {_here()}")
            return own

        return tree_map(wrap, found)


class _Mode(TorchDispatchMode):
    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.gpu.run(func, args, kwargs or {})


class _Module:
    """The native module as if it had CUDA kernels."""

    has_cuda = True
    cuda_version, cuda_architectures = "13.0", "90"

    def __init__(self, module: types.ModuleType, gpu: PretendedGpu) -> None:
        self._module, self._gpu = module, gpu
        self._known: dict[str, Any] = {}

    @staticmethod
    def cuda_problem(_device: int) -> str:
        return ""

    @staticmethod
    def cuda_device_count() -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if not callable(value) or isinstance(value, type):
            return value
        return self._known.setdefault(name, functools.partial(self._call, name))

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        is_gpu = "device" in kwargs
        for index, value in enumerate(args):
            if isinstance(value, Tensor) and isinstance(value, PretendedTensor) != (
                is_gpu and index not in _HOST_ARGUMENTS.get(name, ())
            ):
                raise MixedDevices(f"native {name}: argument {index} is on {value.device} at {_here()}")
        if not is_gpu:
            return getattr(self._module, name)(*args, **kwargs)
        del kwargs["device"], kwargs["stream"]
        self._gpu.counts.kernels += 1
        given = [_host(value) for value in args]
        if name in _SUMS:
            ids, sums = _SUMS[name]
            given[sums] = given[sums].new_empty(len(given[ids]), given[sums].shape[1])
        bodies = self._module.kernel_bodies
        return getattr(bodies if hasattr(bodies, name) else self._module, name)(*given, **kwargs)


class _Event:
    """A point in the order of the device's work; it is reached after a later wait. Its time is that of the CPU."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self._gpu, self._at, self._time = gpu, -1, 0.0

    def record(self, *_stream: Any) -> None:
        self._at, self._time = self._gpu.counts.waits, time.perf_counter()

    def elapsed_time(self, end: "_Event") -> float:
        return 1e3 * (end._time - self._time)

    def query(self) -> bool:
        return self._gpu.counts.waits > self._at

    def synchronize(self) -> None:
        if not self.query():
            self._gpu.wait("event")


@contextlib.contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """A context in which this process has one GPU, with native kernels; torch and the native module are restored at its end."""
    gpu = PretendedGpu()
    module = native.module()
    assert module is not None, "the native module is not built"
    with contextlib.ExitStack() as stack:

        def patch(owner: Any, name: str, value: Any) -> None:
            had = name in vars(owner)
            before = getattr(owner, name, None)
            stack.callback(lambda: setattr(owner, name, before) if had else delattr(owner, name))
            setattr(owner, name, value)

        for name in _FACTORIES:
            patch(torch, name, _with_device(getattr(torch, name)))
        for name in ("new_empty", "new_full", "new_ones", "new_zeros"):
            patch(Tensor, name, _with_device(getattr(Tensor, name)))
        patch(torch, "inference_mode", torch.no_grad)  # whose tensors cannot be wrapped
        patch(torch, "tensor", functools.partial(_tensor, torch.tensor))
        patch(torch, "as_tensor", functools.partial(_as_tensor, torch.as_tensor))
        patch(Tensor, "new_tensor", _new_tensor)
        patch(Tensor, "to", _to(Tensor.to))
        patch(Tensor, "cuda", lambda self, *_arguments, **_options: self.to(CUDA))
        patch(Tensor, "pin_memory", _pin_memory)
        patch(Tensor, "is_pinned", lambda self, *_arguments: getattr(self, "is_pretended_pinned", False))
        for name, value in _cuda_functions(gpu).items():
            patch(torch.cuda, name, value)
        pretended = _Module(module, gpu)
        patch(native, "_load", lambda: pretended)
        patch(torch_private, "dispatch_mode_is_on", lambda: False)  # as on a GPU
        native._problem_of.cache_clear()
        stack.callback(native._problem_of.cache_clear)
        stack.enter_context(gpu._mode)
        yield gpu


def _cuda_functions(gpu: PretendedGpu) -> dict[str, Any]:
    stream = types.SimpleNamespace(cuda_stream=0, synchronize=lambda: gpu.wait("stream"))
    nothing = lambda *_arguments, **_options: None  # noqa: E731
    return {
        "Event": lambda *_arguments, **_options: _Event(gpu),
        "current_device": lambda: 0,
        "current_stream": lambda *_device: stream,
        "device_count": lambda: 1,
        "empty_cache": nothing,
        "get_device_capability": lambda *_device: (9, 0),
        "get_device_name": lambda *_device: "pretended GPU",
        "get_rng_state_all": list,
        "is_available": lambda: True,
        "is_bf16_supported": lambda *_arguments: True,
        "is_current_stream_capturing": lambda: False,
        "manual_seed_all": nothing,
        "max_memory_allocated": lambda *_device: 0,
        "mem_get_info": lambda *_device: (8 << 30, 16 << 30),
        "memory_allocated": lambda *_device: 0,
        "reset_peak_memory_stats": nothing,
        "set_device": nothing,
        "set_rng_state_all": nothing,
        "synchronize": lambda *_device: gpu.wait("synchronize"),
    }


def _host(value: Any) -> Any:
    return value.host if isinstance(value, PretendedTensor) else value


def _is_cuda(device: Any) -> bool:
    return isinstance(device, str | torch.device) and torch.device(device).type == "cuda"


def _with_device(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = META
        is_pinned = kwargs.pop("pin_memory", False)
        made = function(*args, **kwargs)
        return made.pin_memory() if is_pinned else made

    return call


def _read(data: Any) -> Any:
    """Numbers that may be in tensors of the device."""
    if isinstance(data, PretendedTensor):
        return data.cpu()
    if isinstance(data, list | tuple):
        return [value.item() if isinstance(value, Tensor) and value.dim() == 0 else _read(value) for value in data]
    return data


def _tensor(function: Callable[..., Tensor], data: Any, *, device: Any = None, **options: Any) -> Tensor:
    if isinstance(data, PretendedTensor) and device is None:
        device = CUDA
    requires_grad = options.pop("requires_grad", False)
    made = function(_read(data), **options)
    return (made.to(META) if _is_cuda(device) else made.to(device or CPU)).requires_grad_(requires_grad)


def _as_tensor(function: Callable[..., Tensor], data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    if isinstance(data, Tensor):
        return data.to(device=device or data.device, dtype=dtype or data.dtype)
    made = function(_read(data), dtype=dtype)
    return made.to(META) if _is_cuda(device) else made


def _new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device)


def _to(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        args = tuple(META if _is_cuda(value) else value for value in args)
        kwargs = {key: META if key == "device" and _is_cuda(value) else value for key, value in kwargs.items()}
        return function(self, *args, **kwargs)

    return to


def _pin_memory(self: Tensor, *_device: Any) -> Tensor:
    if isinstance(self, PretendedTensor):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    pinned = self.clone()
    pinned.is_pretended_pinned = True  # type: ignore[attr-defined]
    return pinned


def _tensors_in(index: Any, like: Tensor) -> Any:
    """An index with tensors of the device in place of lists, as torch makes them."""
    if isinstance(index, list | range):
        return torch.tensor(list(index), device=like.device)
    if isinstance(index, tuple):
        return tuple(_tensors_in(part, like) for part in index)
    return index


def _here() -> str:
    """The innermost line of the package that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            return f"{Path(frame.f_code.co_filename).relative_to(_PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "the test"
