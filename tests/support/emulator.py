"""The CUDA kernels on the CPU, each CUDA thread with its own order of accesses: built and used by `make check-cuda-races`.

$VISION3D_EMULATED is the path of the module (cuda_ext/tests/emulator). It takes tensors on the CPU.
"""

import functools
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from vision3d.core import native


def is_built() -> bool:
    """Whether $VISION3D_EMULATED is set."""
    return bool(os.environ.get("VISION3D_EMULATED"))


@functools.cache
def module() -> ModuleType:
    """The functions of `vision3d._native` for a GPU."""
    spec = importlib.util.spec_from_file_location("_emulated", os.environ["VISION3D_EMULATED"])
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@contextmanager
def used() -> Iterator[None]:
    """Operations on CPU tensors run the emulated kernels, with the memory and the steps of a GPU."""
    require, is_on_cpu, before = native.require, native.is_on_cpu, module().launches()
    native.require, native.is_on_cpu = module, lambda tensor: False
    try:
        yield
    finally:
        native.require, native.is_on_cpu = require, is_on_cpu
    assert module().launches() > before, "no kernel was launched"
