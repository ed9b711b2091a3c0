"""`vision3d reproduce EXPERIMENT`: the experiments of papers, one row each."""

import importlib
from collections.abc import Sequence

from vision3d.cli.menu import menu

EXPERIMENTS: dict[str, tuple[str, str]] = {
    "affnist": ("vision3d.cli.reproduce_affnist", "train on upright digits, measure on affinely warped ones"),
    "rotation": ("vision3d.cli.reproduce_rotation", "which representation a network should give rotations in"),
}
"""Name -> (module with `run(arguments)`, what it does)."""


def _choose(name: str, arguments: Sequence[str]) -> int | None:
    return importlib.import_module(EXPERIMENTS[name][0]).run(arguments)


run = menu(
    "reproduce", "EXPERIMENT", "Run an experiment of a paper.", {name: text for name, (_, text) in EXPERIMENTS.items()}, _choose
)
