"""`vision3d animate PART`: objects that move by skinning, one row each."""

import importlib
from collections.abc import Sequence

from vision3d.cli.menu import menu

PARTS: dict[str, tuple[str, str]] = {
    "fit": ("vision3d.cli.animate_fit", "let a mesh move as a short clip with masks shows it"),
}
"""Name -> (module with `run(arguments)`, what it does)."""


def _choose(name: str, arguments: Sequence[str]) -> int | None:
    return importlib.import_module(PARTS[name][0]).run(arguments)


run = menu("animate", "PART", "Objects that move by skinning.", {name: text for name, (_, text) in PARTS.items()}, _choose)
