"""`vision3d edit TASK`: edits of objects by text, one row per task."""

import importlib
from collections.abc import Sequence

from vision3d.cli.menu import menu

TASKS: dict[str, tuple[str, str]] = {
    "run": ("vision3d.cli.edit_run", "change colors, patterns and material of a mesh or of Gaussians by text"),
    "reconstruct": ("vision3d.cli.edit_reconstruct", "an object from one image by TripoSR, with weights of yours, to edit"),
    "synth": ("vision3d.cli.edit_synth", "pairs of an object and the same after an instruction, as files"),
    "eval": ("vision3d.cli.edit_eval", "accuracy and color errors of edits on objects"),
    "train": ("vision3d.cli.edit_train", "train the network that edits planes by text"),
    "train-vae": ("vision3d.cli.edit_train_vae", "train the VAE of planes, for diffusion"),
    "train-diffusion": ("vision3d.cli.edit_train_diffusion", "train a diffusion model that edits planes by text"),
    "train-planes": ("vision3d.cli.edit_train_planes", "train encoder and decoder of planes"),
}
"""Name -> (module with `run(arguments)`, description)."""


def _choose(name: str, arguments: Sequence[str]) -> int | None:
    return importlib.import_module(TASKS[name][0]).run(arguments)


run = menu("edit", "TASK", "Edits of objects by text.", {name: text for name, (_, text) in TASKS.items()}, _choose)
"""Run the command."""
