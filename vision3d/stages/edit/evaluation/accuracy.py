"""Accuracy of instructions: is the edited object closest to what was asked for, of all that could have been?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene.lab import delta_e, srgb_to_lab
from vision3d.stages.edit.data.batches import whole_batch
from vision3d.stages.edit.data.instructions import Instructions, encoded
from vision3d.stages.edit.instructions.families import Edit, basic_edits
from vision3d.stages.edit.instructions.targets import apply_edit
from vision3d.stages.edit.instructions.text import TextEncoder
from vision3d.stages.edit.network.adapter import AdapterNet
from vision3d.stages.edit.network.files import PlanesModel
from vision3d.training.samples import GeneratedSamples

SAME = 10.0
"""Mean dE2000 below which two targets of an object are the same to the eye; such pairs are left out."""
_PLACES = 2048
_SEED = 5


@dataclass(frozen=True)
class Outcome:
    """One edit of one object."""

    edit: Edit
    nearest: Edit
    """The target that the result is closest to."""
    error: float
    """Mean dE2000 of the result."""
    source_error: float
    """The same for the source as it was."""


def accuracy(
    network: AdapterNet, planes: PlanesModel, samples: GeneratedSamples, encoder: TextEncoder, count: int, edits: int = 6
) -> dict[str, float]:
    """Figures of a training: accuracy and color error with phrasings of the training, on objects.

    Args:
        network: In evaluation mode.
        planes: Its encoder and decoder.
        samples: Objects.
        encoder: Of texts.
        count: Points that the encoder of planes sees.
        edits: Random basic edits of each object.
    """
    generator = torch.Generator().manual_seed(_SEED)
    classes = basic_edits()
    chosen = [classes[int(torch.randint(len(classes), (1,), generator=generator))] for _ in range(len(samples) * edits)]
    instructions = encoded([(edit,) for edit in chosen], encoder, generator)
    return figures_of(outcomes(network, planes, samples, instructions, count, edits))


def figures_of(found: list[Outcome]) -> dict[str, float]:
    """Shares of outcomes that are nearest to their edit, and to their family; mean errors."""
    changed = [outcome for outcome in found if outcome.edit.kind != "unchanged"]
    return {
        "accuracy": round(sum(outcome.nearest == outcome.edit for outcome in found) / len(found), 4),
        "family_accuracy": round(sum(outcome.nearest.family == outcome.edit.family for outcome in found) / len(found), 4),
        "delta_e": round(sum(outcome.error for outcome in changed) / len(changed), 3),
        "delta_e_source": round(sum(outcome.source_error for outcome in changed) / len(changed), 3),
    }


@torch.no_grad()
def outcomes(
    network: AdapterNet,
    planes: PlanesModel,
    samples: GeneratedSamples,
    instructions: Instructions,
    count: int,
    each: int,
) -> list[Outcome]:
    """Edits of objects, compared with the targets of all basic edits at points of the surface.

    Edits whose target differs from the source by less than `SAME` are left out, other than "unchanged".

    Args:
        network: In evaluation mode.
        planes: Its encoder and decoder.
        samples: Objects.
        instructions: `each` for every object, in order; basic edits.
        count: Points that the encoder of planes sees.
        each: Instructions of an object.
    """
    found = []
    first = planes.config.density_channels
    for index in range(len(samples)):
        batch = whole_batch(samples.take([index]), count)
        source = planes.network.encode(batch.points, batch.values)
        places, values = batch.places[0, :_PLACES], batch.place_values[0, :_PLACES]
        box = torch.stack([places.amin(0), places.amax(0)])[None]
        colors = values[:, :3]
        goals = {edit: apply_edit(edit, places, colors).colors for edit in basic_edits()}
        for row in range(index * each, (index + 1) * each):
            edit = instructions.edits[row][0]
            source_error = _difference(goals[edit], colors)
            if edit.kind != "unchanged" and source_error < SAME:
                continue
            tokens, mask = instructions.take(torch.tensor([row]))
            change = network(source, box, tokens, mask, torch.ones(1))
            edited = torch.cat([source[:, :, :first], source[:, :, first:] + change], 2)
            result = planes.network.values(edited, places[None])[0, :, :3]
            others = {
                other: (goal - result).abs().mean()
                for other, goal in goals.items()
                if other == edit or _difference(goal, goals[edit]) >= SAME
            }
            nearest = min(others, key=lambda other: float(others[other]))
            found.append(Outcome(edit, nearest, _difference(goals[edit], result), source_error))
    return found


def _difference(first: Float[Tensor, "n 3"], second: Float[Tensor, "n 3"]) -> float:
    return float(delta_e(srgb_to_lab(first), srgb_to_lab(second)).mean())
