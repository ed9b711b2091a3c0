"""Accuracy of instructions: is the edited object closest to what was asked for, of all that could have been?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene.lab import delta_e, srgb_to_lab
from vision3d.stages.edit.data.instructions import encoded
from vision3d.stages.edit.evaluation.objects import EvalObject, objects_of_samples
from vision3d.stages.edit.fitting import Observed, refined_planes
from vision3d.stages.edit.instructions.families import Edit, basic_edits
from vision3d.stages.edit.instructions.targets import apply_edits
from vision3d.stages.edit.instructions.text import TextEncoder
from vision3d.stages.edit.instructions.understanding import InstructionError, understand
from vision3d.stages.edit.network.files import PlanesModel
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.stages.edit.transfer import Transfer
from vision3d.training.samples import GeneratedSamples

SAME = 10.0
"""Mean dE2000 below which two targets of an object are the same to the eye; such pairs are left out."""
_SEED = 5
_GRAY = 0.5

Edits = tuple[Edit, ...]
Change = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Planes, box, tokens, mask and baked, as of `AdapterNet.forward` -> the change of the channels of color."""
Method = Callable[[EvalObject, str, Edits], Float[Tensor, "n 3"]]
"""Object, text and what it means -> colors of its places."""


@dataclass(frozen=True)
class Outcome:
    """An instruction for an object."""

    name: str
    text: str
    edits: Edits
    nearest: Edits
    """The target that the result is closest to."""
    error: float
    """Mean dE2000 of the result."""
    source_error: float
    """The same for the source as it was."""
    psnr: float
    """Of the result [dB], at most 60."""


class Adapter:
    """The edits of a network, as a method.

    Args:
        network: An adapter in evaluation mode, or another change of planes.
        planes: Its encoder and decoder.
        encoder: Of texts.
        told: What the network reads of a text and its meaning; the text itself when None.
        transferred: Whether the change is applied to the object's own colors, as for users, or the planes are all there is.
        refine: Steps of refinement of the planes; the network sees those of the encoder.
    """

    def __init__(
        self,
        network: Change,
        planes: PlanesModel,
        encoder: TextEncoder,
        told: Callable[[str, Edits], Sequence[str]] | None = None,
        transferred: bool = True,
        refine: int = 0,
    ) -> None:
        self.network, self.planes, self.encoder, self.transferred = network, planes, encoder, transferred
        self.refine = refine
        self.told = told or (lambda text, _: (text,))
        self._source: tuple[EvalObject, Tensor, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, item: EvalObject, text: str, edits: Edits) -> Float[Tensor, "n 3"]:
        """The colors of the places."""
        if self._source is None or self._source[0] is not item:
            self._source = (item, *_planes_of(item, self.planes.network, self.refine))
        source, first = self._source[2], self.planes.config.density_channels
        planes, offset = self._source[1], source - self._source[1]
        for sentence in self.told(text, edits):
            found = self.encoder.encode([sentence])
            change = self.network(planes, item.box[None], found.tokens, found.mask, torch.ones(1))
            planes = torch.cat([planes[:, :, :first], planes[:, :, first:] + change], 2)
        before, after = (self.planes.network.values(each, item.places[None])[0, :, :3] for each in (source, planes + offset))
        return Transfer.of(before, after).apply(item.place_values[:, :3]).clamp(0, 1) if self.transferred else after


class ClosedForm:
    """Edits as the text is understood, by their closed forms on the colors of the planes, as a method.

    A text that is not understood changes nothing.

    Args:
        planes: Encoder and decoder.
        encoder: Of texts.
        refine: Steps of refinement of the planes.
    """

    def __init__(self, planes: PlanesModel, encoder: TextEncoder, refine: int = 0) -> None:
        self.planes, self.encoder, self.refine = planes, encoder, refine
        self._source: tuple[EvalObject, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, item: EvalObject, text: str, edits: Edits) -> Float[Tensor, "n 3"]:
        """The colors of the places."""
        colors = item.place_values[:, :3]
        try:
            understood = understand(text, self.encoder).edits
        except InstructionError:
            return colors
        if self._source is None or self._source[0] is not item:
            self._source = (item, _planes_of(item, self.planes.network, self.refine)[1])
        before = self.planes.network.values(self._source[1], item.places[None])[0, :, :3]
        after = apply_edits(understood, item.places, before).colors
        return Transfer.of(before, after).apply(colors).clamp(0, 1)


def _planes_of(item: EvalObject, network: PlaneNet, refine: int) -> tuple[Tensor, Tensor]:
    """Planes (1, 3, C, H, W) of the encoder, and the refined ones."""
    planes = network.encode(item.points[None], item.values[None])
    observed = Observed(item.points, item.values)
    return planes, refined_planes(network, planes[0], observed, refine)[None] if refine else planes


