"""Guarantees of the package: fast import, few and permissively licensed dependencies, a recorded public API."""

import importlib
import importlib.metadata
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vision3d

ROOT = Path(vision3d.__file__).resolve().parents[1]
SURFACE = Path(__file__).parent / "api_surface.json"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FREE = r"\b(MIT|BSD|Apache|HPND|PSF|Python Software Foundation|ISC|Zlib|MPL|CC0|Unlicense|0BSD)\b"


def run_python(code: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, **options)


def test_import_is_light():
    code = """
import time, sys
start = time.perf_counter()
import vision3d
print(time.perf_counter() - start)
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "scipy", "yaml", "tyro", "rich"}))
"""
    outputs = [run_python(code).stdout.splitlines() for _ in range(3)]
    assert all(output[1] == "[]" for output in outputs)
    assert statistics.median(float(output[0]) for output in outputs) < 0.3


def test_public_names_are_listed_before_they_are_loaded():
    out = run_python("import vision3d, sys; print(set(vision3d.__all__) <= set(dir(vision3d)), 'torch' in sys.modules)")
    assert out.stdout == "True False\n"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'vision3d' has no attribute 'rasterise'"):
        _ = vision3d.rasterise


def test_functions_are_not_hidden_by_modules_of_their_name():
    """A submodule becomes an attribute of its package when it is imported, in place of a function loaded on first use."""
    code = """
import importlib, inspect, pkgutil, vision3d
for package in pkgutil.walk_packages(vision3d.__path__, "vision3d."):
    if package.ispkg:
        names = getattr(importlib.import_module(package.name), "__all__", ())
        modules = {module.name for module in pkgutil.iter_modules(importlib.import_module(package.name).__path__)}
        for name in sorted(modules & set(names)):
            before = getattr(importlib.import_module(package.name), name)
            importlib.import_module(f"{package.name}.{name}")
            if inspect.ismodule(getattr(importlib.import_module(package.name), name)) != inspect.ismodule(before):
                print(package.name, name)
"""
    assert run_python(code).stdout == ""


def dependencies() -> list[str]:
    return [re.split(r"[<>=!~\[; ]", text)[0] for text in PROJECT["dependencies"]]


def test_hard_dependencies_are_few():
    assert len(dependencies()) <= 12


@pytest.mark.parametrize("name", dependencies())
def test_hard_dependencies_are_permissive(name):
    metadata = importlib.metadata.metadata(name)
    texts = [metadata.get("License-Expression", ""), *metadata.get_all("Classifier", [])]
    licence = " ".join(text for text in texts if "License" in text or "::" not in text)
    licence = licence.strip() or (metadata.get("License") or "").splitlines()[0]
    assert re.search(FREE, licence), f"{name}: {licence}"
    assert not re.search(r"(?<![A-Z])A?GPL", licence), f"{name}: {licence}"


def test_version_is_one():
    assert PROJECT["version"] == vision3d.__version__
    assert f"## {vision3d.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def surface() -> dict[str, object]:
    """The public names with their signatures, and those of the public methods of classes."""
    found: dict[str, object] = {}
    for name in sorted(vision3d.__all__):
        value = getattr(vision3d, name)
        if inspect.isclass(value):
            members = {key: member for key, member in inspect.getmembers(value) if not key.startswith("_")}
            found[name] = {
                "": str(inspect.signature(value)),
                **{key: str(inspect.signature(member)) for key, member in members.items() if callable(member)},
                **{key: "property" for key, member in members.items() if isinstance(member, property)},
            }
        else:
            found[name] = str(inspect.signature(value)) if callable(value) else type(value).__name__
    return found


def test_public_api_is_unchanged(update_golden):
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", json.dumps(surface()))  # the module of a type is not part of the API
    got = json.loads(re.sub(r" at 0x[0-9a-f]+", "", text))
    if update_golden:
        SURFACE.write_text(json.dumps(got, indent=2) + "\n", "utf-8")
    want = json.loads(SURFACE.read_text("utf-8"))
    assert got == want, "the public API changed; if intended: pytest tests/test_package.py --update-golden"


def test_every_public_name_has_a_docstring():
    for name in vision3d.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(vision3d, name)), name


@pytest.mark.parametrize("name", ["viewer", "configs"])
def test_folders_outside_the_package_are_found_in_it(name):
    import importlib.resources

    assert (importlib.resources.files("vision3d") / name).is_dir()


def test_without_the_native_module_there_is_one_warning():
    code = """
import warnings, sys
sys.modules["vision3d._native"] = None
from vision3d.core import native
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert native.module() is None and native.module() is None
print(len(caught), caught[0].message)
"""
    out = run_python(code, env={**os.environ, "VISION3D_NATIVE": "1"}).stdout
    assert out.startswith("1 vision3d runs on its slow torch reference: ") and "vision3d doctor" in out
