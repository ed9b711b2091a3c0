import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace

import pytest
import torch

from vision3d.core import checkpoints, runs
from vision3d.core.errors import ConfigError, FileFormatError, OutputExistsError
from vision3d.core.runs import Interrupted, RunFolder, finish_step_on_interrupt, read_metrics


@dataclass(frozen=True)
class Config:
    steps: int = 6
    lr: float = 0.1
    seed: int = 3


CONFIG = Config()


def train(folder: RunFolder, steps: int, stop_after: int | None = None) -> list[float]:
    """Noisy gradient descent with a checkpoint every second step; `stop_after` aborts like a kill."""
    checkpoints.seed_everything(3)
    weight, first = torch.zeros(4), 0
    checkpoint = folder.restore()
    if checkpoint is not None:
        weight, first = checkpoint.state["weight"], checkpoint.step
    for step in range(first + 1, steps + 1):
        weight = weight + 0.1 * torch.randn(4)
        folder.log(step, loss=weight.square().sum())
        if step % 2 == 0:
            folder.save_checkpoint(step, {"weight": weight})
        if step == stop_after:
            break
    return weight.tolist()


def metrics(folder: RunFolder) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "wall_s"} for line in folder.metrics()]


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, stop_after):
    whole, parts = RunFolder.create(tmp_path / "whole", CONFIG), RunFolder.create(tmp_path / "parts", CONFIG)
    want = train(whole, 6)
    train(parts, 6, stop_after)
    resumed = RunFolder.create(tmp_path / "parts", CONFIG, resume=True)
    assert train(resumed, 6) == want
    assert metrics(resumed) == metrics(whole)
    assert [line["step"] for line in metrics(whole)] == [1, 2, 3, 4, 5, 6]


def test_resume_without_a_folder_starts_a_new_run(tmp_path):
    folder = RunFolder.create(tmp_path / "new", CONFIG, resume=True)
    assert folder.restore() is None


def test_wall_time_continues(tmp_path):
    folder = RunFolder.create(tmp_path / "a", CONFIG)
    folder.wall_s = 100.0
    folder.save_checkpoint(1, {})
    resumed = RunFolder.create(tmp_path / "a", CONFIG, resume=True)
    resumed.restore()
    assert 100 < resumed.elapsed() < 110


def test_config_is_written_and_reads_back(tmp_path):
    from vision3d.core.config import load_yaml

    RunFolder.create(tmp_path / "a", replace(CONFIG, lr=1e-5))
    assert load_yaml(Config, tmp_path / "a" / "config.yaml") == replace(CONFIG, lr=1e-5)


def test_folder_that_is_not_empty_is_rejected(tmp_path):
    RunFolder.create(tmp_path / "a", CONFIG)
    with pytest.raises(OutputExistsError, match="a: exists and is not empty; give --overwrite, --resume") as caught:
        RunFolder.create(tmp_path / "a", CONFIG)
    assert caught.value.exit_code == 5


def test_overwrite_empties_a_run_and_nothing_else(tmp_path):
    old = RunFolder.create(tmp_path / "a", CONFIG)
    train(old, 2)
    new = RunFolder.create(tmp_path / "a", replace(CONFIG, lr=1.0), overwrite=True)
    assert new.metrics() == [] and new.checkpoints.paths() == []
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_text("precious")
    for options in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputExistsError, match="it is not a vision3d run folder"):
            RunFolder.create(tmp_path / "holiday", CONFIG, **options)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputExistsError):
        RunFolder.create(tmp_path / "file", CONFIG, overwrite=True)
    assert (tmp_path / "holiday" / "photo.jpg").read_text() == "precious"


def test_other_configuration_is_rejected_by_key(tmp_path):
    train(RunFolder.create(tmp_path / "a", CONFIG), 4)
    with pytest.raises(ConfigError) as caught:
        RunFolder.create(tmp_path / "a", replace(CONFIG, lr=0.2, seed=4), resume=True)
    assert str(caught.value) == (
        f"lr, seed: cannot resume {tmp_path}/a/config.yaml, which has a different configuration "
        "(lr: 0.1 there, 0.2 here; seed: 3 there, 4 here)"
    )
    longer = RunFolder.create(tmp_path / "a", replace(CONFIG, steps=8), resume=True, ignore={"steps"})
    assert longer.restore().step == 4


