"""Trained networks of hands: network, configuration and model card, in one file."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vision3d.core import config as configuration
from vision3d.stages.hand.config import NetworkConfig
from vision3d.stages.hand.network.hand_net import HandNet
from vision3d.stages.hand.template import HandTemplate
from vision3d.training.weights import Card, in_half, load_network, save_weights

KIND = "hand"


@dataclass(eq=False)
class HandModel:
    """A network that finds joints and mesh in a crop of a right hand."""

    network: HandNet
    config: NetworkConfig
    card: Card
    """Training data, seed, time and figures."""

    def to(self, device: torch.device) -> "HandModel":
        return replace(self, network=self.network.to(device))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())


def make_network(config: NetworkConfig) -> HandNet:
    """The network of a configuration for the bundled template, with random parameters."""
    hand = HandTemplate.load("right")
    return HandNet(config, hand.joint_matrix, hand.vertices)


def save_hand_model(path: Path | str, model: HandModel, *, most_bytes: int | None = None) -> None:
    """Write a model as .safetensors atomically: numbers as float16.

    Args:
        path: The file.
        model: The model.
        most_bytes: As for `save_weights`.
    """
    card = replace(model.card, kind=KIND, config=configuration.to_dict(model.config))
    save_weights(path, card, in_half(model.network), most_bytes=most_bytes)


def load_hand_model(path: Path | str) -> HandModel:
    """Load a model in evaluation mode.

    Args:
        path: A file, or the name of bundled weights.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, contains something else, or does not match its configuration; differing keys are listed.
    """
    return HandModel(*load_network(path, KIND, NetworkConfig, make_network))