def copied(item: EvalObject, text: str, edits: Edits) -> Float[Tensor, "n 3"]:
    """Baseline: nothing changes."""
    return item.place_values[:, :3]


def text_only(item: EvalObject, text: str, edits: Edits) -> Float[Tensor, "n 3"]:
    """Baseline that knows the instruction perfectly and nothing of the object's colors: the edit of a gray one."""
    return apply_edits(edits, item.places, torch.full_like(item.places, _GRAY)).colors


def accuracy(
    network: Change, planes: PlanesModel, samples: GeneratedSamples, encoder: TextEncoder, count: int, each: int = 6
) -> dict[str, float]:
    """Figures of a training: accuracy and color error with phrasings of the training.

    Args:
        network: As for `Adapter`.
        planes: Its encoder and decoder.
        samples: Objects.
        encoder: Of texts.
        count: Points that the encoder of planes sees.
        each: Random basic edits of each object.
    """
    objects = objects_of_samples(samples, count)
    return figures_of(outcomes(Adapter(network, planes, encoder), objects, drawn(objects, each, _SEED), encoder))


def drawn(objects: Sequence[EvalObject], each: int, seed: int) -> list[list[Edits]]:
    """Random basic edits of objects."""
    generator, classes = torch.Generator().manual_seed(seed), basic_edits()
    return [[(classes[int(torch.randint(len(classes), (1,), generator=generator))],) for _ in range(each)] for _ in objects]


def outcomes(
    method: Method,
    objects: Sequence[EvalObject],
    edits: Sequence[Sequence[Edits]],
    encoder: TextEncoder,
    *,
    held_out: bool = False,
    seed: int = _SEED,
) -> list[Outcome]:
    """Results of a method, compared with the targets of all basic edits at points of the surface.

    Instructions whose target differs from the source by less than `SAME` are left out, other than "unchanged"; so are, of the
    other targets, those that are closer than that to the right one. With two edits, each of them alone is a candidate, too.

    Args:
        method: What is evaluated.
        objects: The objects.
        edits: Of each.
        encoder: Of texts.
        held_out: With the phrasings that are not for training.
        seed: Of the phrasings.
    """
    flat = [one for row in edits for one in row]
    texts = iter(encoded(flat, encoder, torch.Generator().manual_seed(seed), held_out=held_out).texts)
    found = []
    for item, row in zip(objects, edits):
        colors = item.place_values[:, :3]
        goals: dict[Edits, Tensor] = {(edit,): apply_edits((edit,), item.places, colors).colors for edit in basic_edits()}
        for one in row:
            text = next(texts)
            every = dict(goals)
            for candidate in (one, *((edit,) for edit in one)):
                every[candidate] = apply_edits(candidate, item.places, colors).colors
            source_error = difference(every[one], colors)
            if source_error < SAME and any(edit.kind != "unchanged" for edit in one):
                continue
            result = method(item, text, one)
            distances = {
                other: float((goal - result).abs().mean())
                for other, goal in every.items()
                if other == one or difference(goal, every[one]) >= SAME
            }
            nearest = min(distances, key=lambda other: distances[other])
            psnr = -10 * math.log10(max(float((every[one] - result).square().mean()), 1e-6))
            found.append(Outcome(item.name, text, one, nearest, difference(every[one], result), source_error, psnr))
    return found


def figures_of(found: Sequence[Outcome]) -> dict[str, float]:
    """Share of outcomes that are nearest to what was asked for, or to an edit of its family; mean errors; their number."""
    changed = [outcome for outcome in found if any(edit.kind != "unchanged" for edit in outcome.edits)]
    families = sum([edit.family for edit in outcome.nearest] == [edit.family for edit in outcome.edits] for outcome in found)
    return {
        "accuracy": round(sum(outcome.nearest == outcome.edits for outcome in found) / len(found), 4),
        "family_accuracy": round(families / len(found), 4),
        "delta_e": round(sum(outcome.error for outcome in changed) / max(1, len(changed)), 3),
        "delta_e_source": round(sum(outcome.source_error for outcome in changed) / max(1, len(changed)), 3),
        "psnr": round(sum(outcome.psnr for outcome in found) / len(found), 2),
        "count": len(found),
    }


def difference(first: Float[Tensor, "n 3"], second: Float[Tensor, "n 3"]) -> float:
    """Mean dE2000."""
    return float(delta_e(srgb_to_lab(first), srgb_to_lab(second)).mean())
