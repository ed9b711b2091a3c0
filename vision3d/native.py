"""The compiled module: found once, or not at all. Kernels follow `torch.get_num_threads()` at every call."""

import functools
import importlib
import os
import warnings
from types import ModuleType

import torch


@functools.cache
def _load() -> ModuleType | None:
    if os.environ.get("VISION3D_NATIVE", "1") == "0":
        return None
    try:
        native = importlib.import_module("vision3d._native")
    except ImportError as error:
        warnings.warn(
            f"vision3d runs on its slow torch reference: {error}. `vision3d doctor` says how to mend it.", stacklevel=3
        )
        return None
    wanted = os.environ.get("VISION3D_ISA")
    if wanted:
        native.set_isa(wanted)
    return native


def module() -> ModuleType | None:
    """The native module with its thread pool sized like torch's, or None (one warning) when it was not built.

    Environment: `VISION3D_NATIVE=0` leaves it out, `VISION3D_ISA=sse2|avx2|avx512|portable` picks the instruction set.
    """
    native = _load()
    if native is not None:
        native.set_num_threads(torch.get_num_threads())
    return native


def require() -> ModuleType:
    """The native module, for code that runs only where it was found."""
    native = module()
    if native is None:
        raise RuntimeError("the native module is not loaded")
    return native


def has_cuda() -> bool:
    """Whether the native module was compiled with its CUDA loops."""
    native = _load()
    return native is not None and bool(native.has_cuda)
