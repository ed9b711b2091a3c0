"""`vision3d detect TASK`: boxes of objects in LiDAR sweeps, one row per task."""

import importlib
from collections.abc import Sequence

from vision3d.cli.menu import menu

TASKS: dict[str, tuple[str, str]] = {
    "run": ("vision3d.cli.detect_run", "find the objects in sweeps: boxes, KITTI labels, images, video"),
    "eval": ("vision3d.cli.detect_eval", "average precision of a detector on labelled sweeps"),
    "train": ("vision3d.cli.detect_train", "train a detector on labelled sweeps or generated streets"),
    "check": ("vision3d.cli.detect_check", "check labelled sweeps before a training"),
    "export": ("vision3d.cli.detect_export", "write a detector as an ONNX graph"),
    "synth": ("vision3d.cli.detect_synth", "generate labelled sweeps of streets as a KITTI folder"),
}
"""Name -> (module with `run(arguments)`, description)."""


def _choose(name: str, arguments: Sequence[str]) -> int | None:
    return importlib.import_module(TASKS[name][0]).run(arguments)


run = menu("detect", "TASK", "Objects in LiDAR sweeps.", {name: text for name, (_, text) in TASKS.items()}, _choose)
