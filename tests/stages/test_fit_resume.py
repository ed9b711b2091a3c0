import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from tests.support.fits import FEW
from tests.support.photos import ring, write_photos
from vision3d.core.checkpoints import CheckpointFolder
from vision3d.core.config import load_yaml
from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.core.progress import silent
from vision3d.core.runs import Interrupted, RunFolder, read_metrics
from vision3d.stages.fit import FitConfig, fit

CONFIGS = {
    "mcmc": FEW,
    "adc": replace(FEW, strategy="adc", batch_size=2),
    "2dgs": replace(FEW, mode="2dgs"),
    "corrected": replace(FEW, pose_opt=True, exposure_opt=True, background="random"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


def stop_after(step):
    """A progress callback that requests a stop like Ctrl-C."""

    def report(task, done, total, values):
        if task == "fit" and done == step:
            os.kill(os.getpid(), signal.SIGINT)

    return report


def metrics(folder):
    return [{key: value for key, value in line.items() if key != "wall_s"} for line in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("name", list(CONFIGS))
def test_resumed_run_is_bitwise_equal_to_an_uninterrupted_one(photos, tmp_path, name):
    config = CONFIGS[name]
    whole = fit(config, photos, run_folder=tmp_path / "whole", progress=silent)
    with pytest.raises(Interrupted, match="stopped after step 17"):
        fit(config, photos, run_folder=tmp_path / "parts", progress=stop_after(17))
    assert (tmp_path / "parts" / "checkpoints" / "step_000017.pt").is_file()
    folder = RunFolder.create(tmp_path / "parts", config, resume=True)
    resumed = fit(config, photos, run_folder=folder, progress=silent)
    for field in ("means", "quats", "log_scales", "opacity_logits", "sh"):
        assert torch.equal(getattr(resumed.scene, field), getattr(whole.scene, field)), field
    assert torch.equal(resumed.cameras.viewmats, whole.cameras.viewmats)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert resumed.evaluation == whole.evaluation
    timed = ("training_s",)
    assert [resumed.summary[k] for k in resumed.summary if k not in timed] == [
        whole.summary[k] for k in whole.summary if k not in timed
    ]


def test_killed_run_resumes_from_its_last_checkpoint(photos, tmp_path):
    whole = fit(FEW, photos, run_folder=tmp_path / "whole", progress=silent)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    checkpoints = sorted((tmp_path / "killed" / "checkpoints").glob("step_*"))
    assert [path.stem for path in checkpoints] == ["step_000030", "step_000036"]
    checkpoints[-1].unlink()
    resumed = fit(FEW, photos, run_folder=RunFolder.create(tmp_path / "killed", FEW, resume=True), progress=silent)
    assert torch.equal(resumed.scene.means, whole.scene.means)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def test_checkpoint_of_another_config_is_rejected(photos, tmp_path, cli):
    fit(replace(FEW, steps=3), photos, run_folder=tmp_path / "run", progress=silent)
    code, _, err = cli("fit", photos, "--out", tmp_path / "run", "--resume", "--steps", "3", "--seed", "5")
    assert code == 2
    assert "cannot resume" in err and "seed: 0 there, 5 here" in err and "mcmc" not in err


def test_other_photos_are_rejected(photos, tmp_path):
    config = replace(FEW, steps=3)
    fit(config, photos, run_folder=tmp_path / "run", progress=silent)
    others = write_photos(tmp_path / "others", cameras=ring(9))
    folder = RunFolder.create(tmp_path / "run", config, resume=True)
    with pytest.raises(ConfigError, match=r"cannot resume .*, which is a run on \d+ photos \(.*\), with \d+ photos"):
        fit(config, others, run_folder=folder, progress=silent)


@pytest.mark.parametrize("state", [{}, {"step": 3}])
def test_checkpoints_of_other_runs_are_rejected(photos, tmp_path, state):
    config = replace(FEW, steps=3)
    folder = RunFolder.create(tmp_path / "run", config)
    folder.save_checkpoint(3, state)
    with pytest.raises(FileFormatError, match="checkpoints: the checkpoint of step 3 belongs to a different kind of run"):
        fit(config, photos, run_folder=folder, progress=silent)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_exits_with_130_and_the_run_can_be_resumed(photos, tmp_path, number):
    out = tmp_path / "run"
    options = ["--steps", "100000", "--max-gaussians", "60", "--log-every", "1", "--sh-degree", "0", "--quiet"]
    arguments = ["fit", str(photos), "--out", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "vision3d", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    try:
        deadline = time.monotonic() + 60
        while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"stopped after step" in err and b"resume with --resume" in err and b"Traceback" not in err
    assert json.loads((out / "summary.json").read_text())["status"] == "interrupted"
    step = CheckpointFolder(out / "checkpoints").latest().step
    config = load_yaml(FitConfig, out / "config.yaml")
    folder = RunFolder.create(out, config, resume=True)
    with pytest.raises(Interrupted, match=f"stopped after step {step + 3}$"):
        fit(config, photos, run_folder=folder, progress=stop_after(step + 3))
