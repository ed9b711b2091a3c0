"""Tensors with a description as .safetensors: the header's metadata has a key `vision3d`, JSON with type, version and more."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.core.plain import from_json


def write_described(
    path: Path | str, kind: str, version: int, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors and their description atomically.

    Args:
        path: The file.
        kind: Type of the contents, such as `digit_classifier`.
        version: Version of the layout.
        description: More values that JSON can represent.
        tensors: By name.
    """
    from safetensors.torch import save

    own = {"type": kind, "version": version, **description}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(plain, {"vision3d": json.dumps(own)}))


def described_type(path: Path | str) -> str:
    """Type of the contents that a file declares; empty if it declares none, or is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(path), framework="pt") as file:
            return str(from_json((file.metadata() or {})["vision3d"])["type"])
    except (SafetensorError, OSError, OverflowError, KeyError, TypeError, ValueError, RecursionError):
        return ""


def read_described(
    path: Path | str, kind: str, version: int, words: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the description and the tensors of a file.

    Args:
        path: The file.
        kind: Expected type of the contents.
        version: Expected version of the layout.
        words: Human-readable `kind`, such as `a classifier`.
        keys: Further required keys of the description.
        optional: Keys that some files have.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged or contains something else.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, f"{words} (.safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError, OverflowError) as error:
        raise FileFormatError(
            path, f"is damaged or not a .safetensors file ({str(error).splitlines()[0]})", "header"
        ) from error
    try:
        own = from_json(metadata["vision3d"])
        found = own["type"], own["version"]
        if found == (kind, version):
            return {**{key: own[key] for key in keys}, **{key: own[key] for key in optional if key in own}}, tensors
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(path, f"does not declare that it holds {words} of vision3d", "header") from error
    text = f"holds {found[0]!r}, version {found[1]!r}; want {kind!r}, version {version}"
    raise FileFormatError(path, text, "header")
