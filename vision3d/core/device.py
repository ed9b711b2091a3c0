"""Selection of the device and the rasterizer backend, done once."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from vision3d.core.errors import BackendError, DeviceError
from vision3d.core.install import install_command

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]
BackendName = Literal["auto", "native", "reference", "gsplat"]


def resolve_device(name: str = "auto") -> "torch.device":
    """The torch device for `auto`, `cpu` or `cuda` (also `cuda:1`).

    Raises:
        DeviceError: CUDA was requested but torch does not see a CUDA device, or the name is unknown.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        build = "a CPU build" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        raise DeviceError(f"device {name}: torch {torch.__version__} is {build} and sees no GPU; use --device cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name}: unknown; want auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return device


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

    runs_native = native.module() is not None and (device.type == "cpu" or native.has_cuda())
    if name == "auto":
        if runs_native:
            return "native"
        return "gsplat" if device.type == "cuda" and _has_gsplat() else "reference"
    if name == "native" and not runs_native:
        raise BackendError(f"backend native does not run on {device.type} here; `vision3d doctor` prints the fix")
    if name == "gsplat" and (device.type != "cuda" or not _has_gsplat()):
        raise BackendError(f"backend gsplat needs a CUDA device and the gsplat package: {install_command('gsplat')}")
    if name not in ("native", "reference", "gsplat"):
        raise BackendError(f"backend {name}: unknown; want auto, native, reference or gsplat")
    return name


def _has_gsplat() -> bool:
    import importlib.util

    return importlib.util.find_spec("gsplat") is not None
