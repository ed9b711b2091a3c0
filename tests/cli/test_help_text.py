"""The rules of `--help` for every command, and the parts of its writer."""

import dataclasses
import re
import subprocess
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tyro.conf import Positional

from vision3d.cli import animate, detect, edit, hand, reproduce_rotation
from vision3d.cli.animate_eval import EvalClipsOptions
from vision3d.cli.animate_fit import AnimateFitOptions
from vision3d.cli.animate_rig import RigOptions
from vision3d.cli.animate_static import StaticOptions
from vision3d.cli.convert import ConvertOptions
from vision3d.cli.demo import DemoOptions
from vision3d.cli.detect_check import DetectCheckOptions
from vision3d.cli.detect_eval import DetectEvalOptions
from vision3d.cli.detect_export import DetectExportOptions
from vision3d.cli.detect_run import DetectOptions
from vision3d.cli.detect_synth import SynthOptions
from vision3d.cli.detect_train import TrainOptions
from vision3d.cli.doctor import DoctorOptions
from vision3d.cli.edit_eval import EditEvalOptions
from vision3d.cli.edit_run import EditOptions
from vision3d.cli.edit_train import EditTrainOptions
from vision3d.cli.edit_train_diffusion import EditTrainDiffusionOptions
from vision3d.cli.edit_train_planes import EditTrainPlanesOptions
from vision3d.cli.edit_train_vae import EditTrainVaeOptions
from vision3d.cli.eval import EvalOptions
from vision3d.cli.fit import FitOptions
from vision3d.cli.hand_eval import HandEvalOptions
from vision3d.cli.hand_export import HandExportOptions
from vision3d.cli.hand_run import HandOptions
from vision3d.cli.hand_synth import HandSynthOptions
from vision3d.cli.hand_train import HandTrainOptions
from vision3d.cli.hand_train_finder import HandTrainFinderOptions
from vision3d.cli.help_text import MAIN_GROUP, RUN_GROUP, help_groups, number_text
from vision3d.cli.info import InfoOptions
from vision3d.cli.mesh import MeshOptions
from vision3d.cli.options import RunOptions, Settings, option_names, parse
from vision3d.cli.render import RenderVerbOptions
from vision3d.cli.reproduce_affnist import AffnistOptions
from vision3d.cli.reproduce_rotation import IkOptions, PointCloudOptions, SanityOptions
from vision3d.cli.simulate import SimulateOptions
from vision3d.cli.verbs import VERBS
from vision3d.cli.view import ViewOptions
from vision3d.core.option_marks import HelpGroups, Repeated

OPTIONS = {
    "fit": FitOptions,
    "eval": EvalOptions,
    "doctor": DoctorOptions,
    "convert": ConvertOptions,
    "demo": DemoOptions,
    "info": InfoOptions,
    "render": RenderVerbOptions,
    "view": ViewOptions,
    "simulate": SimulateOptions,
    "mesh": MeshOptions,
    "detect run": DetectOptions,
    "detect eval": DetectEvalOptions,
    "detect train": TrainOptions,
    "detect check": DetectCheckOptions,
    "detect export": DetectExportOptions,
    "hand run": HandOptions,
    "hand eval": HandEvalOptions,
    "hand train": HandTrainOptions,
    "hand train-finder": HandTrainFinderOptions,
    "hand synth": HandSynthOptions,
    "hand export": HandExportOptions,
    "edit run": EditOptions,
    "edit eval": EditEvalOptions,
    "edit train": EditTrainOptions,
    "edit train-planes": EditTrainPlanesOptions,
    "edit train-vae": EditTrainVaeOptions,
    "edit train-diffusion": EditTrainDiffusionOptions,
    "animate fit": AnimateFitOptions,
    "animate static": StaticOptions,
    "animate rig": RigOptions,
    "animate eval": EvalClipsOptions,
    "detect synth": SynthOptions,
    "reproduce affnist": AffnistOptions,
    "reproduce rotation sanity": SanityOptions,
    "reproduce rotation pointcloud": PointCloudOptions,
    "reproduce rotation ik": IkOptions,
}
MANY = 20
"""Minimum number of options of a command with a group of main options."""


def blocks(text: str) -> dict[str, list[str]]:
    """The sections of a help text: heading -> its rows, one per line."""
    found: dict[str, list[str]] = {}
    for block in text.strip().split("\n\n")[2:]:
        heading, *lines = block.splitlines()
        rows: list[str] = []
        for line in lines:
            if re.match(r"  \S", line):
                rows.append(line.strip())
            else:
                rows[-1] += " " + line.strip()
        found[heading.removesuffix(":")] = rows
    return found


def test_no_command_is_missing():
    menus = {
        "animate": set(animate.TASKS),
        "detect": set(detect.TASKS),
        "edit": set(edit.TASKS),
        "hand": set(hand.TASKS),
        "reproduce": {"affnist", "rotation"},
    }
    assert {name.split()[0] for name in OPTIONS} == set(VERBS)
    for menu, names in menus.items():
        assert {name.split()[1] for name in OPTIONS if name.startswith(menu)} == names
    assert {name.split()[2] for name in OPTIONS if "rotation" in name} == set(reproduce_rotation.PARTS)


