"""Sizes of a TripoSR network, from the config.yaml beside its weights and the shapes of the image encoder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vision3d.core.config import read_yaml
from vision3d.core.errors import FileFormatError, MissingFileError

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_PARTS = {
    "image_tokenizer_cls": "DINOSingleImageTokenizer",
    "tokenizer_cls": "Triplane1DTokenizer",
    "backbone_cls": "Transformer1D",
    "post_processor_cls": "TriplaneUpsampleNetwork",
    "decoder_cls": "NeRFMLP",
    "renderer_cls": "TriplaneNeRFRenderer",
}
"""The parts of TripoSR; other models of its family have other ones."""
_FIXED = {
    "decoder.activation": "silu",
    "renderer.feature_reduction": "concat",
    "renderer.density_activation": "exp",
}
_KEYS = {
    "image_size": "cond_image_size",
    "plane": "tokenizer.plane_size",
    "width": "tokenizer.num_channels",
    "heads": "backbone.num_attention_heads",
    "head": "backbone.attention_head_dim",
    "layers": "backbone.num_layers",
    "context": "backbone.cross_attention_dim",
    "channels": "post_processor.out_channels",
    "neurons": "decoder.n_neurons",
    "hidden": "decoder.n_hidden_layers",
    "radius": "renderer.radius",
    "density_bias": "renderer.density_bias",
}
_SAME = {
    "backbone.in_channels": "tokenizer.num_channels",
    "post_processor.in_channels": "tokenizer.num_channels",
}


@dataclass(frozen=True)
class VitSizes:
    """The encoder of images; those of DINO ViT-B/16."""

    width: int = 768
    layers: int = 12
    mlp: int = 3072
    patch: int = 16
    grid: int = 14
    """Patches along a side of the images that its positions are stored for."""
    head: int = 64
    """Channels of an attention head."""


@dataclass(frozen=True)
class LrmSizes:
    """Sizes of TripoSR; the defaults are those of the published one."""

    image_size: int = 512
    """Side of the image [px]."""
    plane: int = 32
    """Tokens along a side of a plane."""
    width: int = 1024
    """Channels of a token."""
    heads: int = 16
    head: int = 64
    layers: int = 16
    context: int = 768
    """Channels of a token of the image."""
    channels: int = 40
    """Channels of a plane."""
    neurons: int = 64
    hidden: int = 9
    """Hidden layers of the decoder."""
    radius: float = 0.87
    """Half side of the cube."""
    density_bias: float = -1.0
    vit: VitSizes = VitSizes()


def read_sizes(path: Path, vit: VitSizes) -> LrmSizes:
    """The sizes that a config.yaml of TripoSR states.

    Args:
        path: The file.
        vit: Those of the encoder of images, which the file does not state.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It lacks a key, has another value than TripoSR can have, or belongs to another model.
    """
    if not path.is_file():
        raise MissingFileError(path, "the configuration of TripoSR")
    values = read_yaml(path)
    for key, name in _PARTS.items():
        got = _get(path, values, key)
        if str(got).rsplit(".", 1)[-1] != name:
            raise FileFormatError(path, f"{key}: got {got!r}, want {name}, of TripoSR")
    for key, want in _FIXED.items():
        if (got := _get(path, values, key)) != want:
            raise FileFormatError(path, f"{key}: got {got!r}, want {want!r}")
    for key, other in _SAME.items():
        if (got := _get(path, values, key)) != (want := _get(path, values, other)):
            raise FileFormatError(path, f"{key}: got {got!r}, want {want!r}, as {other}")
    types = {field.name: field.type for field in fields(LrmSizes)}
    found: dict[str, Any] = {}
    for name, key in _KEYS.items():
        value = _get(path, values, key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if types[name] is int and not (number and value == int(value) and 0 < value <= 65_536):
            raise FileFormatError(path, f"{key}: got {value!r}, want a positive integer")
        if not number or (name == "radius" and not 0 < value < 100):
            raise FileFormatError(path, f"{key}: got {value!r}, want a number{' above 0' if name == 'radius' else ''}")
        found[name] = int(value) if types[name] is int else float(value)
    sizes = LrmSizes(**found, vit=vit)
    _check(path, sizes, values)
    return sizes


def _check(path: Path, sizes: LrmSizes, values: Mapping[str, Any]) -> None:
    inputs = _get(path, values, "decoder.in_channels")
    for key, got, want in (
        ("backbone.attention_head_dim", sizes.heads * sizes.head, sizes.width),
        ("decoder.in_channels", inputs, 3 * sizes.channels),
        ("backbone.cross_attention_dim", sizes.context, sizes.vit.width),
        ("cond_image_size", sizes.image_size % sizes.vit.patch, 0),
    ):
        if got != want:
            words = {"cond_image_size": f"a multiple of {sizes.vit.patch}"}.get(key, str(want))
            got = sizes.image_size if key == "cond_image_size" else got
            raise FileFormatError(path, f"{key}: got {got}, want {words}")


def _get(path: Path, values: Mapping[str, Any], key: str, depth: int = 0) -> Any:
    """The value of a dotted key; one that refers to another key is followed."""
    found: Any = values
    for name in key.split("."):
        if not isinstance(found, Mapping) or name not in found:
            raise FileFormatError(path, f"lacks {key}, want the config.yaml of TripoSR")
        found = found[name]
    if isinstance(found, str) and (match := _REFERENCE.fullmatch(found)):
        if depth > 8:
            raise FileFormatError(path, f"{key}: refers to itself")
        return _get(path, values, match[1], depth + 1)
    return found
