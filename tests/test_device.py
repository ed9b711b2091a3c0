"""The choice of the device: CUDA only where the native CUDA kernels run, one rule for all commands. GPUs are pretended."""

import logging
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from vision3d.core import device, native
from vision3d.core.errors import BackendError, DeviceError

OLD = "the NVIDIA driver supports CUDA 11.4, the kernels need 12.8"
OTHER = "the kernels were not compiled for sm_61"
BUILD = "build the kernels with nvcc: VISION3D_CUDA=ON "


def pretend(monkeypatch, *, gpu: bool, problem: str | None = None, is_native: bool = True):
    """A machine with or without a GPU; `problem` of the CUDA kernels, None: not compiled in."""
    module = types.ModuleType("pretended")
    module.has_cuda, module.cuda_problem = problem is not None, lambda index: problem
    for cached in (device._warn, native._problem_of):
        cached.cache_clear()
    monkeypatch.setattr(native, "_load", lambda: module if is_native else None)
    monkeypatch.setattr(native, "module", lambda: module if is_native else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(gpu))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *index: "NVIDIA Test")


@pytest.fixture(autouse=True)
def _fresh():
    yield
    for cached in (device._warn, native._problem_of):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (None, "this build of vision3d has no CUDA kernels; " + BUILD),
        (OLD, OLD + "; update the NVIDIA driver"),
        (OTHER, OTHER + "; " + BUILD),
    ],
)
def test_a_gpu_without_kernels_is_not_used(monkeypatch, caplog, problem, line):
    pretend(monkeypatch, gpu=True, problem=problem)
    with caplog.at_level(logging.WARNING, "vision3d"):
        assert device.resolve_device("auto") == torch.device("cpu")
        assert device.resolve_device("auto") == torch.device("cpu")
    (record,) = caplog.records  # one line per process
    assert record.message.startswith("running on the CPU, not on NVIDIA Test: " + line) and "\n" not in record.message
    with pytest.raises(DeviceError, match=r"^device cuda: ") as caught:
        device.resolve_device("cuda")
    assert line in str(caught.value) and str(caught.value).endswith(", or use --device cpu")
    with pytest.raises(BackendError, match=r"backend native does not run on cuda here: .*doctor"):
        device.resolve_backend("native", torch.device("cuda"))
    assert device.resolve_backend("native", torch.device("cpu")) == "native"


def test_a_gpu_with_kernels_is_used(monkeypatch, caplog):
    pretend(monkeypatch, gpu=True, problem="")
    assert device.resolve_device("auto") == torch.device("cuda")
    assert device.resolve_device("cuda") == torch.device("cuda")
    assert device.resolve_device("cuda:0") == torch.device("cuda:0")
    assert device.resolve_device("cpu") == torch.device("cpu")
    assert device.resolve_backend("auto", torch.device("cuda")) == "native"
    with pytest.raises(DeviceError, match="device cuda:3: got index 3, want one below 1"):
        device.resolve_device("cuda:3")
    assert not caplog.records


@pytest.mark.parametrize("problem", [None, ""])
def test_without_a_gpu(monkeypatch, caplog, problem):
    pretend(monkeypatch, gpu=False, problem=problem)
    assert device.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"device cuda: torch .* sees no GPU; use --device cpu"):
        device.resolve_device("cuda")
    assert not caplog.records


@pytest.mark.parametrize("backend", ["gsplat", "reference"])
def test_other_backends_do_not_need_the_kernels(monkeypatch, backend):
    pretend(monkeypatch, gpu=True, problem=None)
    assert device.resolve_device("auto", backend=backend) == torch.device("cuda")
    assert device.resolve_device("cuda", backend=backend) == torch.device("cuda")


def test_without_native_module_torch_runs_on_the_gpu(monkeypatch):
    pretend(monkeypatch, gpu=True, is_native=False)
    assert device.resolve_device("auto") == device.resolve_device("cuda") == torch.device("cuda")
    assert device.resolve_backend("auto", torch.device("cuda")) in ("gsplat", "reference")


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:x", ""])
def test_unknown_devices(name):
    with pytest.raises(DeviceError, match=f"device {name}: unknown; want auto, cpu or cuda"):
        device.resolve_device(name)


def test_kernels_reject_tensors_of_a_device_without_them(monkeypatch):
    pretend(monkeypatch, gpu=True, problem=OLD)
    tensor = types.SimpleNamespace(device=torch.device("cuda:0"))
    assert not native.runs_on(tensor)
    with pytest.raises(BackendError, match=r"native kernels do not run on cuda:0: the NVIDIA driver supports CUDA 11\.4"):
        native.where(tensor)


def test_driver_is_asked_once(monkeypatch):
    asked = []
    pretend(monkeypatch, gpu=True, problem="")
    native._load().cuda_problem = lambda index: asked.append(index) or ""
    assert native.has_cuda() and native.has_cuda(0) and native.has_cuda()
    assert asked == [0]


@pytest.mark.skipif(not native.cuda_problem(), reason="the CUDA kernels run here")
def test_required_gpu_tests_fail_without_a_gpu():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--require-gpu", __file__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 1
    assert "the CUDA kernels do not run here: " in done.stdout + done.stderr


@pytest.mark.gpu
def test_the_kernels_run_on_this_gpu():
    assert native.cuda_problem() == "", subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout
    assert device.resolve_device("auto").type == "cuda"
