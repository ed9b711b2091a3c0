"""Selection of the device and the rasterizer backend, done once."""

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from vision3d.core.errors import BackendError, DeviceError
from vision3d.core.install import install_command, reinstall_command

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]
BackendName = Literal["auto", "native", "reference", "gsplat"]


def resolve_device(name: str = "auto", *, backend: str = "auto") -> "torch.device":
    """The torch device for `auto`, `cpu` or `cuda` (also `cuda:1`).

    CUDA is used only if the native CUDA kernels run there: the torch operations that would replace them are slower on a GPU
    than the native kernels on a CPU. Otherwise `auto` is the CPU, and if there is a GPU, one warning gives the reason and the
    fix. If the native module is not built or disabled (VISION3D_NATIVE=0), `auto` is CUDA if torch sees a GPU.

    Args:
        name: Name of the device.
        backend: Rasterizer backend as for `resolve_backend`; `gsplat` and `reference` do not need the native kernels.

    Raises:
        DeviceError: CUDA was requested and cannot be used, or the name is unknown.
    """
    import torch

    if name == "auto":
        return _automatic(backend)
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name}: unknown; want auto, cpu or cuda")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        build = "a CPU build" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        raise DeviceError(f"device {name}: torch {torch.__version__} is {build} and sees no GPU; use --device cpu")
    if (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name}: got index {device.index}, want one below {torch.cuda.device_count()}")
    if backend in ("auto", "native") and (problem := _native_problem(device)):
        raise DeviceError(f"device {name}: {problem}; {cuda_fix(problem)}, or use --device cpu")
    return device


def _automatic(backend: str) -> "torch.device":
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda")
    if backend in ("auto", "native") and (problem := _native_problem(device)):
        _warn(f"running on the CPU, not on {torch.cuda.get_device_name()}: {problem}; {cuda_fix(problem)}")
        return torch.device("cpu")
    return device


def _native_problem(device: "torch.device") -> str:
    """What keeps native CUDA kernels from running there; empty if they run, or if the CPU has no native kernels either."""
    from vision3d.core import native

    return "" if native.module() is None else native.cuda_problem(device.index)


def cuda_fix(problem: str) -> str:
    """What to do about a problem of `native.cuda_problem`."""
    if "driver" in problem:
        return "update the NVIDIA driver"
    return f"build the kernels with nvcc: VISION3D_CUDA=ON {reinstall_command()}"


@functools.cache
def _warn(text: str) -> None:
    """Warn once per process."""
    logging.getLogger("vision3d.device").warning(text)


def sent(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """The tensor on a device. A copy to a GPU goes through pinned memory, so that the CPU does not wait for the GPU."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextlib.contextmanager
def repeatable(device: "torch.device") -> Iterator[None]:
    """Context in which the CPU gives the same bits for the same steps, independent of thread timing; no effect on CUDA.

    PyTorch adds gradients of repeated indices (`x[i]` of more than 32 768 numbers) in the order in which threads arrive,
    unless deterministic algorithms are enabled.
    """
    import torch

    if device.type != "cpu" or torch.are_deterministic_algorithms_enabled():
        yield
        return
    fills = torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # pyright: ignore[reportAttributeAccessIssue]


def resolve_backend(name: str, device: "torch.device") -> Literal["native", "reference", "gsplat"]:
    """The backend that rasterizes on `device`: `auto` is native where its kernels run, else gsplat, else the torch reference.

    Raises:
        BackendError: The requested backend is not built or does not run on this device.
    """
    from vision3d.core import native

    runs_native = native.module() is not None and (device.type == "cpu" or native.has_cuda(device.index))
    if name == "auto":
        if runs_native:
            return "native"
        return "gsplat" if device.type == "cuda" and _has_gsplat() else "reference"
    if name == "native" and not runs_native:
        problem = native.cuda_problem(device.index)
        raise BackendError(f"backend native does not run on {device.type} here: {problem}; `vision3d doctor` prints the fix")
    if name == "gsplat" and (device.type != "cuda" or not _has_gsplat()):
        raise BackendError(f"backend gsplat needs a CUDA device and the gsplat package: {install_command('gsplat')}")
    if name not in ("native", "reference", "gsplat"):
        raise BackendError(f"backend {name}: unknown; want auto, native, reference or gsplat")
    return name


def _has_gsplat() -> bool:
    import importlib.util

    return importlib.util.find_spec("gsplat") is not None
