"""Encoded objects to edit: a pool that changes by one object a step, since encoding costs more than an edit."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.stages.edit.config import AdapterTrainConfig
from vision3d.stages.edit.data.batches import source_batch
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.training.samples import GeneratedSamples


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
    """What a step sees depends on its number alone: step n draws from objects n to n + size.

    Args:
        objects: On disk.
        planes: The encoder, frozen.
        config: Seed, sizes, and number of points.
    """

    def __init__(self, objects: GeneratedSamples, planes: PlaneNet, config: AdapterTrainConfig) -> None:
        self.objects, self.planes, self.config = objects, planes, config
        self._made: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def draw(self, step: int, count: int, generator: torch.Generator) -> Sources:
        """Some objects of a step, on the CPU; more than once if chance has it."""
        for number in [number for number in self._made if number < step]:
            del self._made[number]
        numbers = (step + torch.randint(self.config.pool, (count,), generator=generator)).tolist()
        for number in numbers:
            if number not in self._made:
                self._made[number] = self._encoded(number)
        planes, places, values = (torch.stack(parts) for parts in zip(*(self._made[number] for number in numbers)))
        return Sources(planes.float(), places, values)

    @torch.no_grad()
    def _encoded(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        epoch, at = divmod(number, config.objects)
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + number) * 1009)
        sample = self.objects.take(self.objects.order(epoch, config.seed)[at : at + 1])
        batch = source_batch(sample, config.points, config.queries, generator)
        device = next(self.planes.parameters()).device
        planes = self.planes.encode(batch.points.to(device), batch.values.to(device))[0]
        return planes.half().cpu(), batch.places[0], batch.place_values[0]
