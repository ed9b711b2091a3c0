"""The LPIPS network: AlexNet features and five linear heads, with weights supplied by the user."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, MissingFileError, ShapeError

# (name of the convolution in torchvision's AlexNet, stride, padding, preceding max pool, shape of its weight)
_LAYERS = (
    ("features.0", 4, 2, False, (64, 3, 11, 11)),
    ("features.3", 1, 2, True, (192, 64, 5, 5)),
    ("features.6", 1, 1, True, (384, 192, 3, 3)),
    ("features.8", 1, 1, False, (256, 384, 3, 3)),
    ("features.10", 1, 1, False, (256, 256, 3, 3)),
)
# Mean and deviation of ImageNet's colors, for images in [-1, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
MIN_SIZE = 32


def find_weights(path: Path | None) -> dict[str, Tensor]:
    """Load all tensors of a .safetensors or .pt file, or of the files of a folder.

    Raises:
        InputError: `path` is None.
        MissingFileError: It does not exist, or the folder has no such files.
        FileFormatError: A file cannot be read, or contains anything but tensors.
    """
    if path is None:
        raise InputError("LPIPS: backbone weights not found, give --lpips-weights")
    if not path.exists():
        raise MissingFileError(path, "the LPIPS weights, a .safetensors or .pt file or a folder of them")
    files = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pt", ".pth")) if path.is_dir() else [path]
    if not files:
        raise MissingFileError(path / "*.safetensors", "the LPIPS weights, .safetensors or .pt files")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(_read(file))
    for name, *_, shape in _LAYERS:
        _require(path, tensors, f"{name}.weight", shape)
        _require(path, tensors, f"{name}.bias", shape[:1])
    for i, (*_, shape) in enumerate(_LAYERS):
        _require(path, tensors, f"lin{i}.model.1.weight", (1, shape[0], 1, 1))
    return tensors


class LpipsNetwork:
    """Distance of two batches of images (B, 3, H, W) in [0, 1] (Zhang et al. 2018, eq. 1)."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = {name: tensor.float() for name, tensor in tensors.items()}

    def __call__(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """One distance per pair, >= 0 with the published heads.

        Raises:
            ShapeError: A side is below 32 pixels, or the images are not RGB.
        """
        if a.shape[1] != 3 or min(a.shape[-2:]) < MIN_SIZE:
            raise ShapeError("image", a.shape[-2:] + a.shape[1:2], f"3 channels, at least {MIN_SIZE}x{MIN_SIZE} pixels")
        distance = a.new_zeros(len(a))
        for i, (x, y) in enumerate(zip(self._features(a), self._features(b), strict=True)):
            head = self.tensors[f"lin{i}.model.1.weight"].to(a)
            distance = distance + torch.nn.functional.conv2d((_unit(x) - _unit(y)) ** 2, head).mean((1, 2, 3))
        return distance

    def _features(self, images: Tensor) -> list[Tensor]:
        shift, scale = (torch.tensor(v).view(1, 3, 1, 1).to(images) for v in (_SHIFT, _SCALE))
        x = (2 * images - 1 - shift) / scale
        features = []
        for name, stride, padding, pool, _ in _LAYERS:
            if pool:
                x = torch.nn.functional.max_pool2d(x, 3, 2)
            weight, bias = self.tensors[f"{name}.weight"].to(x), self.tensors[f"{name}.bias"].to(x)
            x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, stride, padding))
            features.append(x)
        return features


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other protocols, which are rejected
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        problem = "is not a weights file, or holds objects other than tensors, which could run code; nothing was executed"
        raise FileFormatError(file, problem) from error
    except Exception as error:  # each format raises different errors for unusable files
        raise FileFormatError(file, f"cannot be read as weights: {error}") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise FileFormatError(file, "want a mapping from names to tensors (a state dict)")
    return dict(tensors)


def _require(path: Path, tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> None:
    if name not in tensors:
        raise FileFormatError(path, "is missing; want AlexNet features.* and the heads lin0 to lin4 of LPIPS", name)
    if tuple(tensors[name].shape) != shape:
        raise FileFormatError(path, f"got shape {tuple(tensors[name].shape)}, want {shape}", name)
