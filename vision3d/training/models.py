"""Trained models: a network with its configuration and card, and the files that store them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from vision3d.core import config as configuration
from vision3d.training.weights import Card, check_layout, in_half, listed, load_network, save_weights

logger = logging.getLogger("vision3d.training")

Network = TypeVar("Network", bound=nn.Module)
Config = TypeVar("Config")


@dataclass(eq=False)
class TrainedModel(Generic[Network, Config]):
    """A network, its configuration and its card."""

    network: Network
    config: Config
    card: Card
    """Training data, seed, time and metrics."""

    def to(self, device: torch.device) -> Self:
        """The same model with its network on a device."""
        return replace(self, network=self.network.to(device))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())


@dataclass(frozen=True)
class ModelFormat(Generic[Network, Config]):
    """How models of one kind are stored: one .safetensors file with float16 numbers, configuration and card."""

    kind: str
    """Kind of the card."""
    config_type: type[Config]
    make: Callable[[Config], Network]
    """Makes the network of a configuration."""

    def save(self, path: Path | str, model: TrainedModel[Any, Any], *, most_bytes: int | None = None) -> None:
        """Write a model atomically.

        Args:
            path: The file.
            model: The model.
            most_bytes: As for `save_weights`.
        """
        card = replace(model.card, kind=self.kind, config=configuration.to_dict(model.config))
        save_weights(path, card, in_half(model.network), most_bytes=most_bytes)

    def load(self, source: Path | str) -> tuple[Network, Config, Card]:
        """The network in evaluation mode, its configuration and its card; arguments and errors as for `load_network`."""
        return load_network(source, self.kind, self.config_type, self.make)

    def initialize(self, network: nn.Module, source: Path | str) -> None:
        """Replace the parameters of a network by those of a stored one where names and shapes agree; a warning lists others.

        Raises:
            MissingFileError: The file does not exist.
            FileFormatError: It contains something else, or less than half of the network's parameters.
        """
        stored = self.load(source)[0]
        if 2 * _size(_shared(network, stored)) < _size(network.state_dict()):
            check_layout(network, stored.state_dict(), source)
        adopt(network, stored, source)


def adopt(network: nn.Module, stored: nn.Module, source: Path | str) -> None:
    """Replace the parameters of a network by those of another where names and shapes agree; a warning lists others.

    Args:
        network: The network.
        stored: The other.
        source: Where that is from, for the warning.
    """
    same = _shared(network, stored)
    if others := sorted(network.state_dict().keys() - same.keys()):
        logger.warning("init: %s lacks %s; they begin as without it", source, listed(others))
    network.load_state_dict(same, strict=False)


def _shared(network: nn.Module, stored: nn.Module) -> dict[str, Tensor]:
    own = network.state_dict()
    return {name: value for name, value in stored.state_dict().items() if name in own and own[name].shape == value.shape}


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
