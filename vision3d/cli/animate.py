"""`vision3d animate TASK`: animation by skinning, one row per task."""

import importlib
from collections.abc import Sequence

from vision3d.cli.menu import menu

TASKS: dict[str, tuple[str, str]] = {
    "static": ("vision3d.cli.animate_static", "bind Gaussians to the faces of a mesh and refine them on images"),
    "fit": ("vision3d.cli.animate_fit", "fit the motion of a mesh to a short clip with masks"),
    "rig": ("vision3d.cli.animate_rig", "pose or play a mesh with joints: files, splats, videos"),
    "eval": ("vision3d.cli.animate_eval", "evaluate videos of moving objects against the true ones"),
}
"""Name -> (module with `run(arguments)`, description)."""


def _choose(name: str, arguments: Sequence[str]) -> int | None:
    return importlib.import_module(TASKS[name][0]).run(arguments)


run = menu("animate", "TASK", "Objects that move by skinning.", {name: text for name, (_, text) in TASKS.items()}, _choose)
