"""`vision3d reproduce EXPERIMENT`: the experiments of papers, one row each."""

import importlib
from collections.abc import Sequence

from vision3d.cli.app import UsageError
from vision3d.errors import nearest_names

EXPERIMENTS: dict[str, tuple[str, str]] = {
    "affnist": ("vision3d.cli.reproduce_affnist", "train on upright digits, measure on affinely warped ones"),
    "rotation": ("vision3d.cli.reproduce_rotation", "which representation a network should give rotations in"),
}
"""Name -> (module with `run(arguments)`, what it does)."""


def help_text() -> str:
    """What `vision3d reproduce --help` prints."""
    width = max(map(len, EXPERIMENTS))
    rows = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in sorted(EXPERIMENTS.items()))
    return f"""usage: vision3d reproduce EXPERIMENT [OPTIONS]

Run an experiment of a paper.

experiments (vision3d reproduce EXPERIMENT --help tells their options):
{rows}

options:
  -h, --help  show this text"""


def run(arguments: Sequence[str]) -> int | None:
    """Run the experiment that is named."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text())
        return 0 if arguments else 2
    name, rest = arguments[0], list(arguments[1:])
    if name not in EXPERIMENTS:
        kind = "option of vision3d reproduce" if name.startswith("-") else "experiment"
        raise UsageError(f"{name}: unknown {kind}; {nearest_names(name, EXPERIMENTS)} (vision3d reproduce --help lists them)")
    return importlib.import_module(EXPERIMENTS[name][0]).run(rest)
