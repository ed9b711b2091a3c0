"""Trained adapters: network, configuration, digests of what they belong to, and model card, in one file."""

from dataclasses import dataclass, field
from pathlib import Path

from vision3d.core.errors import InputError
from vision3d.stages.edit.config import AdapterConfig, PlanesConfig
from vision3d.stages.edit.instructions.text import TextEncoder
from vision3d.stages.edit.network.adapter import AdapterNet
from vision3d.stages.edit.network.files import PlanesModel
from vision3d.training.models import ModelFormat, TrainedModel
from vision3d.training.weights import digest_of, in_half

KIND = "edit_adapter"


@dataclass(frozen=True)
class Described:
    """An adapter and what it belongs to."""

    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    planes: PlanesConfig = field(default_factory=PlanesConfig)
    planes_digest: str = ""
    """Of the parameters of the encoder and decoder."""
    text_digest: str = ""
    """Of the file of the encoder of texts."""


class AdapterModel(TrainedModel[AdapterNet, Described]):
    """A network that edits the planes of one encoder by the tokens of one text encoder."""

    def check(self, planes: PlanesModel, encoder: TextEncoder) -> "AdapterModel":
        """Raise an InputError if it was trained with others."""
        check_partners("adapter", self.config.planes_digest, self.config.text_digest, planes, encoder)
        return self


def check_partners(name: str, of_planes: str, of_texts: str, planes: PlanesModel, encoder: TextEncoder) -> None:
    """Raise an InputError if a model was trained with other encoders.

    Args:
        name: Of the model.
        of_planes: Digest of the encoder of planes that it was trained with.
        of_texts: Digest of the encoder of texts.
        planes: The encoder of planes that is there.
        encoder: The encoder of texts.
    """
    pairs = (
        ("encoder of planes", of_planes, planes_digest(planes)),
        ("encoder of texts", of_texts, encoder.digest),
    )
    for what, own, given in pairs:
        if own != given:
            raise InputError(f"{name}: was trained with another {what} ({own[:12]}, got {given[:12]}); want weights that match")


def make_adapter(config: Described) -> AdapterNet:
    """The network of a configuration, with random parameters."""
    return AdapterNet(config.planes, config.adapter)


def describe(adapter: AdapterConfig, planes: PlanesModel, encoder: TextEncoder) -> Described:
    """An adapter for these encoders."""
    return Described(adapter, planes.config, planes_digest(planes), encoder.digest)


def planes_digest(planes: PlanesModel) -> str:
    """Digest of the parameters, rounded as in files."""
    return digest_of(in_half(planes.network))


FORMAT = ModelFormat(KIND, Described, make_adapter)


def save_adapter(path: Path | str, model: AdapterModel) -> None:
    """Write a model as .safetensors atomically: numbers as float16."""
    FORMAT.save(path, model)


def load_adapter(path: Path | str) -> AdapterModel:
    """Load a model in evaluation mode; arguments and errors as for `training.weights.load_network`."""
    return AdapterModel(*FORMAT.load(path))
