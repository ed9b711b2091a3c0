"""`vision3d reproduce EXPERIMENT`: experiments from papers, one row each."""

import importlib
from collections.abc import Sequence

from vision3d.cli.menu import menu

EXPERIMENTS: dict[str, tuple[str, str]] = {
    "affnist": ("vision3d.cli.reproduce_affnist", "train on upright digits, evaluate on affinely warped ones"),
    "rotation": ("vision3d.cli.reproduce_rotation", "compare rotation representations for networks"),
}
"""Name -> (module with `run(arguments)`, description)."""


def _choose(name: str, arguments: Sequence[str]) -> int | None:
    return importlib.import_module(EXPERIMENTS[name][0]).run(arguments)


run = menu(
    "reproduce", "EXPERIMENT", "Run an experiment of a paper.", {name: text for name, (_, text) in EXPERIMENTS.items()}, _choose
)
