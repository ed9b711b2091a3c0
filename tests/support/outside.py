"""Packages and programs of others that the tests of `make test-viewer` use. Where one is missing, its tests are skipped."""

import functools
import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

_MODULES = Path(__file__).parents[1] / "outside" / "node_modules"


def package(name: str) -> ModuleType:
    """A Python package, or a skip that says why it does not load.

    Its first import runs in a process of its own: a graphics library that is broken may end the process.
    """
    problem = _import_problem(name)
    if problem:
        pytest.skip(f"{name} does not load: {problem}")
    return importlib.import_module(name)


@functools.cache
def _import_problem(name: str) -> str:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def program(*names: str) -> str:
    """Path of the first of these programs that is on PATH, or a skip."""
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    pytest.skip(f"{' or '.join(names)} not found: make test-viewer installs it")


def npm_package(name: str) -> Path:
    """Folder of an npm package of tests/outside, or a skip."""
    program("node")
    folder = _MODULES / name
    if not folder.is_dir():
        pytest.skip(f"npm package {name} not found: make test-viewer installs it")
    return folder
