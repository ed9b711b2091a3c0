"""Install commands for each way in which vision3d may be installed."""

import importlib.abc
import importlib.machinery
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vision3d.core import install
from vision3d.core.errors import MissingDependencyError

PACKAGE = Path(install.__file__).resolve().parents[1]
ROOT = PACKAGE.parent


class Installed:
    """A distribution with the metadata of an installer."""

    def __init__(self, folder, origin):
        self.folder, self.origin = folder, origin

    def read_text(self, name):
        return self.origin if name == "direct_url.json" else None

    def locate_file(self, name):
        return self.folder / name


@pytest.fixture
def installed(monkeypatch):
    """Sets the installed distribution, and a `pip` next to the interpreter."""

    def put(folder, origin=None):
        found = None if folder is None else Installed(folder, origin if origin is None else json.dumps(origin))
        monkeypatch.setattr(install, "distribution", lambda: found)
        monkeypatch.setattr(install, "pip_command", lambda: "pip")

    return put


def test_an_editable_checkout(installed):
    installed(Path("/lib"), {"url": ROOT.as_uri(), "dir_info": {"editable": True}})
    assert install.install_command("viewer") == f"pip install -e '{ROOT}[viewer]'"
    assert install.install_command() == f"pip install -e '{ROOT}'"


@pytest.mark.parametrize(
    "origin",
    [
        None,  # from an index
        {"url": "file:///tmp/vision3d_toolkit-0.1.0.whl", "archive_info": {}},
        {"url": ROOT.as_uri(), "dir_info": {}},  # pip install .
        {"url": "https://example.org/vision3d.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
    ],
)
def test_a_wheel(installed, origin):
    """The installed version meets the requirement, so an index is only needed for the extra's packages."""
    installed(ROOT, origin)
    assert install.install_command("viewer", "mesh") == "pip install 'vision3d-toolkit[viewer,mesh]'"
    assert install.install_command() == "pip install 'vision3d-toolkit'"


def test_reinstalling(installed):
    installed(Path("/lib"), {"url": ROOT.as_uri(), "dir_info": {"editable": True}})
    assert install.reinstall_command() == f"pip install --no-deps -e '{ROOT}'"
    again = "pip install --force-reinstall --no-deps --no-cache-dir"
    installed(ROOT, {"url": "file:///tmp/my%20wheels/a.whl", "archive_info": {}})
    assert install.reinstall_command() == f"{again} '/tmp/my wheels/a.whl'"
    for origin in (None, {"url": "https://example.org/a.git", "vcs_info": {}}, {"url": 5}, []):
        installed(ROOT, origin)
        assert install.reinstall_command() == f"{again} 'vision3d-toolkit'"


@pytest.mark.parametrize("origin", [None, {"url": "file:///elsewhere", "dir_info": {"editable": True}}])
def test_a_copy_other_than_the_installed_one(installed, origin):
    """A checkout on PYTHONPATH."""
    installed(Path("/lib"), origin)
    assert install.install_command("viewer") == f"pip install -e '{ROOT}[viewer]'"


def test_not_installed(installed):
    installed(None)
    assert install.install_command("sfm") == f"pip install -e '{ROOT}[sfm]'"


def test_damaged_installer_metadata(installed):
    installed(ROOT)
    install.distribution().origin = "{"
    assert install.checkout() is None


def test_paths_with_quotes_and_spaces(installed, monkeypatch):
    monkeypatch.setattr(install, "checkout", lambda: Path("/home/o'neil/my code"))
    command = install.install_command("viewer")
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command.partition('-e ')[2]}"], capture_output=True, text=True, check=True
    ).stdout
    assert words == "/home/o'neil/my code[viewer]\n"


def test_which_pip(monkeypatch):
    folder = Path(sys.executable).parent
    monkeypatch.setattr(shutil, "which", lambda name: str(folder / name))
    assert install.pip_command() == "pip"
    monkeypatch.setattr(shutil, "which", lambda name: f"/elsewhere/{name}")
    assert install.pip_command() == f"{sys.executable} -m pip"
    finder = importlib.machinery.PathFinder
    find_spec = finder.find_spec
    monkeypatch.setattr(finder, "find_spec", lambda name, *rest: None if name == "pip" else find_spec(name, *rest))
    assert install.pip_command() == f"uv pip --python {sys.executable}"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert install.pip_command() == f"{sys.executable} -m pip"


def test_import_hooks_are_not_asked_for_pip(monkeypatch):
    """That of setuptools would drop distutils, which torch 2.5 has loaded, and warn."""

    class Hook(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            assert name != "pip"

    monkeypatch.setattr(sys, "meta_path", [Hook(), *sys.meta_path])
    monkeypatch.setattr(shutil, "which", lambda name: f"/elsewhere/{name}")
    assert install.pip_command() == f"{sys.executable} -m pip"


def test_missing_dependencies_name_the_right_command(monkeypatch):
    monkeypatch.setattr(install, "checkout", lambda: None)
    text = str(MissingDependencyError("viser", "viewer", "the viewer"))
    assert re.fullmatch(r"viser is needed for the viewer: \S*.*pip install 'vision3d-toolkit\[viewer\]'", text)


def test_doctor_sees_the_other_project(cli, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.9" if name == "vision3d" else version(name))
    install.other_vision3d.cache_clear()
    try:
        _, out, _ = cli("doctor", "--json")
    finally:
        install.other_vision3d.cache_clear()
    found = {finding["name"]: finding for finding in json.loads(out.splitlines()[-1])["findings"]}
    assert found["distribution vision3d"]["state"] == "broken" and "0.0.9" in found["distribution vision3d"]["text"]
    assert "uninstall -y vision3d && " in found["distribution vision3d"]["repair"]


def test_no_text_names_the_other_project():
    """`pip install vision3d` would overwrite ours with another project's files."""
    done = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False)
    suffixes = (".py", ".md", ".toml", "Makefile", ".ci/run", ".ci/setup", ".ci/setup-viewer")
    names = [name for name in done.stdout.split("\0") if name.endswith(suffixes)]
    if not names:
        pytest.skip("not a git checkout")
    wrong = re.compile(r"pip3? install[^\n&;|]*[ '\"]vision3d(?![\w-])(?!\.)")
    assert wrong.search("pip install vision3d") and wrong.search("pip install -U 'vision3d[viewer]'")
    assert not wrong.search("pip install 'vision3d-toolkit[viewer]' && vision3d doctor")
    texts = {name: (ROOT / name).read_text("utf-8", "replace") for name in names if (ROOT / name).is_file()}
    found = {name: match[0] for name, text in texts.items() if (match := wrong.search(text))}
    assert {name: text for name, text in found.items() if Path(name).name != Path(__file__).name} == {}


def test_name_of_the_project_and_its_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == install.DISTRIBUTION and project["scripts"] == {"vision3d": "vision3d.cli.app:main"}
    extras = project["optional-dependencies"]
    references = [text for texts in extras.values() for text in texts if text.startswith("vision3d")]
    assert references and all(text.startswith(f"{install.DISTRIBUTION}[") for text in references)
    named = {name for text in references for name in text.partition("[")[2].rstrip("]").split(",")}
    assert named <= extras.keys()
