"""Trained networks of hands: network, configuration and model card, in one file."""

from pathlib import Path

from vision3d.core.errors import ConfigError
from vision3d.stages.hand.config import NetworkConfig
from vision3d.stages.hand.network.backbone import LITE0, TimmBackbone, load_lite0
from vision3d.stages.hand.network.hand_net import HandNet
from vision3d.stages.hand.template import HandTemplate
from vision3d.training.models import ModelFormat, TrainedModel, adopt
from vision3d.training.weights import check_layout

KIND = "hand"


class HandModel(TrainedModel[HandNet, NetworkConfig]):
    """A network that finds joints and mesh in a crop of a right hand."""


def make_network(config: NetworkConfig) -> HandNet:
    """The network of a configuration for the bundled template, with random parameters."""
    hand = HandTemplate.load("right")
    return HandNet(config, hand.joint_matrix, hand.vertices)


FORMAT = ModelFormat(KIND, NetworkConfig, make_network)


IMAGENET = "imagenet"
"""Initial weights of the backbone tf_efficientnet_lite0, of an installed package."""


def initialize(network: HandNet, source: Path | str) -> None:
    """Replace the parameters by those of a stored network: of its backbone, and elsewhere where names and shapes agree.

    Args:
        network: The network.
        source: A file, the name of bundled weights, or `imagenet` for a backbone tf_efficientnet_lite0.

    Raises:
        ConfigError: The backbone has no weights of ImageNet.
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, contains something else, or has another backbone.
    """
    if source == IMAGENET:
        if network.config.backbone != LITE0 or not isinstance(network.backbone, TimmBackbone):
            raise ConfigError(
                "init", f"got {IMAGENET} with the backbone {network.config.backbone}, want --network.backbone {LITE0}"
            )
        load_lite0(network.backbone)
        return
    stored = load_hand_model(source).network
    check_layout(network.backbone, stored.backbone.state_dict(), source)
    adopt(network, stored, source)


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
