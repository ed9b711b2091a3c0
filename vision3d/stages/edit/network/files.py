"""Trained encoders of planes: network, configuration and model card, in one file."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene.triplane import Triplane
from vision3d.stages.edit.config import PlanesConfig
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.stages.edit.objects.points import ObjectPoints
from vision3d.training.models import ModelFormat, TrainedModel

KIND = "edit_planes"


class PlanesModel(TrainedModel[PlaneNet, PlanesConfig]):
    """A network that makes a triplane of colored points."""

    @torch.no_grad()
    def encode(self, points: ObjectPoints) -> Triplane:
        """The triplane of an object."""
        kept = points.weights > 0
        parts = (points.points[kept], points.values[kept], points.weights[kept])
        device = next(self.network.parameters()).device
        planes = self.network.encode(*(part.float().to(device)[None] for part in parts))[0]
        return self.triplane(planes, points.matrix)

    def triplane(self, planes: Float[Tensor, "3 c h w"], matrix: Float[Tensor, "4 4"]) -> Triplane:
        """Planes with the decoder of the network.

        Args:
            planes: Of the network's size.
            matrix: The cube to the world.
        """
        decoder = {name: value.detach().clone() for name, value in self.network.weights().items()}
        return Triplane(planes, decoder, self.config.density_channels, matrix.to(planes))


FORMAT = ModelFormat(KIND, PlanesConfig, PlaneNet)


def save_planes_model(path: Path | str, model: PlanesModel) -> None:
    """Write a model as .safetensors atomically: numbers as float16."""
    FORMAT.save(path, model)


def load_planes_model(path: Path | str) -> PlanesModel:
    """Load a model in evaluation mode; arguments and errors as for `training.weights.load_network`."""
    return PlanesModel(*FORMAT.load(path))
