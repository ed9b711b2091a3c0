"""The code blocks of README.md and docs/ run, page by page and in order; their commands exist."""

import shlex
import shutil

import pytest

import vision3d
from tests.cli.test_help_text import OPTIONS
from tests.docs.pages import PAGES, ROOT, blocks, prepare
from vision3d.cli.options import ConfigOptions, parse
from vision3d.core.errors import MissingDependencyError

_PLANES = "runs/planes/edit_planes.safetensors"
_EDIT = "edit train", "edit train-planes", "edit train-vae", "edit train-diffusion"
SMALLER = {
    "docs/animate.md": {"steps=3000": "steps=4, nodes=8", "nodes=64": "nodes=8, steps=10"},
    "docs/edit.md": {"EditConfig()": f"EditConfig(planes={_PLANES!r})"},
    "docs/fit.md": {"minutes=5": "steps=4, max_gaussians=100, init_count=60"},
    "docs/mesh.md": {"resolution=256, faces=20_000": "resolution=24, faces=200, texture_size=64, refine=2"},
    "docs/render.md": {"num=90, size=(640, 480)": "num=2, size=(32, 24)"},
    "docs/reproduce_rotation.md": {'representations=("6d", "quat")': 'representations=("6d",), steps=4'},
    "docs/simulate.md": {"frames=50": "frames=2"},
    "docs/skinning.md": {"num_joints=24": "num_joints=4", "max_morphs=0)": "max_morphs=0, num_joints=4)"},
}
"""Reduced values in the Python blocks of a page."""
NOT_RUN = 2
"""Number of blocks excluded by a comment; as few as possible."""
FEWER = {
    "fit": {"--steps": "4", "--init-count": "60", "--max-gaussians": "60"},
    "eval": {},
    "view": {"--size": "32x24"},
    "render": {"--frames": "2", "--size": "32x24"},
    "simulate": {"--frames": "2", "--cells": "6", "--max-particles": "500"},
    "mesh": {
        "--resolution": "16",
        "--faces": "200",
        "--view-size": "32",
        "--views": "6",
        "--refine": "1",
        "--texture-size": "64",
    },
    "detect run": {},
    "detect eval": {"--frames": "1"},
    "detect check": {},
    "detect export": {"--boxes": "20"},
    "detect synth": {"--frames": "1"},
    "detect train": {"--steps": "1", "--batch-size": "1", "--workers": "0", "--model.method": "pillars"},
    "hand run": {"--weights": "runs/hand/hand.safetensors"},
    "hand eval": {"--images": "2", "--frames.objects": "0"},
    "hand train": {"--batch-size": "2", "--workers": "0", "--evaluate-images": "0"},
    "hand train-finder": {"--batch-size": "2", "--workers": "0", "--evaluate-images": "0"},
    "hand synth": {"--images": "2"},
    "hand export": {},
    "edit run": {
        "--planes": _PLANES,
        "--views": "1",
        "--view-size": "32",
        "--texture-size": "64",
    },
    "edit reconstruct": {
        "--planes": _PLANES,
        "--steps": "2",
        "--grid": "24",
        "--view-size": "32",
        "--texture-size": "64",
    },
    "edit synth": {"--pairs": "1", "--planes": _PLANES},
    "edit eval": {"--objects": "1", "--each": "1"},
    "edit train": {
        "--steps": "1",
        "--batch-size": "1",
        "--objects": "4",
        "--workers": "0",
        "--evaluate-objects": "0",
    },
    "edit train-vae": {
        "--planes": _PLANES,
        "--steps": "1",
        "--batch-size": "1",
        "--objects": "4",
        "--pool": "2",
        "--workers": "0",
        "--evaluate-objects": "0",
    },
    "edit train-diffusion": {
        "--planes": _PLANES,
        "--steps": "1",
        "--batch-size": "1",
        "--objects": "4",
        "--pool": "2",
        "--phrases": "8",
        "--workers": "0",
        "--evaluate-objects": "0",
    },
    "edit train-planes": {
        "--steps": "1",
        "--batch-size": "1",
        "--objects": "4",
        "--workers": "0",
        "--evaluate-objects": "0",
    },
    "animate static": {"--steps": "2", "--per-face": "1"},
    "animate fit": {"--steps": "2", "--nodes": "8", "--resolution": "16"},
    "animate rig": {"--frames": "2", "--video-size": "32 24"},
    "animate eval": {"--size": "32"},
    "reproduce rotation sanity": {
        "--steps": "2",
        "--batch-size": "8",
        "--width": "8",
        "--test-rotations": "20",
        "--representations": "6d quat",
    },
    "reproduce rotation pointcloud": {"--steps": "2", "--points": "16", "--representations": "6d"},
    "reproduce rotation ik": {"--steps": "2", "--width": "8", "--representations": "6d"},
}
"""Options that make the commands run for about a second."""
PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
COMMANDS = [
    pytest.param(command, id=f"{page}:{block.line + i}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "sh" and block.reason is None
    for i, command in enumerate(block.commands())
]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("pages"))