@pytest.mark.parametrize("verb", OPTIONS)
def test_rules_of_every_help(verb, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "88")
    code, text, err = cli(*verb.split(), "--help")
    assert (code, err) == (0, "")
    assert text.startswith(f"usage: vision3d {verb} ")
    assert max(map(len, text.splitlines())) <= 88
    whole = " ".join(text.split())
    for wrong in ("[default", "(default: None", "(default: False", "(default: True", "(default: )", "None}", "{None", "|None"):
        assert wrong not in whole
    assert not re.search(r"\d\.\d{7,}", whole)
    parts, groups = blocks(text), help_groups(OPTIONS[verb])
    for heading, rows in parts.items():
        for row in rows:
            assert row.count("(default: ") <= 1, row
            assert re.search(r"[.!?):]$", row), f"{heading}: {row} has no sentence"
    shown = {name for rows in parts.values() for row in rows for name in re.findall(r"(?<!\S)--[a-zA-Z0-9.-]+(?=[ ,])", row)}
    assert set(option_names(OPTIONS[verb])) - {"--no-open"} <= shown | {f"--no-{name[2:]}" for name in shown}
    *_, last = parts
    assert last == RUN_GROUP and parts[RUN_GROUP][-1].startswith("-h, --help")
    options = [row for heading, rows in parts.items() for row in rows if heading not in ("arguments", RUN_GROUP)]
    if len(options) > MANY:
        assert MAIN_GROUP in parts
        assert max(len(rows) for heading, rows in parts.items() if "--" not in heading) <= 15
    assert len(parts.get(MAIN_GROUP, ())) <= 5
    headings = list(parts)
    if MAIN_GROUP in parts:
        assert headings.index(MAIN_GROUP) == ("arguments" in parts)
    named = [name for names in groups.values() for name in names]
    assert len(named) == len(set(named))
    settings = typing.get_type_hints(OPTIONS[verb]).get("settings")
    fields = {each.name for owner in (OPTIONS[verb], settings) if owner for each in dataclasses.fields(owner)}
    assert set(named) <= fields, "HELP_GROUPS names a missing option"


@pytest.mark.slow
@pytest.mark.parametrize("verb", OPTIONS)
def test_help_imports_neither_torch_nor_numpy(verb):
    code = (
        "import sys\nfrom vision3d.cli.app import execute\n"
        f"assert execute([*{verb.split()!r}, '--help']) == 0 and not {{'torch', 'numpy'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (1 / 30, "1/30"), (2 / 3, "2/3"), (0.0016, "0.0016"), (5e5, "500000"), (1e-4, "0.0001"), (1e-9, "1e-09"),
     (0.123456789012, "0.1235"), (-0.5, "-0.5"), (0.0, "0"), (1e20, "1e+20"), (float("inf"), "inf"), (float("nan"), "nan")],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert number_text(value) == text


@dataclass(frozen=True)
class Optim:
    """Optimizer."""

    lr: float = 1 / 30
    """Learning rate that
    spans lines."""


@dataclass(frozen=True)
class Config:
    HELP_GROUPS: typing.ClassVar[HelpGroups] = {MAIN_GROUP: ("limit", "is_fast"), "files": ("paths",)}

    is_fast: bool = True
    """Be fast."""
    limit: int | None = None
    """Limit [default: 3 in [0, 4]], and more"""
    paths: Repeated[tuple[str, ...]] = ()
    """Paths."""
    optim: Optim = field(default_factory=Optim)


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Do a
    thing."""

    data: Positional[Path]
    """Input."""
    needed: Path
    """Needed."""
    settings: Settings[Config] = field(default_factory=Config)


def test_a_help_from_a_dataclass(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        parse(Options, ["--help"], "try")
    text = capsys.readouterr().out
    assert text.startswith("usage: vision3d try DATA [OPTIONS]\n\nDo a thing.\n\narguments:\n  DATA  Input.\n\nmain options:\n")
    assert list(blocks(text)) == ["arguments", "main options", "files", "other options", "--optim.*  Optimizer", "run"]
    parts = blocks(text)
    assert re.sub(" +", " ", parts["main options"][0]) == "--limit INT Limit, and more. (default: 3 in [0, 4])"
    assert re.sub(" +", " ", parts["main options"][1]) == "--is-fast, --no-is-fast Be fast. (default: on)"
    assert re.sub(" +", " ", parts["files"][0]) == "--paths STR Paths. May be given several times."
    assert re.sub(" +", " ", parts["other options"][0]) == "--needed PATH Needed. (required)"
    expected = "--optim.lr FLOAT Learning rate that spans lines. (default: 1/30)"
    assert re.sub(" +", " ", parts["--optim.*  Optimizer"][0]) == expected
    file = tmp_path / "c.yaml"
    file.write_text("limit: 7\nis_fast: false")
    with pytest.raises(SystemExit):
        parse(Options, ["--config", str(file), "--help"], "try")
    text = " ".join(capsys.readouterr().out.split())
    assert "Limit, and more. (default: 7)" in text and "Be fast. --" not in text and "(default: on)" not in text
