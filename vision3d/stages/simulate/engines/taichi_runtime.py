"""Ownership of Taichi's runtime, which is global to a process: initialized once, with threads and cache folder.

`quadrants`, a fork with the same API, is used if `taichi` is not installed.
"""

import atexit
import contextlib
import functools
import importlib
import importlib.util
import io
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

from vision3d.core import caches
from vision3d.core.errors import BackendError, MissingDependencyError

logger = logging.getLogger("vision3d.physics")

PACKAGES = ("taichi", "quadrants")


def require() -> str:
    """Name of the package to use, not imported yet.

    Raises:
        MissingDependencyError: Neither is installed.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is not None:
            return package
    raise MissingDependencyError("taichi", "physics", "the physics engine taichi")


def runtime(device: str = "cpu") -> ModuleType:
    """The package with its runtime initialized for a kind of device: `cpu` or `cuda`.

    A runtime that the caller has initialized with `taichi.init` is used as is, since a second `init` would destroy its fields.

    Raises:
        MissingDependencyError: Neither package is installed.
        BackendError: The runtime of this process runs on another device, or cannot be started on this one.
    """
    ti = _started(device)
    arch = ti.lang.impl.current_cfg().arch
    is_right = arch == ti.cuda if device == "cuda" else arch in (ti.x64, ti.arm64)
    if not is_right:
        raise BackendError(
            f"{ti.__name__} runs on {ti._lib.core.arch_name(arch)} in this process, want {device}; "
            "use one device a process, or the engine reference"
        )
    return ti


def num_threads() -> int:
    """Threads of the runtime on the CPU."""
    return int(_package().lang.impl.current_cfg().cpu_max_num_threads)


def cache_folder() -> Path:
    """Folder of compiled kernels: in the user's cache, or one of this process if that is read-only."""
    folder = caches.cache_folder("taichi")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        temporary = Path(tempfile.mkdtemp(prefix="vision3d-taichi-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        logger.info("%s is not writable (%s): kernels are compiled again in each process", folder, error.strerror)
        return temporary
    return folder


@functools.cache
def _package() -> ModuleType:
    name = require()
    os.environ.setdefault("ENABLE_TAICHI_HEADER_PRINT", "0")  # it prints its version on import
    os.environ.setdefault("ENABLE_QUADRANTS_HEADER_PRINT", "0")
    os.environ["TI_SKIP_VERSION_CHECK"] = "ON"  # Taichi's `init` contacts a server; Quadrants does not
    for variable in ("TI_LOG_LEVEL", "QD_LOG_LEVEL"):  # in a notebook it prints a message on import
        os.environ.setdefault(variable, "warn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(name)


def _started(device: str) -> ModuleType:
    ti = _package()
    runtime = vars(ti.lang.impl.get_runtime())
    if runtime.get("prog", runtime.get("_prog")) is not None:  # the names of Taichi and Quadrants
        return ti
    return _start(ti, device)


def _start(ti: ModuleType, device: str) -> ModuleType:
    import torch

    had_denormals = float(torch.tensor(1e-310, dtype=torch.float64) * 1) > 0
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the device
            ti.init(
                arch=ti.cuda if device == "cuda" else ti.cpu,
                enable_fallback=False,
                default_fp=ti.f32,
                default_ip=ti.i32,
                cpu_max_num_threads=torch.get_num_threads(),
                offline_cache=True,
                offline_cache_file_path=str(cache_folder()),
            )
    except RuntimeError as error:
        raise BackendError(f"{ti.__name__} does not start on {device}: {str(error).splitlines()[0]}") from None
    finally:
        torch.set_flush_denormal(not had_denormals)  # it disables them for this thread permanently
    return ti
