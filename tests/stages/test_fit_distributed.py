import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.support.digits import drawn_digits, write_idx
from tests.support.photos import write_photos
from vision3d import GaussianScene
from vision3d.core.config import dump_yaml
from vision3d.core.errors import ConfigError
from vision3d.core.progress import silent
from vision3d.core.runs import read_metrics
from vision3d.stages.fit import FitConfig, fit
from vision3d.stages.fit.config import AdcConfig, McmcConfig
from vision3d.training.group import Group

PAIR = FitConfig(
    steps=24,
    max_gaussians=70,
    sh_degree=1,
    batch_size=2,
    mcmc=McmcConfig(refine_every=5),
    adc=AdcConfig(refine_every=5, grow_grad2d=2e-5),
    pose_opt=True,
    log_every=6,
)


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
