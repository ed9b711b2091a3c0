"""Trained detectors: network, configuration and model card, in one file."""

from pathlib import Path

from vision3d.core.errors import ConfigError, nearest_names
from vision3d.stages.detect.config import ModelConfig
from vision3d.stages.detect.network.detector import Network, make_network
from vision3d.stages.detect.operators import OPERATORS
from vision3d.training.models import ModelFormat, TrainedModel
from vision3d.training.weights import bundled_weights

KIND = "detector"


class Detector(TrainedModel[Network, ModelConfig]):
    """A network that finds boxes in sweeps."""


FORMAT = ModelFormat(KIND, ModelConfig, make_network)


def save_detector(path: Path | str, detector: Detector) -> None:
    """Write a detector as .safetensors atomically: numbers as float16, which changes boxes by less than a centimeter."""
    FORMAT.save(path, detector)


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
    return Detector(*FORMAT.load(path))
