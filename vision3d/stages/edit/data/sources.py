"""Encoded objects to edit: a pool that changes by one object every second step, since encoding costs as much as 16 edits."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.stages.edit.config import ObjectTraining
from vision3d.stages.edit.data.batches import ObjectBatch, source_batch, training_batch
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.training.samples import GeneratedSamples

_STEPS_AN_OBJECT = 2


@dataclass(frozen=True, eq=False)
class Sources:
    """B encoded objects."""

    planes: Float[Tensor, "b 3 c h w"]
    places: Float[Tensor, "b m 3"]
    """On the surface, in the cube."""
    values: Float[Tensor, "b m 5"]
    """Of the places, as they are."""

    @property
    def box(self) -> Float[Tensor, "b 2 3"]:
        """Lowest and highest corner of each object."""
        return torch.stack([self.places.amin(1), self.places.amax(1)], 1)


class SourcePool:
    """What a step sees depends on its number alone: step n draws from objects n / 2 to n / 2 + size.

    Args:
        objects: On disk.
        planes: The encoder, frozen.
        config: Seed and number of points.
        size: Of the pool.
        edited: Whether some of the objects are edited: what a VAE has to know.
    """

    def __init__(
        self, objects: GeneratedSamples, planes: PlaneNet, config: ObjectTraining, size: int, *, edited: bool = False
    ) -> None:
        self.objects, self.planes, self.config, self.size, self.edited = objects, planes, config, size, edited
        self._made: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def draw(self, step: int, count: int, generator: torch.Generator) -> Sources:
        """Some objects of a step, on the CPU; more than once if chance has it."""
        first = step // _STEPS_AN_OBJECT
        for number in [number for number in self._made if number < first]:
            del self._made[number]
        numbers = (first + torch.randint(self.size, (count,), generator=generator)).tolist()
        for number in numbers:
            if number not in self._made:
                self._made[number] = self._encoded(number)
        planes, places, values = (torch.stack(parts) for parts in zip(*(self._made[number] for number in numbers)))
        return Sources(planes.float(), places, values)

    @torch.no_grad()
    def _encoded(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        batch, _ = object_of(self.objects, self.config, number, edited=self.edited)
        device = next(self.planes.parameters()).device
        planes = self.planes.encode(batch.points.to(device), batch.values.to(device))[0]
        return planes.half().cpu(), batch.places[0], batch.place_values[0]


def object_of(
    objects: GeneratedSamples, config: ObjectTraining, number: int, *, edited: bool = False
) -> tuple[ObjectBatch, torch.Generator]:
    """Object number n of a training, and the random numbers for what else is to be drawn for it."""
    epoch, at = divmod(number, config.objects)
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + number) * 1009)
    sample = objects.take(objects.order(epoch, config.seed)[at : at + 1])
    make = training_batch if edited else source_batch
    return make(sample, config.points, config.queries, generator), generator
