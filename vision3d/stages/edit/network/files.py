"""Trained encoders of planes: network, configuration and model card, in one file."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core import config as configuration
from vision3d.scene.triplane import Triplane
from vision3d.stages.edit.config import PlanesConfig
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.stages.edit.objects.points import ObjectPoints
from vision3d.training.weights import Card, in_half, load_network, save_weights

KIND = "edit_planes"


@dataclass(eq=False)
class PlanesModel:
    """A network that makes a triplane of colored points."""

    network: PlaneNet
    config: PlanesConfig
    card: Card
    """Training data, seed, time and figures."""

    def to(self, device: torch.device) -> "PlanesModel":
        return replace(self, network=self.network.to(device))

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


def save_planes_model(path: Path | str, model: PlanesModel) -> None:
    """Write a model as .safetensors atomically: numbers as float16."""
    card = replace(model.card, kind=KIND, config=configuration.to_dict(model.config))
    save_weights(path, card, in_half(model.network))


def load_planes_model(path: Path | str) -> PlanesModel:
    """Load a model in evaluation mode.

    Args:
        path: A file, or the name of bundled weights.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, contains something else, or does not match its configuration; differing keys are listed.
    """
    return PlanesModel(*load_network(path, KIND, PlanesConfig, PlaneNet))