@pytest.fixture
def folder(template, tmp_path, monkeypatch):
    """The working folder: a copy of the small files that the pages use."""
    shutil.copytree(template, tmp_path / "work")
    (tmp_path / "work" / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(vision3d, "view", lambda *things, **options: None)  # it would open a window
    return tmp_path / "work"


@pytest.mark.parametrize("page", PYTHON)
def test_python_blocks_run_in_order(page, folder):
    names: dict[str, object] = {"__name__": "__main__"}
    code = [block for block in blocks(page) if block.language == "python" and block.reason is None]
    for old in SMALLER.get(page, {}):
        assert any(old in block.text for block in code), f"{old} is not in {page}"
    for block in code:
        text = block.text
        for old, new in SMALLER.get(page, {}).items():
            text = text.replace(old, new)
        try:
            exec(compile("\n" * (block.line - 1) + text, str(ROOT / page), "exec"), names)
        except MissingDependencyError as error:
            pytest.skip(f"{page}: {str(error).partition(' (')[0]}")


def test_few_blocks_are_excluded_and_all_have_a_language():
    every = [block for page in PAGES for block in blocks(page)]
    assert {block.language for block in every} <= {"", "python", "sh", "yaml"}
    excluded = [block for block in every if block.reason is not None]
    assert len(excluded) == NOT_RUN and all(len(block.reason or "") > 10 for block in excluded)
    marks = sum((ROOT / page).read_text("utf-8").count("<!-- not run") for page in PAGES)
    assert marks == NOT_RUN, "a comment `not run` must be right above its block"


def verb_of(command: list[str]) -> str:
    """The longest command that a command line starts with."""
    for count in (3, 2, 1):
        if (verb := " ".join(command[:count])) in OPTIONS:
            return verb
    raise AssertionError(f"{command}: unknown verb")


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_every_command_exist(command, folder, cli):
    if command == ["--help"]:
        return
    verb = verb_of(command)
    arguments = command[len(verb.split()) :]
    if "--resume" in arguments:
        assert {"--resume", "--out"} <= set(arguments)
    elif issubclass(OPTIONS[verb], ConfigOptions):
        code, _, err = cli(*command, "--print-config")
        assert code == 0, err
    else:
        parse(OPTIONS[verb], arguments, verb)


def smaller(verb: str, command: list[str]) -> list[str]:
    """The command with fewer steps, frames or pixels."""
    for option, value in FEWER[verb].items():
        if option not in command and option == "--frames" and verb == "render" and not _is_path(command):
            continue
        if option in command:
            at = command.index(option)
            end = next((i for i in range(at + 1, len(command)) if command[i].startswith("--")), len(command))
            if command[at + 1 : end] == ["0"]:
                continue
            command = command[:at] + command[end:]
        command = [*command, option, *value.split()]
    return command


def _is_path(command: list[str]) -> bool:
    """Whether `vision3d render` makes images along a path."""
    return "--path" in command or not ("--cameras" in command or any(word.endswith(".png") for word in command))


def is_run(command: list[str]) -> bool:
    """Whether the small files are sufficient: no structure from motion, no network, no run to resume."""
    if command == ["--help"] or {"--sfm", "--guidance", "--resume", "--lpips-weights"} & set(command):
        return False
    if verb_of(command) == "view" and "--offscreen" not in command:  # it would open a window
        return False
    return verb_of(command) in FEWER


CONFIGS = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("block", CONFIGS, ids=lambda block: f"{block.page}:{block.line}")
def test_config_files_run(block, folder, cli):
    command = shlex.split(block.text.partition("\n")[0].removeprefix("# vision3d "))
    (folder / command[command.index("--config") + 1]).write_text(block.text, "utf-8")
    code, _, err = cli(*smaller(verb_of(command), command), "--quiet")
    assert code == 0, err


RUN = [param for param in COMMANDS if is_run(param.values[0])]


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_cheap_commands_run(command, folder, cli):
    if verb_of(command) == "mesh":
        (folder / "runs" / "cup" / "mesh.glb").unlink()
    if "--out" in command and verb_of(command) in ("fit", "animate fit", "animate static", *_EDIT):
        shutil.rmtree(command[command.index("--out") + 1], ignore_errors=True)
    code, _, err = cli(*smaller(verb_of(command), command), "--quiet")
    if code == 4:
        pytest.skip(err.partition(" (")[0].strip())
    assert code == 0, err


def test_most_commands_run():
    assert len(RUN) > 0.6 * len(COMMANDS)
