"""A trained network with its model card: its file, and the bundled one."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vision3d.core import config as configuration
from vision3d.core.errors import ConfigError, FileFormatError, InputError, ShapeError
from vision3d.stages.equivariant.config import ModelConfig
from vision3d.stages.equivariant.foreground import prepared
from vision3d.stages.equivariant.networks import CLASSES, PlanarNet, RotationNet, make_network
from vision3d.training.weights import Card, find_weights, load_strictly, load_weights, save_weights

KIND, BUNDLED = "digit_classifier", "digits"
_SEEN = "training_digits"
_CHUNK = 256
_MIN = 8  # px
_RANGE_SLACK = 1e-3  # tolerance for resampling overshoot


@dataclass(eq=False)
class Classifier:
    """Classifies digits at any position, orientation and scale in an image."""

    network: nn.Module
    config: ModelConfig
    card: Card
    """Training information: data, seed, time."""
    seen: Int64[Tensor, " n"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """`fingerprints` of its training digits, on which it must not be evaluated."""

    def logits(self, images: Float[Tensor, "n h w"], draws: int = 1) -> Float[Tensor, "n 10"]:
        """Logits of images.

        Args:
            images: Bright digits on a darker background, floats in [0, 1], of any size from 8 px on. Gray backgrounds, slow
                gradients and noise are handled (`background="subtract"`); for dark digits on white pass `1 - images`.
            draws: Number of draws of group samples whose logits are averaged (methods full and separable).

        Raises:
            ShapeError: Wrong number of axes, smaller images, or not floats.
            InputError: Values are outside [0, 1] or not finite.
        """
        if images.ndim != 3 or min(images.shape[-2:]) < _MIN:
            raise ShapeError("images", images.shape, f"(N, H, W) with sides of at least {_MIN}")
        if not images.is_floating_point():
            raise ShapeError("images", images.dtype, "torch.float32 in [0, 1]; divide bytes by 255")
        if images.numel():
            low, high = (float(value) for value in images.aminmax())
            if not (low >= -_RANGE_SLACK and high <= 1 + _RANGE_SLACK):  # false for NaN, too
                raise InputError(f"images: values from {low:g} to {high:g}; want 0 (black) to 1 (white), all finite")
        self.network.eval()
        repeats = draws if isinstance(self.network, PlanarNet) else 1
        with torch.inference_mode():
            found = [
                sum(self.network(part) for _ in range(repeats)) / repeats
                for part in (prepared(part, self.config) for part in images.split(_CHUNK))
            ]
        return torch.cat(found) if found else images.new_zeros(0, CLASSES)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def predict(self, images: Float[Tensor, "n h w"], draws: int = 1) -> Int64[Tensor, " n"]:
        """The predicted digits.

        Example:
            >>> from vision3d.stages.equivariant import load_classifier
            >>> load_classifier().predict(torch.zeros(2, 40, 40)).shape
            torch.Size([2])
        """
        return self.logits(images, draws).argmax(-1)

    def with_window(self, degrees: float) -> "Classifier":
        """The same network of method rotation with another window of rotations; shares the parameters."""
        config = replace(self.config, window_deg=degrees)
        network = make_network(config)
        network.load_state_dict(self.network.state_dict())
        return Classifier(network.eval(), config, self.card, self.seen)

    @property
    def is_rotational(self) -> bool:
        """Whether the network pools over rotations."""
        return isinstance(self.network, RotationNet)


def save_classifier(path: Path | str, classifier: Classifier) -> None:
    """Write a classifier with its card as .safetensors atomically."""
    card = replace(classifier.card, kind=KIND, config=configuration.to_dict(classifier.config))
    save_weights(path, card, {**classifier.network.state_dict(), _SEEN: classifier.seen})


def load_classifier(path: Path | str = BUNDLED) -> Classifier:
    """Load a classifier.

    Args:
        path: A file, or the name of bundled weights: `digits` (method rotation).

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged or contains something else.

    Example:
        >>> load_classifier().config.method
        'rotation'
    """
    path = find_weights(path)
    card, tensors = load_weights(path, KIND)
    try:
        config = configuration.from_dict(ModelConfig, card.config)
        if config.channels > 512:
            raise ConfigError("channels", f"got {config.channels}, want at most 512")
    except ConfigError as error:
        raise FileFormatError(path, f"does not match its description ({error})") from error
    network = make_network(config)
    seen = tensors.pop(_SEEN, torch.zeros(0, dtype=torch.int64))
    load_strictly(network, tensors, path)
    return Classifier(network.eval(), config, card, seen)
