"""Trained detectors: network, configuration and model card, in one file."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vision3d.core import config as configuration
from vision3d.core.errors import ConfigError, nearest_names
from vision3d.stages.detect.config import ModelConfig
from vision3d.stages.detect.network.detector import Network, make_network
from vision3d.stages.detect.operators import OPERATORS
from vision3d.training.weights import Card, bundled_weights, in_half, load_network, save_weights

KIND = "detector"


@dataclass(eq=False)
class Detector:
    """A network that finds boxes in sweeps."""

    network: Network
    config: ModelConfig
    card: Card
    """Training data, seed, time and figures."""

    def to(self, device: torch.device) -> "Detector":
        return replace(self, network=self.network.to(device))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())


def save_detector(path: Path | str, detector: Detector) -> None:
    """Write a detector as .safetensors atomically: numbers as float16, which changes boxes by less than a centimeter."""
    card = replace(detector.card, kind=KIND, config=configuration.to_dict(detector.config))
    save_weights(path, card, in_half(detector.network))


def load_operator(path: Path | str, operator: str) -> Detector:
    """Load a detector whose sequence operator is this one: of a path, or among all bundled weights if that is a name.

    Args:
        path: As for `load_detector`.
        operator: A key of `OPERATORS`.

    Raises:
        ConfigError: No operator has this name, or the weights have another one.
        MissingFileError: As for `load_detector`.
        FileFormatError: As for `load_detector`.
    """
    if operator not in OPERATORS:
        raise ConfigError("operator", f"got {operator!r}; {nearest_names(operator, OPERATORS)}")
    bundled = bundled_weights()
    names = [str(path), *(name for name in bundled if name.startswith(KIND) and str(path) in bundled)]
    found = {}
    for name in dict.fromkeys(names):
        detector = load_detector(name)
        config = detector.config
        found[name] = config.lion.operator if config.method == "lion" else config.method
        if found[name] == operator:
            return detector
    listed = ", ".join(f"{name} ({kind})" for name, kind in found.items())
    raise ConfigError(
        "operator", f"got {operator!r}, these weights have another one: {listed}; give --weights of a training with it"
    )


def load_detector(path: Path | str) -> Detector:
    """Load a detector in evaluation mode.

    Args:
        path: A file, or the name of bundled weights.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, contains something else, or does not match its configuration; differing keys are listed.
    """
    return Detector(*load_network(path, KIND, ModelConfig, make_network))
