import json
from dataclasses import dataclass, field

import pytest

from vision3d.cli.app import UsageError
from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.config import load_yaml
from vision3d.core.errors import (
    ConfigError,
    DeviceError,
    InputError,
    MissingFileError,
    NumericalError,
    OutputExistsError,
    Vision3DError,
)
from vision3d.core.runs import Interrupted


@dataclass(frozen=True)
class Config:
    steps: int = 3
    """Steps."""
    seed: int = 0
    """Seed."""


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Count."""

    settings: Settings[Config] = field(default_factory=Config)


def count(options, run_folder, progress):
    for step in range(1, options.settings.steps + 1):
        run_folder.log(step, square=step**2)
        progress("count", step, options.settings.steps, {"square": step**2})
    return {"last": step, "mean": 1.23456, "device": "cpu"}


@pytest.fixture
def run():
    return stage_verb("count", Options, count, stage="counting", resumable={"steps"})


@pytest.fixture(autouse=True)
def _logging(cli):
    """The `cli` fixture restores the log handlers."""


def test_run_folder_and_summary(run, tmp_path, capsys):
    out = tmp_path / "a"
    run(["--out", str(out), "--steps", "2", "--json"])
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[:3] == ["last: 2", "mean: 1.235", "device: cpu"] and lines[4] == f"run folder: {out}"
    values = json.loads(lines[-1])
    assert values["ok"] is True and values["last"] == 2 and values["out"] == str(out)
    assert captured.err.startswith("count: step 2/2, square 4")
    assert load_yaml(Config, out / "config.yaml") == Config(steps=2)
    assert json.loads((out / "summary.json").read_text())["results"]["mean"] == 1.23456
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


def test_config_of_a_run_repeats_it(run, tmp_path):
    run(["--out", str(tmp_path / "a"), "--steps", "2", "--seed", "9", "--quiet"])
    run(["--out", str(tmp_path / "b"), "--config", str(tmp_path / "a" / "config.yaml"), "--quiet"])
    assert (tmp_path / "a" / "config.yaml").read_text() == (tmp_path / "b" / "config.yaml").read_text()


def test_print_config_writes_no_files(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(["--steps", "2", "--print-config"])
    assert capsys.readouterr().out == "steps: 2\nseed: 0\n"
    assert list(tmp_path.iterdir()) == []


def test_default_folder_has_command_and_date(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(["--quiet"])
    assert [path.name[:6] for path in (tmp_path / "runs").iterdir()] == ["count_"]


def test_quiet_prints_nothing(run, tmp_path, capsys):
    run(["--out", str(tmp_path / "a"), "--quiet"])
    assert capsys.readouterr() == ("", "")


def test_second_run_into_the_same_folder(run, tmp_path):
    arguments = ["--out", str(tmp_path / "a"), "--quiet"]
    run(arguments)
    with pytest.raises(OutputExistsError):
        run(arguments)
    run([*arguments, "--overwrite"])
    run([*arguments, "--resume", "--steps", "5"])


def test_resume_needs_a_folder(run):
    with pytest.raises(Exception, match="--resume needs the run folder: give --out"):
        run(["--resume"])


def test_resume_and_overwrite_are_mutually_exclusive(run, tmp_path):
    arguments = ["--out", str(tmp_path / "a"), "--quiet"]
    run(arguments)
    before = (tmp_path / "a" / "metrics.jsonl").read_bytes()
    with pytest.raises(
        UsageError, match="--resume and --overwrite are mutually exclusive: one resumes the run, the other deletes it"
    ):
        run([*arguments, "--resume", "--overwrite"])
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == before


def test_interrupted_run_is_marked(tmp_path):
    def stop(options, run_folder, progress):
        raise Interrupted("stopped after step 1")

    with pytest.raises(Interrupted, match=r"stopped after step 1; resume with --resume --out .*/a"):
        stage_verb("count", Options, stop, stage="counting")(["--out", str(tmp_path / "a"), "--quiet"])
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["status"] == "interrupted"


def failing(error, *, after=None):
    """A command whose stage may use its run folder and then fails."""

    def execute(options, run_folder, progress):
        if after is not None:
            after(run_folder)
        raise error

    return stage_verb("count", Options, execute, stage="counting", resumable={"steps"})


MENDABLE = [
    InputError("no views"),
    MissingFileError("nowhere"),
    ConfigError("seed", "odd"),
    DeviceError("no GPU"),
    PermissionError(13, "no", "photo.png"),
]


@pytest.mark.parametrize("error", MENDABLE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["new/deep/run", "empty"])
def test_wrong_input_leaves_no_folder(run, tmp_path, error, place):
    (tmp_path / "empty").mkdir()
    arguments = ["--out", str(tmp_path / place), "--quiet"]
    with pytest.raises(type(error)):
        failing(error)(arguments)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
    run(arguments)


@pytest.mark.parametrize(
    "error, after",
    [
        (InputError("an image"), lambda folder: folder.save_checkpoint(1, {})),
        (InputError("an image"), lambda folder: folder.log(1, loss=0.5)),
        (InputError("an image"), lambda folder: (folder.path / "notes.txt").write_text("mine")),
        (NumericalError(1, "the loss"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_folder_of_a_failed_run_is_kept_if_not_empty(tmp_path, error, after):
    out = tmp_path / "run"
    with pytest.raises(type(error)):
        failing(error, after=after)(["--out", str(out), "--quiet"])
    status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    assert json.loads((out / "summary.json").read_text())["status"] == status
    assert (out / "config.yaml").is_file()


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_existing_folder_is_kept(run, tmp_path, option):
    arguments = ["--out", str(tmp_path / "run"), "--quiet"]
    run(arguments)
    with pytest.raises(InputError):
        failing(InputError("no views"))([*arguments, option])
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_out_that_cannot_be_a_folder(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    for option in ([], ["--overwrite"], ["--resume"]):
        with pytest.raises(OutputExistsError, match="file: exists; want a folder; use another --out"):
            run(["--out", str(tmp_path / "file"), "--quiet", *option])
    with pytest.raises(Vision3DError, match=r"file/run: the folder could not be created \(Not a directory\)"):
        run(["--out", str(tmp_path / "file" / "run"), "--quiet"])
    assert (tmp_path / "file").read_text() == "mine"
