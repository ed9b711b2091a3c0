"""Trained adapters: network, configuration, digests of what they belong to, and model card, in one file."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from vision3d.core import config as configuration
from vision3d.core.errors import InputError
from vision3d.stages.edit.config import AdapterConfig, PlanesConfig
from vision3d.stages.edit.instructions.text import TextEncoder
from vision3d.stages.edit.network.adapter import AdapterNet
from vision3d.stages.edit.network.files import PlanesModel
from vision3d.training.weights import Card, in_half, load_network, save_weights

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


@dataclass(eq=False)
class AdapterModel:
    """A network that edits the planes of one encoder by tokens of one encoder of texts."""

    network: AdapterNet
    config: Described
    card: Card
    """Training data, seed, time and figures."""

    def to(self, device: torch.device) -> "AdapterModel":
        return replace(self, network=self.network.to(device))

    def check(self, planes: PlanesModel, encoder: TextEncoder) -> "AdapterModel":
        """Raise an InputError if it was trained with others."""
        pairs = (
            ("encoder of planes", self.config.planes_digest, digest_of(planes)),
            ("encoder of texts", self.config.text_digest, encoder.digest),
        )
        for name, own, given in pairs:
            if own != given:
                raise InputError(
                    f"adapter: was trained with another {name} ({own[:12]}, got {given[:12]}); want weights that match"
                )
        return self


def make_adapter(config: Described) -> AdapterNet:
    """The network of a configuration, with random parameters."""
    return AdapterNet(config.planes, config.adapter)


def describe(adapter: AdapterConfig, planes: PlanesModel, encoder: TextEncoder) -> Described:
    """An adapter for these encoders."""
    return Described(adapter, planes.config, digest_of(planes), encoder.digest)


def digest_of(planes: PlanesModel) -> str:
    """SHA-256 of the parameters, rounded as in files."""
    digest = hashlib.sha256()
    for name, value in sorted(in_half(planes.network).items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_adapter(path: Path | str, model: AdapterModel) -> None:
    """Write a model as .safetensors atomically: numbers as float16."""
    card = replace(model.card, kind=KIND, config=configuration.to_dict(model.config))
    save_weights(path, card, in_half(model.network))


def load_adapter(path: Path | str) -> AdapterModel:
    """Load a model in evaluation mode.

    Args:
        path: A file, or the name of bundled weights.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, contains something else, or does not match its configuration; differing keys are listed.
    """
    return AdapterModel(*load_network(path, KIND, Described, make_adapter))
