"""`vision3d detect TASK`: boxes around objects in point clouds, one row per task."""

import importlib
from collections.abc import Sequence

from vision3d.cli.menu import menu

TASKS: dict[str, tuple[str, str]] = {
    "synth": ("vision3d.cli.detect_synth", "generate labelled LiDAR frames of synthetic streets as a KITTI folder"),
}
"""Name -> (module with `run(arguments)`, description)."""


def _choose(name: str, arguments: Sequence[str]) -> int | None:
    return importlib.import_module(TASKS[name][0]).run(arguments)


run = menu(
    "detect", "TASK", "Boxes around objects in point clouds.", {name: text for name, (_, text) in TASKS.items()}, _choose
)
