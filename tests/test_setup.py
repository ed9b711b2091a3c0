"""`.ci/setup` names the missing prerequisite and the command that installs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / ".ci" / "setup"
pytestmark = pytest.mark.skipif(not (3, 11) <= sys.version_info[:2] <= (3, 13), reason="other Python versions are rejected")


@pytest.fixture
def machine(tmp_path):
    """A checkout with only the script, and a PATH with only the given programs."""
    (tmp_path / "repo" / ".ci").mkdir(parents=True)
    shutil.copy(SETUP, tmp_path / "repo" / ".ci" / "setup")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "env", "dirname", "uname", "rm", "cat", "ln"):
        (programs / name).symlink_to(shutil.which(name))

    def run(*, python: str | None = "python3", lacks: str = "nothing", compiler: bool = False, **environment: str):
        if python is not None:
            # Fails like a Python without a module when the code it is given mentions that module.
            script = f'#!/bin/sh\ncase "$*" in *{lacks}*) exit 1;; esac\nexec {sys.executable} "$@"\n'
            (programs / python).write_text(script)
            (programs / python).chmod(0o755)
        if compiler:
            (programs / "g++").symlink_to("/bin/true")
        env = {"PATH": str(programs), "HOME": str(tmp_path), **environment}
        command = [shutil.which("bash"), tmp_path / "repo" / ".ci" / "setup"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert not (tmp_path / "repo" / ".venv").exists()
        return done.returncode, done.stderr

    return run


def test_no_python(machine):
    code, err = machine(python=None)
    assert code == 1
    assert err.startswith("error: no Python 3.11 to 3.13 found: apt install python3 python3-dev python3-venv")


def test_python_too_old(machine):
    assert machine(lacks="version_info")[1].startswith("error: no Python 3.11 to 3.13 found")
    assert machine(PYTHON="python2")[1] == "error: PYTHON=python2 is not Python 3.11 to 3.13\n"


@pytest.mark.parametrize(
    ("lacks", "message"),
    [
        ("ensurepip", "error: python3 cannot make virtual environments: apt install python3"),
        ("Python.h", "error: the headers of python3 are missing: apt install python3"),
        ("nothing", "error: no C++ compiler found: apt install g++"),
    ],
)
def test_missing_prerequisite(machine, lacks, message):
    code, err = machine(lacks=lacks)
    assert code == 1 and err.startswith(message) and err.count("\n") == 1


def test_newest_python_is_used_if_the_default_is_unsuitable(machine):
    _, err = machine(python="python3.12", lacks="ensurepip")
    assert err.startswith("error: python3.12 cannot make virtual environments")


def test_folders_of_an_unpacked_source_package_are_linked(machine, tmp_path):
    for name in ("assets", "viewer"):
        (tmp_path / "repo" / "vision3d" / name).mkdir(parents=True)
    (tmp_path / "repo" / "viewer").mkdir()
    machine(lacks="ensurepip")
    assert (tmp_path / "repo" / "assets").readlink() == Path("vision3d/assets")
    assert not (tmp_path / "repo" / "viewer").is_symlink() and not (tmp_path / "repo" / "configs").is_symlink()


def test_default_python_is_preferred(machine):
    machine(python="python3.12", lacks="ensurepip")
    assert machine(lacks="Python.h")[1].startswith("error: the headers of python3 are missing")


def test_make_lists_its_commands():
    root = SETUP.parents[1]
    done = subprocess.run(["make", "-C", root, "help"], capture_output=True, text=True, timeout=60, check=True, env=os.environ)
    names = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")}
    assert {"demo", "test", "setup", "check", "check-cuda", "test-slow", "bench", "clean"} <= names