def test_checkpoint_of_another_configuration_is_rejected(tmp_path):
    RunFolder.create(tmp_path / "a", CONFIG).save_checkpoint(2, {})
    other = RunFolder.create(tmp_path / "b", replace(CONFIG, lr=0.2))
    other.checkpoints.path.mkdir()
    (tmp_path / "a/checkpoints/step_000002.pt").rename(other.checkpoints.path / "step_000002.pt")
    with pytest.raises(ConfigError, match=r"^lr: cannot resume"):
        other.restore()


def test_metrics_survive_a_kill_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]
    path.write_text('{"step": 1, "lo\n{"step": 2}\n')
    with pytest.raises(FileFormatError, match=r"metrics.jsonl at line 1: is not a JSON object"):
        read_metrics(path)
    path.write_text('{"step": 1}\n[2]\n')
    with pytest.raises(FileFormatError, match=r"metrics.jsonl at line 2: is not a JSON object with a step"):
        read_metrics(path)


@pytest.mark.parametrize("line", [b"\xff\xfe", 10**5 * b"[", b'{"step": ' + 5000 * b"9" + b"}"], ids=["latin", "deep", "large"])
def test_metrics_of_foreign_bytes(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    with pytest.raises(FileFormatError, match="line 2: is not a JSON object"):
        read_metrics(path)
    path.write_bytes(b'{"step": 1, "note": "\xe2\x80\xa8"}\n' + line)  # U+2028 ends no line of a file
    assert read_metrics(path) == [{"step": 1, "note": "\u2028"}]


def test_values_that_json_does_not_support(tmp_path):
    folder = RunFolder.create(tmp_path / "a", CONFIG)
    folder.log(1, loss=float("nan"), psnr=torch.tensor(float("inf")), counts=torch.arange(2), where=tmp_path)
    line = json.loads((tmp_path / "a" / "metrics.jsonl").read_text())
    assert line["loss"] is None and line["psnr"] is None and line["counts"] == [0, 1] and line["where"] == str(tmp_path)


def test_summary(tmp_path):
    folder = RunFolder.create(tmp_path / "a", CONFIG)
    folder.write_summary({"psnr": 30.5, "scene": tmp_path / "scene.ply"})
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["results"] == {"psnr": 30.5, "scene": str(tmp_path / "scene.ply")}
    assert summary["seed"] == 3 and summary["status"] == "done" and summary["device"] == "cpu"
    assert summary["torch"] == torch.__version__ and summary["threads"] == torch.get_num_threads()
    assert summary["processor"] and summary["command"] == sys.argv
    assert 50e6 < summary["peak_memory_bytes"] < 100e9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_lets_the_step_finish(number, caplog):
    before = signal.getsignal(number)
    with finish_step_on_interrupt() as stop:
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
    assert "stopping after this step" in caplog.text


def test_signals_are_ignored_outside_the_main_thread():
    import threading

    seen = []

    def work():
        with finish_step_on_interrupt() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_interrupted_is_a_keyboard_interrupt():
    assert issubclass(Interrupted, KeyboardInterrupt)


def test_kill_leaves_complete_lines(tmp_path):
    code = """
        import os, signal, sys
        from dataclasses import dataclass
        from vision3d.core.runs import RunFolder
        @dataclass(frozen=True)
        class Config:
            steps: int = 1
        folder = RunFolder.create(sys.argv[1], Config())
        for step in range(1, 6):
            folder.log(step, loss=1.0)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path / "a"], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [line["step"] for line in read_metrics(tmp_path / "a" / "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_git_hash_is_of_this_checkout():
    from pathlib import Path

    root = Path(runs.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert runs.git_hash().removesuffix("+") == head.stdout.strip()
