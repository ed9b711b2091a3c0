import importlib
import importlib.metadata
import json
import sys

import pytest

from vision3d.cli import doctor


def findings(cli, *arguments):
    code, out, _ = cli("doctor", "--json", "--quiet", *arguments)
    values = json.loads(out)
    return code, {finding["name"]: finding for finding in values["findings"]}, values


def test_this_machine_works(cli):
    code, found, values = findings(cli)
    assert code == 0 and values["works"] is True
    for name in ("python", "torch", "numpy", "scipy", "tyro"):
        assert found[name]["state"] == "ok"
    assert found["torch"]["text"].startswith(importlib.metadata.version("torch"))


def test_report_for_people(cli):
    code, out, err = cli("doctor")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("ok    vision3d") and lines[-1] == "vision3d can fit scenes here"


def test_missing_dependency_names_the_repair(cli, monkeypatch):
    version = importlib.metadata.version

    def without_scipy(name):
        if name == "scipy":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_scipy)
    code, out, _ = cli("doctor")
    assert code == 4 and out.endswith("vision3d cannot fit scenes here\n")
    assert any(line.startswith("FAIL  scipy") for line in out.splitlines())
    assert f"{sys.executable} -m pip install scipy" in out


def test_unbuilt_native_module_is_no_obstacle(cli, monkeypatch):
    import_module = importlib.import_module

    def without_native(name, *rest):
        if name == "vision3d._native":
            raise ImportError("No module named 'vision3d._native'")
        return import_module(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without_native)
    code, found, _ = findings(cli)
    assert code == 0
    assert found["native kernels"]["state"] == "broken"
    assert "--no-build-isolation -e" in found["native kernels"]["repair"]


def test_native_switched_off(cli, monkeypatch):
    monkeypatch.setenv("VISION3D_NATIVE", "0")
    _, found, _ = findings(cli)
    assert found["native kernels"]["repair"] == "unset VISION3D_NATIVE"


def test_gpu_that_torch_does_not_use(cli, monkeypatch):
    import torch

    output = doctor._output
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        doctor, "_output", lambda *command: "H100, 570.1, 80 GB" if command[0] == "nvidia-smi" else output(*command)
    )
    code, found, _ = findings(cli)
    assert code == 0 and found["gpu"]["state"] == "broken" and "this torch does not use it" in found["gpu"]["text"]


@pytest.mark.parametrize("name", sorted(doctor.OPTIONAL))
def test_optional_packages_are_extras(name):
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(doctor.__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra, _ = doctor.OPTIONAL[name]
    assert any(text.startswith(name) for text in project["optional-dependencies"][extra])


def test_version_line_prefers_the_release(monkeypatch):
    text = "nvcc: NVIDIA\nCopyright (c) 2025\nCuda compilation tools, release 13.0, V13.0.88\n"
    monkeypatch.setattr(doctor, "_output", lambda *command: text)
    assert doctor._version_line("nvcc") == "Cuda compilation tools, release 13.0, V13.0.88"
