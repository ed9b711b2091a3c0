"""Trained networks of hands: network, configuration and model card, in one file."""

from pathlib import Path

from vision3d.stages.hand.config import NetworkConfig
from vision3d.stages.hand.network.hand_net import HandNet
from vision3d.stages.hand.template import HandTemplate
from vision3d.training.models import ModelFormat, TrainedModel

KIND = "hand"


class HandModel(TrainedModel[HandNet, NetworkConfig]):
    """A network that finds joints and mesh in a crop of a right hand."""


def make_network(config: NetworkConfig) -> HandNet:
    """The network of a configuration for the bundled template, with random parameters."""
    hand = HandTemplate.load("right")
    return HandNet(config, hand.joint_matrix, hand.vertices)


FORMAT = ModelFormat(KIND, NetworkConfig, make_network)


def save_hand_model(path: Path | str, model: HandModel, *, most_bytes: int | None = None) -> None:
    """Write a model as .safetensors atomically: numbers as float16.

    Args:
        path: The file.
        model: The model.
        most_bytes: As for `save_weights`.
    """
    FORMAT.save(path, model, most_bytes=most_bytes)


def load_hand_model(path: Path | str) -> HandModel:
    """Load a model in evaluation mode.

    Args:
        path: A file, or the name of bundled weights.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, contains something else, or does not match its configuration; differing keys are listed.
    """
    return HandModel(*FORMAT.load(path))
