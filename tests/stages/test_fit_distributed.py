import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.support.clouds import write_clip, write_clouds
from tests.support.digits import drawn_digits, write_idx
from tests.support.fits import FEW
from tests.support.photos import write_photos
from vision3d import GaussianScene
from vision3d.core.config import dump_yaml
from vision3d.core.errors import ConfigError
from vision3d.core.progress import silent
from vision3d.core.runs import read_metrics
from vision3d.stages.fit import fit
from vision3d.stages.rotation import (
    IkConfig,
    PointCloudConfig,
    SanityConfig,
    reproduce_rotation_ik,
    reproduce_rotation_pointcloud,
    reproduce_rotation_sanity,
)
from vision3d.training.group import Group

PAIR = replace(FEW, steps=24, batch_size=2, pose_opt=True, log_every=6, eval_every=0)


def torchrun(arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*launcher, "-m", "vision3d", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["mcmc", "adc"])
def test_two_processes_equal_one(tmp_path, strategy):
    """One image of each batch per process: the gradients are the same two sums, so the scene is bitwise the same."""
    photos = write_photos(tmp_path / "set")
    config = replace(PAIR, strategy=strategy)
    (tmp_path / "pair.yaml").write_text(dump_yaml(config))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = fit(config, photos, run_folder=tmp_path / "alone", progress=silent)
    finally:
        torch.set_num_threads(threads)
    done = torchrun(["fit", photos, "--out", tmp_path / "pair", "--config", tmp_path / "pair.yaml"])
    assert done.returncode == 0, done.stderr
    scene = GaussianScene.load(tmp_path / "pair" / "scene.ply")
    assert scene.num_gaussians == alone.scene.num_gaussians > 40
    for field in ("means", "quats", "log_scales", "opacity_logits", "sh"):
        torch.testing.assert_close(getattr(scene, field), getattr(alone.scene, field), atol=1e-5, rtol=1e-5)
    want, got = (
        [(line["step"], line["gaussians"]) for line in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("alone", "pair")
    )
    assert got == want  # written by only one process
    assert done.stdout.count("psnr:") == 1


def test_batch_must_be_divisible():
    with pytest.raises(ConfigError, match="batch_size: got 3 for 2 processes, want a multiple of 2"):
        Group(rank=0, size=2).share(3)
    assert list(Group(rank=1, size=2).share(6)) == [3, 4, 5]
    with pytest.raises(ConfigError, match="clouds: got 1 for 4 processes, want a multiple of 4"):
        Group(size=4).share(1, "clouds")


SCRIPT = """
import sys, torch
from torch import nn
from vision3d.training.group import launched_group
from vision3d.training.loop import Loop
from vision3d.training.network import NetworkTrainer

with launched_group() as group:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1)).double()
    share = group.share(8)

    def loss(step):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step)).double()[share.start : share.stop]
        return (network(x)[:, 0] - x.sum(-1)).square().mean(), {}

    optimizer = torch.optim.Adam(network.parameters())
    trainer = NetworkTrainer(network, optimizer, loss, lambda progress: 1e-2, group=group)
    Loop("train", source="a line", steps=30, group=group).run(trainer)
    torch.save(network.state_dict(), f"{sys.argv[1]}_{group.size}_{group.rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_train_a_network_like_one(tmp_path):
    """Half of each batch per process: averaged gradients equal those of the whole batch."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    for start in (launcher, [sys.executable]):
        subprocess.run([*start, script, tmp_path / "net"], check=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    alone, *pair = (torch.load(tmp_path / f"net_{name}.pt") for name in ("1_0", "2_0", "2_1"))
    for network in pair:
        for name, value in alone.items():
            torch.testing.assert_close(network[name], value, atol=1e-12, rtol=0)


@pytest.mark.slow
def test_two_processes_train_a_classifier(tmp_path):
    pytest.importorskip("kornia")
    digits = write_idx(tmp_path / "digits", drawn_digits(84))
    options = ["--model.method", "canonical", "--model.channels", 2, "--epochs", 2, "--batch-size", 16, "--log-every", 1]
    done = torchrun(["reproduce", "affnist", digits, *options, "--test-digits", 20, "--copies", 1, "--out", tmp_path / "pair"])
    assert done.returncode == 0, done.stderr
    assert len(read_metrics(tmp_path / "pair" / "metrics.jsonl")) == 8 and done.stdout.count("upright digits:") == 1


QUICK = {"steps": 12, "log_every": 1, "checkpoint_every": 5, "representations": ("6d",)}


def rotations(part, folder):
    """A short configuration, its function, and the inputs as options of the verb and as arguments."""
    if part == "sanity":
        return SanityConfig(**QUICK, batch_size=8, width=16, test_rotations=50), reproduce_rotation_sanity, [], []
    if part == "pointcloud":
        clouds = write_clouds(folder / "clouds.npz")
        config = PointCloudConfig(**QUICK, clouds=2, rotations=3, points=16, test_rotations=2)
        return config, reproduce_rotation_pointcloud, [clouds], [clouds]
    train, test = write_clip(folder / "a.bvh"), write_clip(folder / "b.bvh", seed=1)
    config = IkConfig(**QUICK, seeds=(0,), batch_size=8, width=16)
    return config, reproduce_rotation_ik, [train, "--test", test], [[train], [test]]


def results(folder):
    return json.loads((folder / "summary.json").read_text())["results"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["sanity", "pointcloud", "ik"])
def test_two_processes_train_rotations_like_one(tmp_path, part):
    """Half of each batch a process: the same losses and errors for the same seed. Finished trainings are not repeated."""
    config, reproduce, options, inputs = rotations(part, tmp_path)
    (tmp_path / "pair.yaml").write_text(dump_yaml(config))
    alone = reproduce(config, *inputs, run_folder=tmp_path / "alone", progress=silent)
    start = ["reproduce", "rotation", part, *options, "--out", tmp_path / "pair", "--config", tmp_path / "pair.yaml"]
    done = torchrun(start)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("differences from the publication") == 1
    losses = [
        [(line["step"], line["loss"]) for line in read_metrics(tmp_path / name / "trainings" / "6d_seed0" / "metrics.jsonl")]
        for name in ("alone", "pair")
    ]
    assert len(losses[1]) == 12
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), atol=0, rtol=1e-5)
    summary = results(tmp_path / "pair")
    assert summary["mean_error_6d"] == pytest.approx(alone.summary["mean_error_6d"], rel=1e-5)
    if part == "sanity":
        (tmp_path / "pair.yaml").write_text(dump_yaml(replace(config, representations=("6d", "quat"))))
        done = torchrun([*start, "--resume"])
        assert done.returncode == 0, done.stderr
        again = results(tmp_path / "pair")
        assert again["mean_error_6d"] == summary["mean_error_6d"] and again["mean_error_quat"] > 0


@pytest.mark.slow
def test_clouds_must_be_divisible(tmp_path):
    config, _, options, _ = rotations("pointcloud", tmp_path)
    (tmp_path / "pair.yaml").write_text(dump_yaml(replace(config, clouds=3)))
    start = ["reproduce", "rotation", "pointcloud", *options, "--out", tmp_path / "pair", "--config", tmp_path / "pair.yaml"]
    done = torchrun(start)
    assert done.returncode != 0 and "clouds: got 3 for 2 processes, want a multiple of 2" in done.stderr
    assert not (tmp_path / "pair").exists()
