"""`vision3d hand TASK`: hands in images and videos, one row per task."""

import importlib
from collections.abc import Sequence

from vision3d.cli.menu import menu

TASKS: dict[str, tuple[str, str]] = {
    "run": ("vision3d.cli.hand_run", "find the hands in images, a video or a webcam: joints, meshes, overlays"),
    "eval": ("vision3d.cli.hand_eval", "errors of a network on labelled or generated hands"),
    "train": ("vision3d.cli.hand_train", "train a network on generated images of hands"),
    "train-finder": ("vision3d.cli.hand_train_finder", "train the finder of hands in whole images"),
    "synth": ("vision3d.cli.hand_synth", "generate images of hands with their truth, in FreiHAND's layout"),
    "export": ("vision3d.cli.hand_export", "write a network as an ONNX graph"),
}
"""Name -> (module with `run(arguments)`, description)."""


def _choose(name: str, arguments: Sequence[str]) -> int | None:
    return importlib.import_module(TASKS[name][0]).run(arguments)


run = menu("hand", "TASK", "Hands in images and videos.", {name: text for name, (_, text) in TASKS.items()}, _choose)
"""Run the command."""
