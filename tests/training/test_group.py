"""The process group under torchrun: which backend is asked for, and which GPU each process takes. GPUs are pretended."""

import json
import os
import subprocess
import sys
import types
from dataclasses import replace

import pytest
import torch

from tests.support.fits import FEW
from tests.support.photos import write_photos
from vision3d.cli.app import execute
from vision3d.core import device, native
from vision3d.core.config import dump_yaml
from vision3d.core.errors import DeviceError
from vision3d.training.group import launched_group

OLD = "the NVIDIA driver supports CUDA 11.4, the kernels need 12.8"


@pytest.fixture
def asked(monkeypatch):
    """What is asked of torch, in order."""
    calls = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: calls.append(backend))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: calls.append("destroyed"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: calls.append(index))
    yield calls
    for cached in (device._warn, native._problem_of):
        cached.cache_clear()


def launch(monkeypatch, *, gpus, rank=0, processes=2, problem="", nccl=True):
    """A process of torchrun on a machine with these GPUs."""
    module = types.ModuleType("pretended")
    module.has_cuda, module.cuda_problem = True, lambda index: problem
    for cached in (device._warn, native._problem_of):
        cached.cache_clear()
    for owner, name in ((native, "_load"), (native, "module")):
        monkeypatch.setattr(owner, name, lambda: module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *index: "NVIDIA Test")
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    for key, value in {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "LOCAL_RANK": rank, "RANK": rank}.items():
        monkeypatch.setenv(key, str(value))


@pytest.mark.parametrize("name", ["auto", "cuda"])
@pytest.mark.parametrize("rank", [0, 3])
def test_each_process_has_the_gpu_of_its_rank(monkeypatch, asked, name, rank):
    launch(monkeypatch, gpus=4, rank=rank, processes=4)
    with launched_group(name):
        assert asked == [rank, "cpu:gloo,cuda:nccl"]
    assert asked[-1] == "destroyed"


@pytest.mark.parametrize(
    ("name", "machine", "want"),
    [
        ("cpu", {"gpus": 2}, ["gloo"]),
        ("auto", {"gpus": 0}, ["gloo"]),
        ("auto", {"gpus": 1, "problem": OLD}, [0, "gloo"]),
        ("cuda", {"gpus": 2, "nccl": False}, [0, "gloo"]),
    ],
)
def test_gloo_where_there_is_no_nccl(monkeypatch, asked, name, machine, want):
    launch(monkeypatch, **machine)
    with launched_group(name):
        assert asked == want


def test_more_processes_than_gpus(monkeypatch, asked):
    for rank in range(3):  # all of them fail, so that none waits for the others
        launch(monkeypatch, gpus=2, rank=rank, processes=3)
        text = r"^device auto: got 3 processes on this machine for its 2 GPUs, want .*--nproc-per-node 2\), or --device cpu$"
        with pytest.raises(DeviceError, match=text), launched_group():
            pass
    assert asked == [0, 1]
    with launched_group("cpu"):
        assert asked[-1] == "gloo"


def test_a_device_with_an_index_is_refused(monkeypatch, asked):
    launch(monkeypatch, gpus=2)
    text = "device cuda:1: torchrun gives each process the GPU of its local rank; want cuda"
    with pytest.raises(DeviceError, match=text), launched_group("cuda:1"):
        pass
    assert "gloo" not in asked


def test_a_single_process_has_no_group(monkeypatch, asked):
    launch(monkeypatch, gpus=2, processes=1)
    with launched_group("cuda") as group:
        assert group.size == 1 and asked == []


def under_torchrun(*arguments):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*launcher, "-m", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_two_pretended_gpus_exchange_tensors_of_the_device(tmp_path):
    """Gradients are exchanged on the device, decisions on the CPU, whose tensors are not mixed with those of the device."""
    photos = write_photos(tmp_path / "photos")
    config = replace(FEW, steps=12, batch_size=2, strategy="adc", device="cuda", pose_opt=True, eval_every=0)
    (tmp_path / "pair.yaml").write_text(dump_yaml(config))
    options = ["fit", photos, "--config", tmp_path / "pair.yaml", "--out", tmp_path / "pair", "--quiet"]
    done = under_torchrun("tests.support.pretended_pair", *options)
    assert done.returncode == 0, done.stderr
    found = {line["rank"]: line for line in (json.loads(text) for text in done.stderr.splitlines() if text.startswith("{"))}
    assert [found[rank]["device"] for rank in "01"] == [0, 1]
    for line in found.values():
        assert line["backend"] == "cpu:gloo,cuda:nccl"
        assert line["exchanges"] == 12 * 8 + 2  # loss, 5 gradients, poses, their counts; two sums of the refinement


def test_other_processes_do_not_train_for_print_config(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for rank, printed in ((1, 0), (0, 1)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert execute(["fit", str(tmp_path / "missing"), "--print-config"]) == 0
        assert capsys.readouterr().out.count("max_gaussians:") == printed
