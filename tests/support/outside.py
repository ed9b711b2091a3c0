"""Foreign packages and programs used by the tests of `make test-viewer`. If one is missing, its tests are skipped."""

import functools
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_MODULES = Path(__file__).parents[1] / "outside" / "node_modules"


def package(name: str) -> ModuleType:
    """Imports a Python package, or skips with the reason why it cannot be imported.

    Its first import runs in a separate process, as a broken graphics library may crash it.
    """
    problem = _import_problem(name)
    if problem:
        pytest.skip(f"{name} cannot be imported: {problem}")
    return importlib.import_module(name)


@functools.cache
def _import_problem(name: str) -> str:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def program(*names: str) -> str:
    """Path of the first of these programs on PATH, or a skip."""
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


def validate_gltf(*paths: Path) -> list[dict[str, Any]]:
    """Reports of Khronos' glTF validator, one per file, or a skip."""
    script = npm_package("gltf-validator").parents[1] / "validate_gltf.mjs"
    command = [program("node"), str(script), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]
