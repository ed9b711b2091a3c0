"""`--resume --out RUN` needs nothing else; what may change and what may not; Python calls leave the same files."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from tests.support.datasets import write_ring_photographs
from vision3d.cli.app import UsageError
from vision3d.cli.options import Flag, RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core.errors import ConfigError, RunInUseError
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.stage import stage


@dataclass(frozen=True)
class Config:
    steps: int = 3
    """Steps."""
    every: int = 1
    """Steps between two lines."""
    color: str = "red"
    """Color."""
    seed: int = 0
    """Seed."""


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Count."""

    data: Annotated[Path, tyro.conf.Positional]
    """Data."""
    masks: Path | None = None
    """Masks."""
    clips: tuple[Path, ...] = ()
    """Clips."""
    force: Flag = False
    """Force."""
    preset: str | None = None
    """Preset."""
    settings: Settings[Config] = field(default_factory=Config)


SEEN = []


@dataclass
class Result:
    summary: dict


@stage("count", {"inputs": "data", "masks": "masks"}, resumable={"every"}, grows={"steps"})
def count(config, inputs, *, masks=None, stop=None, run_folder=None, progress=None):
    checkpoint = None if run_folder is None else run_folder.restore()
    for step in range(checkpoint.step if checkpoint else 0, config.steps):
        if run_folder is not None:
            run_folder.log(step + 1, square=(step + 1) ** 2, of=config.steps)
            run_folder.save_checkpoint(step + 1, {})
        if step + 1 == stop:
            raise Interrupted(f"stopped after step {step + 1}")
    return Result({"last": config.steps, "data": str(inputs)})


def _count(options, run_folder, progress):
    SEEN.append(options)
    stop = 2 if options.settings.seed == 9 and options.settings.steps == 3 and not options.resume else None
    return count(options.settings, options.data, stop=stop, run_folder=run_folder, progress=progress).summary


def _preset(settings, value):
    return settings if value is None else Config(steps=settings.steps, every=settings.every, color=value, seed=settings.seed)


@pytest.fixture
def run(cli):
    return stage_verb(
        "count", Options, _count, stage="counting", resumable={"every"}, grows={"steps"}, bases={"--preset": _preset}
    )


@pytest.fixture
def stopped(run, tmp_path, monkeypatch):
    """A run with relative paths, stopped after two of three steps."""
    for name in ("photos", "masks", "clip"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    given = ["photos", "--masks", "masks", "--clips", "clip", "--force", "--preset", "blue", "--seed", "9"]
    with pytest.raises(Interrupted, match=r"stopped after step 2; resume with --resume --out a$"):
        run([*given, "--out", "a", "--quiet"])
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["status"] == "interrupted"
    assert not (tmp_path / "a" / ".lock").exists()
    return tmp_path / "a"


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resume_needs_no_options_again(run, stopped, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(["--resume", "--out", str(stopped), "--quiet"])
    options = SEEN[-1]
    assert options.settings == Config(steps=3, color="blue", seed=9)
    assert (options.data, options.masks, options.clips) == (tmp_path / "photos", tmp_path / "masks", (tmp_path / "clip",))
    assert options.force is True
    assert [line["square"] for line in lines(stopped)] == [1, 4, 9]
    assert json.loads((stopped / "summary.json").read_text())["status"] == "done"
    assert (stopped / "report.html").is_file()


def test_steps_may_increase_and_previous_lines_are_kept(run, stopped):
    run(["--resume", f"--out={stopped}", "--steps", "5", "--every", "2", "--quiet"])
    assert [(line["square"], line["of"]) for line in lines(stopped)] == [(1, 3), (4, 3), (9, 5), (16, 5), (25, 5)]
    run(["--resume", f"--out={stopped}", "--steps", "6", "--quiet"])  # also for a finished run
    assert [line["of"] for line in lines(stopped)] == [3, 3, 5, 5, 5, 6]
    assert SEEN[-1].settings.every == 2
    with pytest.raises(ConfigError, match=r"^steps: got 4, but .*config\.yaml has 6; a run can be resumed with a larger value"):
        run(["--resume", f"--out={stopped}", "--steps", "4", "--quiet"])


@pytest.mark.parametrize(
    "given, text",
    [
        (["--color", "green"], r"^color: cannot resume .*a/config\.yaml, .* \(color: blue there, green here\)$"),
        (["--preset", "green"], r"^color: cannot resume"),
        (["--config", "other.yaml"], r"^color, seed: cannot resume"),
        (["clip"], r"^DATA: cannot resume .*a, which is a run on .*/photos, with .*/clip$"),
        (["--masks", "clip"], r"^--masks: cannot resume .*a, which is a run on .*/masks, with .*/clip$"),
        (["--clips", "clip", "masks"], r'^--clips: cannot resume .*a, which is a run on \[".*/clip"\], with \[".*/masks"\]$'),
    ],
)
def test_options_that_must_not_change_are_named(run, stopped, given, text):
    (stopped.parent / "other.yaml").write_text("steps: 3\n")
    before = (stopped / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=text):
        run([*given, "--resume", "--out", str(stopped), "--quiet"])
    assert (stopped / "config.yaml").read_bytes() == before
    assert not (stopped / ".lock").exists()
    run(["--resume", "--out", str(stopped), "--quiet"])


def test_data_that_was_moved(run, stopped, tmp_path):
    """Its new location is accepted; the stage itself compares the content."""
    os.rename(tmp_path / "photos", tmp_path / "new")
    run(["new", "--resume", "--out", str(stopped), "--quiet"])
    assert SEEN[-1].data == Path("new")
    run(["--resume", "--out", str(stopped), "--quiet"])
    assert SEEN[-1].data == tmp_path / "new"


def test_a_run_of_another_command(stopped, cli):
    other = stage_verb("weigh", Options, _count, stage="counting")
    with pytest.raises(ConfigError, match=r"^--resume: .*a is a run of vision3d count, not of weigh$"):
        other(["--resume", "--out", str(stopped), "--quiet"])


def test_a_damaged_file_of_inputs(run, stopped):
    (stopped / "inputs.yaml").write_text("verb: [1]\n")
    with pytest.raises(Exception, match=r"inputs\.yaml: has no verb, inputs and from_python"):
        run(["--resume", "--out", str(stopped), "--quiet"])
    (stopped / "inputs.yaml").write_text("verb: count\ninputs: {data: 5}\nfrom_python: []\n")
    with pytest.raises(ConfigError, match=r"^data: got 5, want a path$"):
        run(["--resume", "--out", str(stopped), "--quiet"])


def test_without_a_folder_the_inputs_are_missing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="Missing from vision3d count: PATH Data"):
        run(["--resume", "--out", "none", "--quiet"])
    assert list(tmp_path.iterdir()) == []


def test_python_writes_the_same_files(run, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    run(["photos", "--out", "cli", "--quiet"])
    count(Config(), "photos", run_folder="python")
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("cli", "python")]
    assert names[0] == names[1] == {"checkpoints", "config.yaml", "inputs.yaml", "metrics.jsonl", "report.html", "summary.json"}
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("cli", "python")]
    assert summaries[0].keys() == summaries[1].keys() and summaries[1]["results"]["last"] == 3
    run(["--resume", "--out", "python", "--steps", "4", "--quiet"])
    assert SEEN[-1].data == tmp_path / "photos"


