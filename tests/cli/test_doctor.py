import importlib
import importlib.metadata
import importlib.util
import json
import sys

import pytest

from vision3d.cli import doctor
from vision3d.core.install import install_command


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


def test_missing_dependency_names_the_fix(cli, monkeypatch):
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


def test_fail_of_something_optional_is_exit_code_4(cli, monkeypatch):
    broken = doctor.Finding("ffmpeg", "broken", "no file; no videos", "pip install imageio-ffmpeg")
    monkeypatch.setattr(doctor, "_ffmpeg", lambda: broken)
    code, out, _ = cli("doctor")
    assert code == 4 and any(line.startswith("FAIL  ffmpeg") for line in out.splitlines())
    assert out.endswith("vision3d can fit scenes here, but not as it should: FAIL of ffmpeg\n")
    code, _, values = findings(cli)
    assert code == 4 and values["broken"] == ["ffmpeg"] and values["works"] is True


def test_nothing_is_listed_twice(cli):
    _, _, values = findings(cli)
    names = [finding["name"] for finding in values["findings"]]
    assert sorted(names) == sorted(set(names)) and "open3d" in names


def test_unbuilt_native_module_fails(cli, monkeypatch):
    import_module = importlib.import_module

    def without_native(name, *rest):
        if name == "vision3d._native":
            raise ImportError("No module named 'vision3d._native'")
        return import_module(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without_native)
    code, found, _ = findings(cli)
    assert code == 4
    assert found["native kernels"]["state"] == "broken"
    assert "--no-build-isolation -e" in found["native kernels"]["repair"]


def test_native_disabled(cli, monkeypatch):
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
    assert code == 4 and found["gpu"]["state"] == "broken" and "this torch does not use it" in found["gpu"]["text"]


def test_gpu_without_kernels(cli, monkeypatch):
    import torch

    from vision3d.core import native

    if native.module() is None or native.require().has_cuda:
        pytest.skip("needs a native module without CUDA")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *index: "NVIDIA Test")
    code, found, _ = findings(cli)
    assert code == 4 and found["CUDA kernels"]["state"] == "broken"
    assert found["CUDA kernels"]["text"] == "this build of vision3d has no CUDA kernels (not built); commands run on the CPU"
    assert found["CUDA kernels"]["repair"].startswith("build the kernels with nvcc: VISION3D_CUDA=ON ")


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


def test_without_open3d_the_extra_is_named(cli, monkeypatch):
    find_spec, version = importlib.util.find_spec, importlib.metadata.version

    def without(name, *rest):
        if name.startswith("open3d"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "open3d" else find_spec(name, *rest))
    code, found, _ = findings(cli)
    assert code == 0
    assert found["open3d"]["state"] == "missing" and found["open3d"]["repair"] == install_command("open3d")
    assert "display" not in found


@pytest.mark.parametrize(
    ("problem", "text", "repair"),
    [
        (None, "a window opens; the CPU draws in it", None),
        (
            "Open3D cannot be loaded: libGL.so.1 is missing; apt install libgl1; without a window: ...",
            "Open3D cannot be loaded: libGL.so.1 is missing", "apt install libgl1",
        ),
    ],
)  # fmt: skip
def test_whether_a_window_opens(cli, monkeypatch, problem, text, repair):
    from vision3d.core.errors import BackendError
    from vision3d.viewer import probe

    class Stand:
        def result(self):
            if problem:
                raise BackendError(problem)
            return probe.Graphics("0.20.0", False)

    monkeypatch.setattr(probe, "Probe", Stand)
    monkeypatch.setattr(doctor, "_version", lambda name: "0.20.0")
    code, found, _ = findings(cli)
    assert code == 0 and found["open3d"]["text"].startswith("0.20.0")
    assert (found["display"]["text"], found["display"]["repair"]) == (text, repair)
