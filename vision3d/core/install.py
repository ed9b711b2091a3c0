"""How this copy of vision3d was installed, and the commands that extend it.

The distribution is called `vision3d-toolkit`; `vision3d` on PyPI belongs to a different project and must not be
installed over it.
"""

import functools
import importlib.machinery
import importlib.metadata
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

DISTRIBUTION = "vision3d-toolkit"


def pip_command() -> str:
    """The pip command of this interpreter as typed by a user: `pip` if that is the one, else with the interpreter's path."""
    folder, found = Path(sys.executable).parent, shutil.which("pip")
    if found is not None and Path(found).parent == folder:
        return "pip"
    # Not by `importlib.util.find_spec`: when asked for pip, the import hook of setuptools drops distutils and warns.
    if importlib.machinery.PathFinder.find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip --python {shlex.quote(sys.executable)}"
    return f"{shlex.quote(sys.executable)} -m pip"


def install_command(*extras: str) -> str:
    """The command that adds `extras` to this copy: with the folder of a checkout, else with the name of the distribution."""
    names = f"[{','.join(extras)}]" if extras else ""
    folder = checkout()
    if folder is not None:
        return f"{pip_command()} install -e {_quoted(f'{folder}{names}')}"
    return f"{pip_command()} install {_quoted(f'{DISTRIBUTION}{names}')}"


def reinstall_command() -> str:
    """The command that reinstalls this copy without its dependencies, from its recorded origin if there is one."""
    folder, dist = checkout(), distribution()
    if folder is not None:
        return f"{pip_command()} install --no-deps -e {_quoted(str(folder))}"
    origin = None if dist is None else _local_origin(dist)
    return f"{pip_command()} install --force-reinstall --no-deps --no-cache-dir {_quoted(str(origin or DISTRIBUTION))}"


def checkout() -> Path | None:
    """The source folder if this copy runs from there: installed with `pip install -e`, or not installed."""
    dist, package = distribution(), Path(__file__).resolve().parents[1]
    editable = None if dist is None else _editable_folder(dist)
    if editable is not None and package == (editable / "vision3d").resolve():
        return editable
    if dist is not None and package == Path(str(dist.locate_file("vision3d"))).resolve():
        return None
    return package.parent if (package.parent / "pyproject.toml").is_file() else None


def distribution() -> importlib.metadata.Distribution | None:
    """The installed distribution; None if this copy was not installed."""
    try:
        return importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def other_vision3d() -> str | None:
    """The version of the distribution `vision3d` if it is installed: its files have the same names as ours."""
    try:
        return importlib.metadata.version("vision3d")
    except importlib.metadata.PackageNotFoundError:
        return None


def _editable_folder(dist: importlib.metadata.Distribution) -> Path | None:
    """The folder of an editable installation."""
    info = _origin(dist).get("dir_info")
    return _local_origin(dist) if isinstance(info, dict) and info.get("editable") is True else None


def _local_origin(dist: importlib.metadata.Distribution) -> Path | None:
    """The folder or wheel on this machine that it was installed from."""
    import urllib.parse
    import urllib.request  # 10 ms, not for every command

    url = urllib.parse.urlsplit(str(_origin(dist).get("url", "")))
    return Path(urllib.request.url2pathname(url.path)).resolve() if url.scheme == "file" and url.path else None


def _origin(dist: importlib.metadata.Distribution) -> dict[str, Any]:
    """The origin recorded by the installer (PEP 610); empty if installed from an index."""
    try:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _quoted(text: str) -> str:
    """Always quoted, since shells treat square brackets as a pattern."""
    return shlex.quote(text) if "'" in text else f"'{text}'"