def test_python_objects_are_named(tmp_path, run):
    count(Config(), [1, 2], run_folder=tmp_path / "a")
    assert "from_python: [data]" in (tmp_path / "a" / "inputs.yaml").read_text()
    with pytest.raises(UsageError, match="Missing from vision3d count: PATH Data"):
        run(["--resume", "--out", str(tmp_path / "a"), "--quiet"])


def test_python_errors_leave_the_same_files(tmp_path):
    def wrong(config, inputs, *, run_folder=None):
        if inputs:
            run_folder.log(1, loss=1.0)
        raise ConfigError("seed", "odd")

    wrong = stage("count", {})(wrong)
    for inputs in (0, 1):
        with pytest.raises(ConfigError):
            wrong(Config(), inputs, run_folder=tmp_path / "new" / str(inputs))
    assert not (tmp_path / "new" / "0").exists()
    assert json.loads((tmp_path / "new" / "1" / "summary.json").read_text())["status"] == "failed"
    assert not (tmp_path / "new" / "1" / ".lock").exists()


def test_the_folder_is_locked_while_a_stage_runs(tmp_path):
    def look(config, *, run_folder=None):
        return Result({"locked": (run_folder.path / ".lock").exists()})

    stage("count", {})(look)(Config(), run_folder=tmp_path / "a")
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["results"] == {"locked": True}
    assert not (tmp_path / "a" / ".lock").exists()


@pytest.mark.slow
def test_fit_from_python_and_from_the_program(cli, tmp_path, monkeypatch):
    """The real stage: the same files, and a longer run resumes from the finished steps."""
    from vision3d.stages.fit import FitConfig, fit

    photos = write_ring_photographs(tmp_path / "photos")
    small = {"steps": 12, "log_every": 1, "max_gaussians": 200, "checkpoint_every": 6, "backend": "reference"}
    options = [part for name, value in small.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("fit", photos.name, "--out", "cli", "--quiet", *options)
    assert code == 0, err
    result = fit(FitConfig(**small), photos.name, run_folder="python")
    names = [{str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*")} for name in ("cli", "python")]
    assert names[0] == names[1] and "report.html" in names[0]
    # Drawings differ only in lines that name the folder.
    first, second = ((tmp_path / name / "config.yaml").read_text() for name in ("cli", "python"))
    assert first == second and result.summary["steps"] == 12
    before = lines(tmp_path / "cli")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    code, _, err = cli("fit", "--resume", "--out", "../cli", "--steps", "20", "--quiet")
    assert code == 0, err
    after = lines(tmp_path / "cli")
    assert after[:12] == before and [line["step"] for line in after] == list(range(1, 21))
    assert re.search(r"^steps: 20$", (tmp_path / "cli" / "config.yaml").read_text(), re.M)


def test_a_second_program_in_a_live_folder(run, stopped, cli):
    holder = RunFolder.create(stopped, Config(color="blue", seed=9), resume=True)
    text = (stopped / ".lock").read_text().replace(f'"pid": {os.getpid()}', f'"pid": {os.getppid()}')
    (stopped / ".lock").write_text(re.sub(r'"started": "[^"]*"', '"started": null', text))
    for option in ("--resume", "--overwrite"):
        with pytest.raises(RunInUseError, match=r"a: in use by process"):
            run(["photos", option, "--out", str(stopped), "--quiet"])
    assert len(lines(stopped)) == 2
    holder.unlock()
