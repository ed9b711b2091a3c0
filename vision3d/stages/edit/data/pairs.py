"""Latents of objects before and after instructions: a pool that changes by one object a step."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.stages.edit.data.instructions import Instructions
from vision3d.stages.edit.data.sources import object_of
from vision3d.stages.edit.diffusion_config import DiffusionTrainConfig
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.targets import apply_edits
from vision3d.stages.edit.instructions.variants import variants
from vision3d.stages.edit.network.denoiser import DiffusionNet
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.training.samples import GeneratedSamples

_BAKED = 0.75  # share of objects without materials


@dataclass(frozen=True, eq=False)
class Pairs:
    """B objects and instructions."""

    source: Float[Tensor, "b l i j"]
    """Latents."""
    target: Float[Tensor, "b l i j"]
    """Latents of the edited object, from the same encoder."""
    shape: Float[Tensor, "b f i j"]
    """Of `DiffusionNet.shape_features`."""
    rows: Int64[Tensor, " b"]
    """Numbers of the instructions."""


class PairPool:
    """What a step sees depends on its number alone: step n draws from objects n to n + `config.pool`.

    Args:
        objects: On disk.
        planes: Encoder of planes, frozen.
        network: Its VAE makes the latents.
        instructions: What can be asked for.
        config: Seed and sizes.
    """

    def __init__(
        self, objects: GeneratedSamples, planes: PlaneNet, network: DiffusionNet, instructions: Instructions,
        config: DiffusionTrainConfig,
    ) -> None:  # fmt: skip
        self.objects, self.planes, self.network = objects, planes, network
        self.instructions, self.config = instructions, config
        self._made: dict[int, Pairs] = {}

    def draw(self, step: int, count: int, generator: torch.Generator) -> Pairs:
        """Some pairs of a step, on the CPU; more than once if chance has it."""
        for number in [number for number in self._made if number < step]:
            del self._made[number]
        parts = []
        each = self.config.each
        for number in (torch.randint(self.config.pool * each, (count,), generator=generator)).tolist():
            at = step + number // each
            if at not in self._made:
                self._made[at] = self._encoded(at)
            found, row = self._made[at], slice(number % each, number % each + 1)
            parts.append([value[row] for value in vars(found).values()])
        return Pairs(*(torch.cat(some) for some in zip(*parts)))

    @torch.no_grad()
    def _encoded(self, number: int) -> Pairs:
        """An object with all of its instructions."""
        batch, generator = object_of(self.objects, self.config, number)
        each, device = self.config.each, next(self.network.parameters()).device
        rows = torch.randint(len(self.instructions.edits), (each,), generator=generator)
        baked = (torch.rand(each, generator=generator) < _BAKED).float()
        points, values = batch.points[0], batch.values[0]
        own, every = values[:, :3].mean(0), [values]
        for row, is_baked in zip(rows.tolist(), baked.bool().tolist()):
            edits = self._varied(self.instructions.edits[row], own, generator)
            every.append(edited_values(edits, points, values, is_baked))
        points = points.expand(1 + each, -1, -1).to(device)
        planes = self.planes.encode(points, torch.stack(every).to(device))
        latents = self.network.vae.encode(planes[:, :, self.network.planes.density_channels :]).cpu()
        box = torch.stack([batch.points[0].amin(0), batch.points[0].amax(0)])
        shape = self.network.shape_features(
            planes[:1].expand(each, -1, -1, -1, -1), box.expand(each, -1, -1).to(device), baked.to(device)
        )
        return Pairs(latents[:1].expand(each, -1, -1, -1), latents[1:], shape.cpu(), rows)

    def _varied(self, edits: tuple[Edit, ...], own: Tensor, generator: torch.Generator) -> tuple[Edit, ...]:
        """The edits as usual, or with other choices of what the text leaves open."""
        seed = int(torch.randint(2**31, (1,), generator=generator))
        if float(torch.rand(1, generator=generator)) >= self.config.varied:
            return edits
        return variants(edits, 2, own, seed)[1]


def edited_values(
    edits: tuple[Edit, ...], points: Float[Tensor, "n 3"], values: Float[Tensor, "n 5"], baked: bool
) -> Float[Tensor, "n 5"]:
    """Colors and material of points after edits."""
    target = apply_edits(edits, points, values[:, :3], metallic=values[:, 3], roughness=values[:, 4], baked=baked)
    return torch.cat([target.colors, target.metallic[:, None], target.roughness[:, None]], 1)
